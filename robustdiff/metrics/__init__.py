"""Metrics for generated images and for finding wrong labels.

`evaluate` puts a set of generated images through all metrics and puts next to each number what real
images get at the same sample count; the modules hold the single metrics. Images are uint8 here,
numbers are computed in float64, and nothing touches the global random generators.
"""

from robustdiff.classifiers.image import Evaluator, embed, load_or_train, train_evaluator
from robustdiff.metrics.report import evaluate

__all__ = ["Evaluator", "embed", "evaluate", "load_or_train", "train_evaluator"]
