"""Corrected labels as they leave: tables, trees of images, files of other tools; and back."""
