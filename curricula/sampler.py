"""The sampler of one run: it smooths scores, draws epochs and applies a treatment to the labels."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from curricula.draw import Order, draw_order, selected_share
from curricula.scores import CURRICULA, Treatment, treatment_of
from curricula.sparse import ClassValues, SparseClasses
from curricula.trust import TREATMENTS, Labels, Trust
from curricula.types import Floats, Indices, Ints

Judge = Callable[[Any], tuple[Floats, Trust]]

# Rows smoothed at a time.
_PIECE = 1 << 20


class Revised(NamedTuple):
    """What a sampler holds after an update; see `CurriculumSampler`."""

    evidence: ClassValues
    scores: Floats
    trust: Trust


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Settings of the draw.

    Attributes:
        treatment: None for the curriculum's default.
        smoothing: Share of the old score kept at an update, in [0, 1).
        temperature: Sharpness of the draw.
        k: Share of the dataset drawn after the first scoring round.
        dk: Relative decrease of the share per round.
        mk: Smallest share.

    Raises:
        ValueError: If a number is out of range: smoothing and dk must be in [0, 1), temperature at
            least 0, and 0 <= mk <= k <= 1.
    """

    treatment: Treatment | None = None
    smoothing: float = 0.7
    temperature: float = 1.0
    k: float = 1.0
    dk: float = 0.1
    mk: float = 0.3

    def __post_init__(self) -> None:
        for name in ("smoothing", "dk"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.temperature < np.inf:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 <= self.mk <= self.k <= 1:
            raise ValueError(f"shares must be 0 <= mk <= k <= 1, got {self.mk} and {self.k}")


class CurriculumSampler:
    """Order of training samples under a curriculum, for any model.

    The order of an epoch is a pure function of (seed, epoch, scores, labels): every process draws
    the same list and takes its slice, and a resumed run continues identically.

    Arrays over samples are float32, so that many samples fit in memory; sums and differences that
    need it are computed in float64.

    Attributes:
        name: Key of `CURRICULA`.
        curriculum: The entry of `CURRICULA`.
        treatment: Key of `TREATMENTS`.
        evidence: (N,) float32 smoothed scores, (N, K) for a curriculum that knows the classes,
            sparse where many, or the state of a running statistic; None before the first update.
        trust: Trust in the labels that follows from the evidence, None before the first update.
        scores: (N,) float32, high = prefer; None before the first update.
        rounds: Number of updates so far.

    Examples:
        >>> sampler = CurriculumSampler("small-loss", 4, seed=0, selection=Selection(k=0.5))
        >>> len(sampler.order(epoch=0))
        4
        >>> scores = sampler.update(np.array([3.0, -9.0, 2.0, -8.0]))
        >>> len(sampler.order(epoch=1))  # the high ones are likelier to be drawn
        2
    """

    def __init__(self, name: str, num_samples: int, *, seed: int, selection: Selection) -> None:
        self.name, self.treatment = name, treatment_of(name, selection.treatment)
        self.curriculum = CURRICULA[name]
        self.num_samples = num_samples
        self.seed = seed
        self.selection = selection
        self.evidence: ClassValues | None = None
        self.trust: Trust | None = None
        self.scores: Floats | None = None
        self.rounds = 0

    def updated(self, new: ClassValues) -> ClassValues:
        """Return what the evidence would be after an update; the state stays as it is.

        Args:
            new: (N,) scores, or (N, K) where the curriculum knows the classes, sparse with the
                classes of the last update; NaN where nothing new was measured.

        Returns:
            Evidence, float32.

        Raises:
            ValueError: If the shape is wrong or a score is infinite, or not measured at all.
        """
        old = self.evidence
        if not isinstance(new, SparseClasses):
            assert not isinstance(old, SparseClasses)
            return self._updated(old, new)
        if old is None:
            values, rest = self._updated(None, new.values), self._updated(None, new.rest)
            return replace(new, values=values, rest=rest)
        assert isinstance(old, SparseClasses)
        values, rest = self._updated(old.values, new.values), self._updated(old.rest, new.rest)
        return replace(old, values=values, rest=rest)

    def _updated(self, old: Floats | None, new: Floats) -> Floats:
        with np.errstate(over="ignore"):  # becomes infinite, and is refused below
            new = np.asarray(new, dtype=np.float32)
        running = self.curriculum.running
        wanted = (self.num_samples, *new.shape[1:]) if old is None else old.shape
        wanted = wanted if self.curriculum.knows_classes else (self.num_samples,)
        if new.shape != wanted:
            raise ValueError(f"scores must have shape {wanted}, got {new.shape}")
        bad = np.isinf(new) if old is not None else ~np.isfinite(new)
        if bad.any():
            worst = int(np.argwhere(bad)[0, 0])
            raise ValueError(f"scores must be finite, got {new[bad][0]} for sample {worst}")
        if running is not None:
            return running.add(old, new)
        return new.copy() if old is None else _smoothed(old, new, self.selection.smoothing)

    def judged(self, evidence: ClassValues, judge: Judge | None = None) -> tuple[Floats, Trust]:
        """Return scores and trust that follow from evidence; the state stays as it is.

        Args:
            evidence: What `updated` returned.
            judge: From (N,) or (N, K) evidence to (N,) scores and trust in the labels; None takes
                the evidence as scores, and labels above the curriculum's zero as right.

        Raises:
            ValueError: If nothing but a judge could say which labels the treatment is for.
        """
        running = self.curriculum.running
        if running is not None:
            assert not isinstance(evidence, SparseClasses)
            evidence = running.score(evidence)
        scores, trust = (judge or self._by_zero)(evidence)
        return _stored(scores), _stored_trust(trust)

    def update(self, new: ClassValues, judge: Judge | None = None) -> Floats:
        """Take in a round of scores, and return the smoothed ones.

        Args:
            new: See `updated`.
            judge: See `judged`.

        Returns:
            (N,) float32.
        """
        return self.take(self.revised(new, judge))

    def revised(self, new: ClassValues, judge: Judge | None = None) -> Revised:
        """Return what an update would hold; the state stays as it is. See `update`."""
        evidence = self.updated(new)
        return Revised(evidence, *self.judged(evidence, judge))

    def take(self, revised: Revised) -> Floats:
        """Take over what `revised` returned, perhaps in another process; return the scores."""
        self.evidence, self.scores, self.trust = revised
        self.rounds += 1
        return revised.scores

    def _by_zero(self, evidence: Any) -> tuple[Floats, Trust]:  # noqa: ANN401 see `Judge`
        zero, treats = self.curriculum.zero, self.treatment not in ("none", "select")
        if self.curriculum.knows_classes or (zero is None and treats):
            raise ValueError(
                f"the scores of curriculum {self.name!r} do not say by themselves which labels are "
                f"right, which treatment {self.treatment!r} needs to know; give `update` a judge"
            )
        if zero is None:
            return evidence, Trust(np.ones(len(evidence)), math.nan)
        right = (evidence >= zero).astype(np.float32)
        return evidence, Trust(right, float(1 - right.mean(dtype=np.float64)))

    def order(self, epoch: int, given: Ints | None = None) -> Indices:
        """Return the indices of one epoch, (M,) distinct.

        Args:
            epoch: Its number.
            given: (N,) int64 labels, so that a draw by score loses no class; see `draw_order`.
        """
        return np.asarray(self.order_by_index(epoch, given))

    def order_by_index(self, epoch: int, given: Ints | None = None) -> Order:
        """Return the same, of which slices can be read.

        Of many samples, and where nothing is drawn by score, they are computed when they are read.
        """
        select = self.treatment == "select" and self.scores is not None
        k, dk, mk = self.selection.k, self.selection.dk, self.selection.mk
        return draw_order(
            self.seed,
            epoch,
            self.num_samples,
            scores=self.scores if select else None,
            share=selected_share(self.rounds, k, dk, mk) if select else 1.0,
            temperature=self.selection.temperature,
            given=given if select else None,
        )

    def labels(self, given: Ints, null: int) -> Labels:
        """Return the labels that training uses in place of the given ones.

        Args:
            given: (N,) int64 in [0, K).
            null: K, the class that stands for no label.
        """
        if self.trust is None:
            return Labels(given)
        return TREATMENTS[self.treatment](self.trust, given, null)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and arrays (None before the first update).

        What is sparse is a dict of its arrays.
        """
        trust = self.trust
        return {
            "rounds": self.rounds,
            "evidence": _plain(self.evidence),
            # Left out where they are the evidence itself.
            "scores": None if self.scores is self.evidence else self.scores,
            "trust": None if trust is None else _plain_trust(trust),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; arrays may be tensors."""
        self.rounds, evidence, scores = int(state["rounds"]), state["evidence"], state["scores"]
        self.evidence = None if evidence is None else _stored_classes(evidence)
        if scores is None:
            assert not isinstance(self.evidence, SparseClasses)
            self.scores = self.evidence
        else:
            self.scores = _stored(scores)
        trust = state["trust"]
        self.trust = None
        if trust is not None:
            self.trust = _sharing(_stored_trust(Trust(**trust)), self.evidence)


def _smoothed(old: Floats, new: Floats, keep: float) -> Floats:
    """Return keep * old + (1 - keep) * new, and old where new is NaN."""
    result = old.copy()
    for start in range(0, len(old), _PIECE):
        was, is_now = old[start : start + _PIECE], new[start : start + _PIECE]
        mixed = keep * was.astype(np.float64) + (1 - keep) * is_now.astype(np.float64)
        np.copyto(result[start : start + _PIECE], mixed, "same_kind", where=~np.isnan(is_now))
    return result


def _stored(values: Any) -> Floats:  # noqa: ANN401 an array of any library
    return np.asarray(values, dtype=np.float32)


def _stored_classes(values: Any) -> ClassValues:  # noqa: ANN401 likewise, or a dict of such
    if isinstance(values, SparseClasses):
        return values
    return SparseClasses.of(values) if isinstance(values, Mapping) else _stored(values)


def _plain(values: ClassValues | None) -> Floats | dict[str, Any] | None:
    return values.plain() if isinstance(values, SparseClasses) else values


def _plain_trust(trust: Trust) -> dict[str, Any]:
    parts = {name: _plain(getattr(trust, name)) for name in ("classes", "image_classes")}
    return trust._asdict() | parts


def _sharing(trust: Trust, evidence: Any) -> Trust:  # noqa: ANN401 the sampler's, or None
    """Return sparse trust with the class numbers of the evidence, where they are equal."""

    def shared(values: ClassValues | None) -> ClassValues | None:
        if not (isinstance(values, SparseClasses) and isinstance(evidence, SparseClasses)):
            return values
        equal = np.array_equal(values.classes, evidence.classes)
        return replace(values, classes=evidence.classes) if equal else values

    parts = shared(trust.classes), shared(trust.image_classes)
    return trust._replace(classes=parts[0], image_classes=parts[1])


def _stored_trust(trust: Trust) -> Trust:
    """Return trust as it is held: arrays over samples in float32."""
    classes, image_classes, transition = trust.classes, trust.image_classes, trust.transition
    return trust._replace(
        right=_stored(trust.right),
        classes=None if classes is None else _stored_classes(classes),
        image_classes=None if image_classes is None else _stored_classes(image_classes),
        transition=None if transition is None else np.asarray(transition, dtype=np.float64),
    )
