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
_MOST_CONDITION = 1e3


def without_label_noise(
    model: Model, transition: Doubles, classifier: Callable[[Tensor, Tensor], Tensor]
) -> Model:
    """Return a model of the clean classes, by one of the given labels.

    Args:
        model: Trained on labels as given, and in part without any.
        transition: (K, K), T[clean, given].
        classifier: (x_t (B, C, H, W) float32, t (B,)) -> (B, K) logits of the clean classes.

    Raises:
        ValueError: If the matrix cannot be inverted: some classes get nearly the same labels.
    """
    null, given_under = model.null_class, torch.from_numpy(transition).float()
    factors, kept = _terms(transition)

    def network(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        asked = labels.reshape(len(x_t), -1)
        # Guidance asks for all images without a label, too; that estimate is made in any case.
        free = (asked == null).all(0)
        named = asked[:, ~free].clamp_max(null - 1)
        given = kept.to(labels.device)[named]
        without = torch.full_like(labels[: len(x_t), None], null)
        output = model.network(x_t, t, torch.cat([given.flatten(1), without], 1).flatten())
        output = output.reshape(len(x_t), -1, *output.shape[1:])
        unlabelled = output[:, -1:]
        apart = (output[:, :-1] - unlabelled).reshape(*given.shape, *output.shape[2:])

        clean = classifier(x_t, t).float().softmax(1).clamp_min(_LEAST_SHARE / null)
        clean = clean / clean.sum(1, keepdim=True)
        as_given = clean @ given_under.to(clean.device)
        likely = as_given[:, None].expand(-1, named.shape[1], -1).gather(2, given)
        share = factors.to(clean.device)[named] * likely / clean.gather(1, named)[..., None]
        share = share * (asked[:, ~free] != null)[..., None]
        found = unlabelled.repeat(1, asked.shape[1], 1, 1, 1)
        found[:, ~free] += (share[..., None, None, None] * apart).sum(2)
        return found.flatten(0, 1)

    return replace(model, network=network)


def _terms(transition: Doubles) -> tuple[Tensor, Tensor]:
    """Return for each class the factors of its terms, (K, M) float32, and their given labels.

    Raises:
        ValueError: If the matrix cannot be inverted.
    """
    if np.linalg.cond(transition) > _MOST_CONDITION:
        raise ValueError(
            "the wrong labels cannot be undone: by the transition matrix, some classes get nearly "
            "the same labels"
        )
    inverse = np.linalg.inv(transition)
    others = np.where(np.eye(len(inverse), dtype=bool), np.nan, inverse)
    apart = torch.from_numpy(inverse - np.nanmedian(others, axis=0)).T
    count = int((apart.abs() > _COUNTS * apart.diagonal().abs()[:, None]).sum(1).max())
    kept = apart.abs().topk(count, dim=1).indices
    return apart.gather(1, kept).float(), kept
