"""Label noise for any dataset of integer labels.

labels = corrupt(clean, num_classes=10, noise_type="symmetric", rate=0.3, seed=0)
labels.given, labels.flipped, labels.realised_rate
"""

from corruptions.labels import NoisyLabels, transition_of
from corruptions.noise import MODES, NOISE_TYPES, corrupt
from corruptions.transitions import CLASS_MAPS, load_matrix, pairflip, symmetric

__all__ = [
    "CLASS_MAPS",
    "MODES",
    "NOISE_TYPES",
    "NoisyLabels",
    "corrupt",
    "load_matrix",
    "pairflip",
    "symmetric",
    "transition_of",
]
