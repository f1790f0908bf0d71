"""The robustdiff command line: one file per command, no mathematics."""
