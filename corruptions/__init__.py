"""Label noise for any dataset of integer labels.

labels = corrupt(clean, num_classes=10, noise_type="symmetric", rate=0.3, seed=0)
labels.given, labels.flipped, labels.realised_rate
"""

from corruptions.class_maps import CIFAR100_SUPERCLASSES, CLASS_MAPS
from corruptions.compat import COMPAT
from corruptions.draws import MODES
from corruptions.estimation import Estimate, confident_joint, mixture_posterior, score_mixture
from corruptions.joining import Joined, labels_from
from corruptions.labels import NoisyLabels, transition_of
from corruptions.noise import NOISE_TYPES, corrupt
from corruptions.readers import LabelFile, read_labels
from corruptions.samples import Samples
from corruptions.sources import samples_from
from corruptions.transitions import load_matrix, pairflip, symmetric, symmetric_inclusive

__all__ = [
    "CIFAR100_SUPERCLASSES",
    "CLASS_MAPS",
    "COMPAT",
    "MODES",
    "NOISE_TYPES",
    "Estimate",
    "Joined",
    "LabelFile",
    "NoisyLabels",
    "Samples",
    "confident_joint",
    "corrupt",
    "labels_from",
    "load_matrix",
    "mixture_posterior",
    "pairflip",
    "read_labels",
    "samples_from",
    "score_mixture",
    "symmetric",
    "symmetric_inclusive",
    "transition_of",
]
