"""Datasets: images in memory, folders of images."""
