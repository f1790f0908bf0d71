"""Class probabilities of images from classifiers that were not trained on the labels they judge.

The images are split into folds. In round one each fold's classifier trains on the given labels of
the others and predicts its own fold. From then on, where `decide` finds wrong labels, classifiers
train anew on what the labels are likely to be: in the other folds by image and label, in the own
fold by the image alone, as the classifiers of the round before predicted it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curricula.types import Doubles, Ints
from robustdiff.classifiers.image import (
    Lessons,
    passes_for,
    predict,
    train_image_classifier,
)
from robustdiff.classifiers.networks import is_natural
from robustdiff.config.sections import JudgeConfig
from robustdiff.files.unfinished import Unfinished
from robustdiff.labels.decision import Decision, decide
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Progress
from robustdiff.rng import Stream, stream_seed
