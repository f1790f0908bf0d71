"""Train class-conditional diffusion models when some labels are wrong, and find those labels."""

__version__ = "0.1.0"
