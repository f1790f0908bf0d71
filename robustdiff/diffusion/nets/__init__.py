"""Networks: the U-Net noise estimator and the embeddings of time and class."""
