"""The curriculum of one run: holds smoothed scores, draws epochs, says which labels to trust."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from curricula.draw import Floats, Ints, draw_order, selected_share
from curricula.scores import CURRICULA, Treatment, treatment_of
from curricula.trust import TREATMENTS, Labels, Trust

Judge = Callable[[Floats], tuple[Floats, Trust]]


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
    """

    treatment: Treatment | None = None
    smoothing: float = 0.7
    temperature: float = 1.0
    k: float = 1.0
    dk: float = 0.1
    mk: float = 0.3


class CurriculumSampler:
    """Order of training samples under a curriculum, for any model.

    The order of an epoch is a pure function of (seed, epoch, scores): every process draws the same
    list and takes its slice, and a resumed run continues identically.

    Attributes:
        curriculum: The entry of `CURRICULA`.
        treatment: Key of `TREATMENTS`.
        evidence: (N,) float64 smoothed scores, (N, K) for a curriculum that knows the classes, or
            the state of a running statistic; None before the first update.
        trust: What follows from the evidence, None before the first update.
        scores: (N,) float64, high = prefer; None before the first update.
        rounds: Number of updates so far.
    """

    def __init__(self, name: str, num_samples: int, *, seed: int, selection: Selection) -> None:
        self.curriculum = CURRICULA[name]
        self.treatment = treatment_of(name, selection.treatment)
        self.num_samples = num_samples
        self.seed = seed
        self.selection = selection
        self.evidence: Floats | None = None
        self.trust: Trust | None = None
        self.scores: Floats | None = None
        self.rounds = 0

    def updated(self, new: Floats) -> Floats:
        """Return what the evidence would be after an update; the state stays as it is.

        Args:
            new: (N,) scores, or (N, K); NaN where nothing new was measured.

        Returns:
            Evidence, float64.

        Raises:
            ValueError: If the shape is wrong or a score is infinite, or not measured at all.
        """
        new, old = np.asarray(new, dtype=np.float64), self.evidence
        running = self.curriculum.running
        wanted = (self.num_samples, *new.shape[1:]) if old is None else old.shape
        wanted = (self.num_samples,) if running else wanted
        if new.shape != wanted:
            raise ValueError(f"scores must have shape {wanted}, got {new.shape}")
        bad = np.isinf(new) if old is not None else ~np.isfinite(new)
        if bad.any():
            worst = int(np.argwhere(bad)[0, 0])
            raise ValueError(f"scores must be finite, got {new[bad][0]} for sample {worst}")
        if running is not None:
            return running.add(old, new)
        if old is None:
            return new.copy()
        keep = self.selection.smoothing
        return np.where(np.isnan(new), old, keep * old + (1 - keep) * new)

    def judged(self, evidence: Floats, judge: Judge | None = None) -> tuple[Floats, Trust]:
        """Return scores and trust that follow from evidence; the state stays as it is.

        Args:
            evidence: What `updated` returned.
            judge: From (N,) or (N, K) evidence to (N,) scores and trust in the labels. Without one
                the scores are the evidence, and labels above the curriculum's zero are right.
        """
        running = self.curriculum.running
        return (judge or self._by_zero)(evidence if running is None else running.score(evidence))

    def update(self, new: Floats, judge: Judge | None = None) -> Floats:
        """Take in a round of scores, and return the smoothed ones.

        Args:
            new: See `updated`.
            judge: See `judged`.

        Returns:
            (N,) float64.
        """
        self.evidence = self.updated(new)
        self.scores, self.trust = self.judged(self.evidence, judge)
        self.rounds += 1
        return self.scores

    def _by_zero(self, evidence: Floats) -> tuple[Floats, Trust]:
        zero = self.curriculum.zero
        right = np.ones(len(evidence)) if zero is None else (evidence >= zero).astype(np.float64)
        return evidence, Trust(right, float(1 - right.mean()))

    def order(self, epoch: int) -> Ints:
        """Return the indices of one epoch, (M,) int64, distinct."""
        select = self.treatment == "select" and self.scores is not None
        setting = self.selection
        return draw_order(
            self.seed,
            epoch,
            self.num_samples,
            scores=self.scores if select else None,
            share=selected_share(self.rounds, setting.k, setting.dk, setting.mk) if select else 1.0,
            temperature=setting.temperature,
        )

    def labels(self, given: Ints, null: int) -> Labels:
        """Return what training is told in place of the given labels.

        Args:
            given: (N,) int64 in [0, K).
            null: K, the class that stands for no label.
        """
        if self.trust is None:
            return Labels(given)
        return TREATMENTS[self.treatment](self.trust, given, null)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and arrays (None before the first update)."""
        trust = self.trust
        return {
            "rounds": self.rounds,
            "evidence": self.evidence,
            "scores": self.scores,
            "trust": None if trust is None else trust._asdict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; tensors will do for arrays."""

        def array(value: Any) -> Floats | None:  # noqa: ANN401 an array of any library
            return None if value is None else np.asarray(value, dtype=np.float64)

        self.rounds = int(state["rounds"])
        self.evidence, self.scores = array(state["evidence"]), array(state["scores"])
        trust = state["trust"]
        if trust is not None:
            numbers = {name: trust[name] for name in ("noise", "temperature")}
            arrays = {name: array(trust[name]) for name in trust if name not in numbers}
            self.trust = Trust(**arrays, **numbers)  # type: ignore[arg-type]
