"""How well a trust score finds wrong labels, and whether it is calibrated."""

import numpy as np
import torch
from torch import Tensor


def detection(
    score: Tensor, flipped: Tensor, flagged: Tensor | None = None
) -> dict[str, float] | None:
    """Compare a trust score with the labels that are known to be wrong.

    Args:
        score: (N,) floating point, finite, high = trusted. Only its order matters.
        flipped: (N,) bool, True where the label is wrong.
        flagged: (N,) bool, True where the label is called wrong, if that is decided.

    Returns:
        `auroc`: the chance that a right label scores above a wrong one, ties count half.
        `average_precision`: of finding wrong labels by low score; the share of wrong labels is what
        a random score gets. `precision_at_rate`: the share of wrong labels among the F least
        trusted samples, F being the number of wrong labels (so it is the recall too); samples tied
        at the cut count by the mean over all ways to break the tie. With `flagged` also its
        `flag_precision` (0 if nothing is called wrong), `flag_recall` and `flag_f1`. None if all
        labels are right or all are wrong, where nothing can be told apart.

    Raises:
        ValueError: If an argument has a wrong shape or type, or the score is not finite.
    """
    if flipped.dtype != torch.bool or flipped.ndim != 1 or len(flipped) == 0:
        raise ValueError(
            f"flipped must be bool of shape (N,), got {flipped.dtype} of shape "
            f"{tuple(flipped.shape)}"
        )
    if flagged is not None and (flagged.dtype != torch.bool or flagged.shape != flipped.shape):
        raise ValueError(
            f"flagged must be bool of shape ({len(flipped)},), got {flagged.dtype} of shape "
            f"{tuple(flagged.shape)}"
        )
    if score.shape != flipped.shape or not score.is_floating_point():
        raise ValueError(
            f"score must be floating point of shape ({len(flipped)},), got {score.dtype} "
            f"of shape {tuple(score.shape)}"
        )
    from sklearn.metrics import average_precision_score, roc_auc_score

    suspicion = -score.detach().cpu().double().numpy()
    wrong = flipped.cpu().numpy()
    if not np.isfinite(suspicion).all():
        bad = int((~np.isfinite(suspicion)).sum())
        raise ValueError(f"score must be finite, got {bad} of {len(score)} values NaN or inf")
    if wrong.all() or not wrong.any():
        return None
    return {
        "auroc": float(roc_auc_score(wrong, suspicion)),
        "average_precision": float(average_precision_score(wrong, suspicion)),
        "precision_at_rate": _precision_among(suspicion, wrong, int(wrong.sum())),
        **({} if flagged is None else _flag(flagged.cpu().numpy(), wrong)),
    }


def _flag(flagged: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Return precision, recall and F1 of a decision about labels, of which some are wrong."""
    both = float((flagged & wrong).sum())
    return {
        "flag_precision": both / max(int(flagged.sum()), 1),
        "flag_recall": both / int(wrong.sum()),
        "flag_f1": 2 * both / int(flagged.sum() + wrong.sum()),
    }


def _precision_among(suspicion: np.ndarray, wrong: np.ndarray, count: int) -> float:
    """Return the expected share of wrong labels among the `count` most suspicious samples."""
    cut = np.partition(suspicion, -count)[-count]
    above, tied = suspicion > cut, suspicion == cut
    places = count - above.sum()
    return float((wrong[above].sum() + places * wrong[tied].mean()) / count)


def calibration_error(right: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error of probabilities (Naeini et al. 2015).

    Args:
        right: (N,) in [0, 1], how likely each label is right.
        truth: (N,) bool, which labels are right.
        bins: Number of bins, of equal count.

    Returns:
        Mean over labels of the distance between the mean probability and the share of right labels
        of their bin, in [0, 1].
    """
    parts = np.array_split(np.argsort(right, kind="stable"), bins)
    distances = [abs(right[part].sum() - truth[part].sum()) for part in parts]
    return float(sum(distances) / len(right))
