"""Classifiers of images and of noisy images."""
