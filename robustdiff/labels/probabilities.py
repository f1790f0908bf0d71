"""Somebody else's class probabilities: read from a file, and turned into trust in the labels."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corruptions.arrays import load_array
from curricula import Trust, spared
from curricula.types import Ints
from robustdiff.labels.decision import Decision, decide


def read_probabilities(path: Path, count: int, num_classes: int) -> NDArray[np.float64]:
    """Read the class probabilities of a dataset's images.

    Args:
        path: .npy, or .npz with one array of that shape.
        count: N, images of the dataset, whose order the rows have.
        num_classes: K.

    Returns:
        (N, K) float64, at least 0; rows need not sum to 1.

    Raises:
        ValueError: If the file cannot be read, or holds anything else.
    """
    found = _arrays(path)
    fitting = [a for a in found if a.shape == (count, num_classes) and a.dtype.kind in "fiu"]
    if len(fitting) != 1:
        shapes = ", ".join(str(array.shape) for array in found) or "nothing"
        raise ValueError(
            f"{path} must hold one array of shape ({count}, {num_classes}), a row for each image "
            f"and a column for each class, got {shapes}"
        )
    probabilities = fitting[0].astype(np.float64)
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError(f"{path} must hold finite probabilities of at least 0")
    return probabilities


def _arrays(path: Path) -> list[NDArray[np.generic]]:
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"probabilities are read from .npy and .npz files, got {path}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix == ".npy":
        return [load_array(path)]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in archive.files]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an archive of plain arrays, or is damaged") from error


def by_probabilities(probabilities: NDArray[np.floating], given: Ints) -> tuple[Trust, str]:
    """Return trust in the labels by `decide`, and what was found, in words.

    Args:
        probabilities: (N, K), by a classifier that was not trained on the label that it judges.
        given: (N,) int64 labels as given.
    """
    found = decide(probabilities, given)
    noise = float("nan") if found.kind == "no evidence" else found.share
    trust = Trust(
        found.right,
        noise,
        found.classes,
        found.image_classes,
        found.transition,
        doubts=found.doubts,
    )
    return spared(trust, given), _in_words(found)


def _in_words(found: Decision) -> str:
    if found.kind == "no evidence":
        return "they predict the given labels no better than chance, or hardly better"
    if found.kind == "no noise":
        return f"nothing speaks for wrong labels (at most {found.high:.1%})"
    where = "by class" if found.kind == "by class" else "more often on images that are hard"
    return f"labels are wrong {where}, between {found.low:.1%} and {found.high:.1%} of them"
