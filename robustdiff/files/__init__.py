"""Files that are whole or absent: atomic writing, weights, checkpoints."""
