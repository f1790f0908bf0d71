"""A dataset whose labels are those that training should use, and its sampler."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from curricula import TREATMENTS, CurriculumSampler, Labels, Trust
from curricula.draw import selected_share
from curricula.sparse import dense, likeliest
from curricula.types import Floats, Ints
from robustdiff.data.arrays import to_float
from robustdiff.data.handed import class_names_of
from robustdiff.data.items import images_of, labels_of, read_items


class Source(NamedTuple):
    """Images and labels as they were handed over.

    Attributes:
        images: (N, C, H, W) uint8.
        given: (N,) int64 labels in [0, K).
        num_classes: K.
        data: The map-style dataset that they were read from; None for arrays.
        keys: What image and label are called, where its items are mappings.
    """

    images: Tensor
    given: Ints
    num_classes: int
    data: Any | None
    keys: tuple[str, str]


def read_source(
    images: Any,  # noqa: ANN401 arrays of any library, or any dataset
    labels: Any,  # noqa: ANN401
    num_classes: int | None,
    keys: tuple[str, str],
) -> Source:
    """Read arrays, or a dataset where there are no labels; see `robustdiff.data.items`."""
    if labels is not None:
        pixels = images_of(images)
        return Source(pixels, *labels_of(labels, len(pixels), num_classes), None, keys)
    if isinstance(images, Tensor | np.ndarray):
        raise ValueError("images as an array need labels beside them, got none")
    pixels, found = read_items(images, keys)
    return Source(pixels, *labels_of(found, len(pixels), num_classes), images, keys)


class TrustedLabels(Dataset[Any]):
    """Images with the labels that training should use in place of the given ones.

    Items are (image, label). With treatment "soft" the label is a distribution over the classes,
    (K,) float32, and with "reweight" a third part is the weight of the loss. Items of a dataset of
    mappings are its own, with the label replaced and a "weight" added. Images given as arrays come
    as float32 in [-1, 1], (C, H, W), those of a dataset as it makes them.

    What items hold lies in shared memory, so that worker processes of a loader, persistent ones
    too, see labels that change between epochs.

    Attributes:
        given: (N,) int64 labels as given.
        num_classes: K; as a label it means to train without one.
        treatment: What is done about labels that are not trusted, a key of `TREATMENTS`.
    """

    def __init__(self, source: Source, curriculum: CurriculumSampler) -> None:
        self.given, self.num_classes, self._keys = source.given, source.num_classes, source.keys
        self.treatment = curriculum.treatment
        self._images, self._data, self._curriculum = source.images, source.data, curriculum
        targets, soft = torch.from_numpy(self.given), self.treatment == "soft"
        self._targets = _shared(F.one_hot(targets, self.num_classes).float() if soft else targets)
        self._weights = _shared(torch.ones(len(targets))) if self.treatment == "reweight" else None
        self._renew()

    def _renew(self) -> None:
        """Let the items hold what follows from the trust."""
        treated = self._curriculum.labels(self.given, self.num_classes)
        targets = treated.labels if treated.soft is None else dense(treated.soft)
        self._targets.copy_(torch.from_numpy(targets))
        if self._weights is not None:
            self._weights.copy_(torch.from_numpy(self.weights))

    @property
    def trust(self) -> Trust | None:
        """Trust in the labels; None before anything is known about them."""
        return self._curriculum.trust

    @property
    def labels(self) -> Ints:
        """Labels that training uses, (N,) int64 in [0, K]: what the treatment makes of them."""
        return self._curriculum.labels(self.given, self.num_classes).labels

    @property
    def weights(self) -> Floats:
        """Weights of the given labels in a loss, (N,) float32 of mean 1."""
        weights = self._treated("reweight").weights
        assert weights is not None
        return weights.astype(np.float32)

    @property
    def soft(self) -> Floats | None:
        """How likely each class is, (N, K) float32; None where the score does not compare them."""
        if self.trust is None or self.trust.classes is None:
            return None
        soft = self._treated("soft").soft
        return None if soft is None else dense(soft)

    @property
    def quality(self) -> Floats:
        """How likely each given label is right, (N,) float32 in [0, 1]; 1 before it is known."""
        return self._known.right.astype(np.float32)

    @property
    def scores(self) -> Floats | None:
        """How well each given label fits its image, (N,) float32, high = trusted, or None."""
        return self._curriculum.scores

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which given labels look wrong, (N,): another class is likelier, or it is below 1 / 2."""
        classes = self._known.classes
        if classes is not None:
            return np.asarray(likeliest(classes) != self.given)
        return np.asarray(self._known.right < 0.5)

    @property
    def noise(self) -> float:
        """Estimated share of wrong labels; NaN where nothing is known about it."""
        return self._known.noise

    @property
    def doubts(self) -> tuple[str, ...]:
        """What cannot be known from the labels, in sentences."""
        return tuple(doubt.format(*self.classes) for doubt in self._known.doubts)

    @property
    def classes(self) -> tuple[str, ...]:
        """K names of the classes, those of the dataset where it has them, else their numbers."""
        names = None if self._data is None else class_names_of(self._data, self._keys[1])
        if names is None or len(names) != self.num_classes:
            return tuple(map(str, range(self.num_classes)))
        return names

    @property
    def _known(self) -> Trust:
        return self.trust or Trust(np.ones(len(self.given)), float("nan"))

    def _treated(self, treatment: str) -> Labels:
        return TREATMENTS[treatment](self._known, self.given, self.num_classes)

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 of the dataset's kind
        """Return one item; see the class."""
        target = self._targets[index]
        label = target.clone() if target.ndim else int(target)
        extra = () if self._weights is None else (float(self._weights[index]),)
        if self._data is None:
            return (to_float(self._images[index]), label, *extra)
        item = self._data[index]
        if isinstance(item, Mapping):
            return {**item, self._keys[1]: label, **dict(zip(("weight",), extra, strict=False))}
        return (item[0], label, *extra)

    def over(self, data: Any) -> Self:  # noqa: ANN401 any map-style dataset
        """Return the same labels over another dataset of the same images, augmented ones perhaps.

        Args:
            data: Map-style, in the same order; its own labels are not read.

        Raises:
            ValueError: If its length differs.
        """
        if len(data) != len(self):
            raise ValueError(
                f"these labels are for {len(self)} images, the dataset has {len(data)}"
            )
        other = copy.copy(self)
        other._data = data
        return other

    def sampler(self) -> "LabelSampler":
        """Return a sampler for a loader; see `LabelSampler`."""
        return LabelSampler(self._curriculum, self.given)


class LabelSampler(Sampler[int]):
    """Order of the epochs: all images, or with treatment "select" a part, drawn by score.

    An epoch is a function of the seed, its number and the scores. Loops that do not call
    `set_epoch` get the next epoch each time.

    Attributes:
        epoch: Number of the next epoch.
    """

    def __init__(self, curriculum: CurriculumSampler, given: Ints) -> None:
        self._curriculum, self._given, self.epoch = curriculum, given, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = self._curriculum.order(self.epoch, self._given)
        self.epoch += 1
        return iter(order.tolist())

    def __len__(self) -> int:
        chosen, curriculum = self._curriculum.selection, self._curriculum
        if curriculum.treatment != "select" or curriculum.scores is None:
            return len(self._given)
        share = selected_share(curriculum.rounds, chosen.k, chosen.dk, chosen.mk)
        return max(1, round(share * len(self._given)))


def _shared(values: Tensor) -> Tensor:
    """Return a copy in memory that worker processes share."""
    shared: Tensor = values.clone().share_memory_()  # type: ignore[no-untyped-call]
    return shared
