"""Metrics for generated images and for finding wrong labels.

`report.evaluate` puts a set of generated images through all metrics and puts next to each number
what real images get at the same sample count; the other modules hold single metrics. Images are
uint8 here, numbers are computed in float64, and nothing touches the global random generators.
"""
