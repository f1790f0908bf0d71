"""Curricula for noisy labels: scores -> weights -> draws, for any model.

sampler = CurriculumSampler("small-loss", num_samples, seed=0, selection=Selection())
for epoch in range(epochs):
    for index in sampler.order(epoch): ...        # train
    sampler.update(scores)                        # (N,) high = prefer
"""

from curricula.draw import gumbel_top_k, random_scores, selected_share
from curricula.sampler import CurriculumSampler, Selection
from curricula.scores import CURRICULA, Curriculum, dynamics, squared_error
from curricula.trust import TREATMENTS, Labels, Trust, spared, trusted

__all__ = [
    "CURRICULA",
    "TREATMENTS",
    "Curriculum",
    "CurriculumSampler",
    "Labels",
    "Selection",
    "Trust",
    "dynamics",
    "gumbel_top_k",
    "random_scores",
    "selected_share",
    "spared",
    "squared_error",
    "trusted",
]
