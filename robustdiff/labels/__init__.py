"""Evidence of images about their labels, and trust in the labels."""
