"""Speed of training, scoring and sampling, side by side with peers: python -m benchmarks.speed."""
