"""Labels for any trainer: judged ones as a dataset, and labels that the trained denoiser scores."""
