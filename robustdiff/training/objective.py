"""Training objectives under label noise: transition-aware weighted denoising (Na et al. 2024).

Given its label, a noisy image's score is a mixture of the scores of the clean classes,

    score(x_t | given) = sum_y p(y | x_t, given) score(x_t | y),

so a network whose mixture is fitted to noisily labelled images learns the clean classes. The
weights are Bayes' p(y | x_t, given) = T[y, given] p(y | x_t) / sum_k T[k, given] p(k | x_t), with
p(y | x_t) from a classifier of noisy images trained under T (forward correction). Without the
image, p(y | given) gives the class-level variant.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curricula.types import Doubles, Ints
from robustdiff.classifiers.noisy_image import TimeClassifier, train_time_classifier
from robustdiff.diffusion.process import per_image
from robustdiff.diffusion.schedules import SCHEDULES
from robustdiff.labels.label_fit import deconvolve
from robustdiff.training.judging import judge_by_classifiers
from robustdiff.training.task import Task

# Classes below this weight are left out, as in the authors' code; with more than 50 classes below
# half of an equal share, so that some class is always left.
_SMALLEST_WEIGHT, _SMALLEST_SHARE = 0.01, 0.5
_TINY = 1e-12


class ClassMixture(nn.Module):
    """Probabilities of the clean class behind each given label.

    Attributes:
        transition: (K, K) float32, T[clean, given].
        prior: (K,) float32, shares of the clean classes.
        classifier: Predicts the clean class of (x_t, t); None for class-level weights.
    """

    transition: Tensor
    prior: Tensor

    def __init__(self, transition: Tensor, prior: Tensor, classifier: nn.Module | None) -> None:
        super().__init__()
        self.register_buffer("transition", transition.float())
        self.register_buffer("prior", prior.float())
        self.classifier = classifier

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Build what `state_dict` describes."""
        classifier = None
        if any(name.startswith("classifier.") for name in state):
            channels = state["classifier.convolve.0.weight"].shape[1]
            classifier = TimeClassifier(channels, len(state["prior"])).eval()
        mixture = cls(state["transition"], state["prior"], classifier)
        mixture.load_state_dict(state)
        return mixture.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def weights(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Return p(y | x_t, given).

        Args:
            x_t: (B, C, H, W) float32.
            t: (B,) times.
            labels: (B,) int64 in [0, K]; K, no label, has weight 1 for itself.

        Returns:
            (B, K + 1) float32, rows sum to 1.
        """
        null = len(self.prior)
        classes = self.prior.expand(len(labels), -1)
        if self.classifier is not None:
            classes = self.classifier(x_t, t).softmax(1)
        joint = classes * self.transition.T[labels.clamp_max(null - 1)]
        total = joint.sum(1, keepdim=True)
        # Where T rules the label out, p(class | image) remains.
        posterior = torch.where(total > _TINY, joint / total.clamp_min(_TINY), classes)
        without = F.one_hot(torch.full_like(labels, null), null + 1).float()
        return torch.where((labels == null)[:, None], without, F.pad(posterior, (0, 1)))


def mixed_output(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    x_t: Tensor,
    t: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    gradient: str,
) -> Tensor:
    """Return the weighted mean of a network's outputs under every class.

    Outputs are eps, x_0 or v: each is affine in the score at a fixed x_t, so that their mean with
    weights that sum to 1 is the output that belongs to the mean score.

    Args:
        network: See `robustdiff.diffusion.model.Network`.
        x_t: (B, C, H, W) float32.
        t: (B,) times.
        labels: (B,) int64, the given labels.
        weights: (B, K + 1), rows sum to 1.
        gradient: "all" differentiates every class's output, "given" only that of the given label,
            as the authors' code does.

    Returns:
        (B, C, H, W).
    """
    smallest = min(_SMALLEST_WEIGHT, _SMALLEST_SHARE / weights.shape[1])
    image, label = torch.nonzero(weights > smallest, as_tuple=True)
    # A GPU chooses kernels anew for every new number of pairs, which takes longer than a step.
    more = -len(image) % len(x_t) if x_t.is_cuda else 0
    rows, classes = F.pad(image, (0, more)), F.pad(label, (0, more))
    output = network(x_t[rows], t[rows], classes)[: len(image)]
    if gradient == "given":
        is_given = (label == labels[image]).reshape(-1, *([1] * (output.ndim - 1)))
        output = torch.where(is_given, output, output.detach())
    share = per_image(weights[image, label], output)
    # One cell for each pair, summed afterwards: the order of the sum does not depend on threads.
    cells = output.new_zeros(*weights.shape, *output.shape[1:])
    cells[image, label] = share * output
    kept = torch.where(weights > smallest, weights, 0).sum(1)
    return cells.sum(1) / per_image(kept, output)


def clean_prior(given: Ints, transition: Doubles) -> Doubles:
    """Return shares of the clean classes, (K,), under which T makes those of the given labels."""
    share = np.bincount(given, minlength=len(transition)) / len(given)
    prior: Doubles = deconvolve(share[None], transition, steps=1000)[0]
    return prior


def make_mixture(task: Task) -> ClassMixture | None:
    """Make the mixture of classes behind the given labels; None for the plain objective.

    All processes must call it: they judge the labels together, and the leader does the rest. It is
    on the CPU. Equal tasks give equal mixtures, so an interruption meanwhile does no harm.
    """
    if task.config.objective.name == "plain":
        return None
    transition = task.transition
    if transition is None:
        found = judge_by_classifiers(task, "estimating the noise", rounds=1)
        transition = found.decision.transition
    return task.workers.from_leader(lambda: _mixture_under(task, transition))


def _mixture_under(task: Task, transition: Doubles) -> ClassMixture:
    objective, data = task.config.objective, task.data
    classifier = None
    if objective.name == "tdsm":
        classifier = train_time_classifier(
            data,
            task.num_classes,
            transition=transition,
            schedule=SCHEDULES[task.config.diffusion.schedule],
            seed=task.config.seed,
            progress=task.report.stage("classifying noisy images"),
        )
    prior = torch.from_numpy(clean_prior(task.given, transition))
    return ClassMixture(torch.from_numpy(transition), prior, classifier).cpu()
