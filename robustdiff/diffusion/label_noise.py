"""Undo wrong labels while sampling: clean classes, by a model that was trained on noisy labels.

Such a model estimates mixtures of the clean classes' scores,

    p(given | x_t) score(x_t | given) = sum_y T[y, given] p(y | x_t) score(x_t | y),

which objective `tdsm` fits in training (Na et al. 2024). Solved for the clean classes, it is

    score(x_t | y) = sum_given T^-1[given, y] p(given | x_t) / p(y | x_t) score(x_t | given).

The factors sum to 1, so the same holds of eps, x_0 and v. The score without a label is the mean of
all given ones, so what the entries of a column of T^-1 have in common is one term of it. Under
symmetric noise nothing but the class's own label is left besides: guidance whose weight depends on
the noisy image.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from curricula.types import Doubles
from robustdiff.diffusion.model import Model

# Entries of T^-1 count where they differ from the others of their column by so much of the class's
# own: each costs one more estimate. Probabilities are at least so much of an equal share: a small
# classifier of noisy images cannot tell less.
_COUNTS, _LEAST_SHARE = 0.05, 0.5
_MOST_CONDITION = 100
# Estimates made at once, as a multiple of the batch: guidance makes two, memory is for few more.
_AT_ONCE = 4


def check_transition(transition: Doubles) -> None:
    """Refuse a transition matrix, (K, K), under which classes cannot be told apart.

    Raises:
        ValueError: If it holds no numbers, or some classes get nearly the same labels.
    """
    if not np.isfinite(transition).all() or np.linalg.cond(transition) > _MOST_CONDITION:
        raise ValueError(
            "the noise of the labels cannot be undone: by its estimate, some classes get nearly "
            "the same labels"
        )


def without_label_noise(
    model: Model, transition: Doubles, classifier: Callable[[Tensor, Tensor], Tensor]
) -> Model:
    """Return a model of the clean classes, by one of the given labels.

    Args:
        model: Trained on labels as given, and in part without any.
        transition: (K, K), T[clean, given].
        classifier: (x_t (B, C, H, W) float32, t (B,)) -> (B, K) logits of the clean classes.

    Raises:
        ValueError: See `check_transition`.
    """
    check_transition(transition)
    null, given_under = model.null_class, torch.from_numpy(transition).float()
    factors, kept = _terms(transition)

    def weights(x_t: Tensor, t: Tensor, named: Tensor, given: Tensor) -> Tensor:
        """Return the weights of (B, A, M) given labels for (B, A) clean classes."""
        clean = classifier(x_t, t).float().softmax(1).clamp_min(_LEAST_SHARE / null)
        clean = clean / clean.sum(1, keepdim=True)
        as_given = (clean @ given_under.to(clean.device))[:, None]
        likely = as_given.expand(-1, named.shape[1], -1).gather(2, given)
        return factors.to(clean.device)[named] * likely / clean.gather(1, named)[..., None]

    def some(x_t: Tensor, t: Tensor, asked: Tensor) -> Tensor:
        """Return the estimates under (B, A) labels, and without any: (B, A + 1, C, H, W)."""
        named = asked.clamp_max(null - 1)
        given = kept.to(asked.device)[named]
        without = torch.full_like(asked[:, :1], null)
        output = model.network(x_t, t, torch.cat([given.flatten(1), without], 1).flatten())
        output = output.reshape(len(x_t), -1, *output.shape[1:])
        unlabelled = output[:, -1:]
        apart = (output[:, :-1] - unlabelled).reshape(*given.shape, *output.shape[2:])
        share = weights(x_t, t, named, given) * (asked != null)[..., None]
        labelled = unlabelled + (share[..., None, None, None] * apart).sum(2)
        return torch.cat([labelled, unlabelled], 1)

    def network(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        asked = labels.reshape(len(x_t), -1)
        # Guidance asks for all images without a label, too; that estimate is made in any case.
        named = (asked != null).any(0)
        if not named.any():
            return model.network(x_t, t, labels)
        rows = int(named.sum()) * kept.shape[1] + 1
        pieces = torch.arange(len(x_t), device=x_t.device).chunk(-(-rows // _AT_ONCE))
        found = torch.cat([some(x_t[i], t[i], asked[i][:, named]) for i in pieces])
        # Columns without any label take the last estimate, the others their own.
        places = torch.where(named, named.cumsum(0) - 1, found.shape[1] - 1)
        return found[:, places].flatten(0, 1)

    return replace(model, network=network)


def _terms(transition: Doubles) -> tuple[Tensor, Tensor]:
    """Return for each class the factors of its terms, (K, M) float32, and their given labels."""
    inverse = np.linalg.inv(transition)
    others = np.where(np.eye(len(inverse), dtype=bool), np.nan, inverse)
    rest = torch.from_numpy(inverse - np.nanmedian(others, axis=0)).T
    count = int((rest.abs() > _COUNTS * rest.diagonal().abs()[:, None]).sum(1).max())
    kept = rest.abs().topk(count, dim=1).indices
    return rest.gather(1, kept).float(), kept
