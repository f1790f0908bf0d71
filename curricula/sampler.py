"""The curriculum of one run: holds smoothed scores, draws epochs, says which labels to trust."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curricula.draw import Floats, Ints, draw_order, selected_share
from curricula.scores import CURRICULA, Treatment, treatment_of


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
    smoothing: float = 0.5
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
        treatment: "none", "select" or "null".
        scores: (N,) float64 smoothed scores, None before the first update.
        rounds: Number of updates so far.
    """

    def __init__(self, name: str, num_samples: int, *, seed: int, selection: Selection) -> None:
        self.curriculum = CURRICULA[name]
        self.treatment = treatment_of(name, selection.treatment)
        self.num_samples = num_samples
        self.seed = seed
        self.selection = selection
        self.scores: Floats | None = None
        self.rounds = 0

    def smoothed(self, scores: Floats) -> Floats:
        """Return what the scores would be after an update; the state stays as it is.

        Args:
            scores: (N,) new scores.

        Returns:
            (N,) float64.

        Raises:
            ValueError: If the shape is wrong or a score is not finite.
        """
        new = np.asarray(scores, dtype=np.float64)
        if new.shape != (self.num_samples,):
            raise ValueError(f"scores must have shape ({self.num_samples},), got {new.shape}")
        if not np.isfinite(new).all():
            worst = int(np.flatnonzero(~np.isfinite(new))[0])
            raise ValueError(f"scores must be finite, got {new[worst]} for sample {worst}")
        if self.scores is None:
            return new.copy()
        keep = self.selection.smoothing
        return keep * self.scores + (1 - keep) * new

    def update(self, scores: Floats) -> Floats:
        """Take in a round of scores, (N,), and return the smoothed ones; see `smoothed`."""
        self.scores = self.smoothed(scores)
        self.rounds += 1
        return self.scores

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

    def label_used(self) -> NDArray[np.bool_]:
        """Return which labels training may use, (N,) bool; all, unless the treatment is "null"."""
        below = self.curriculum.suspect_below
        if self.treatment != "null" or self.scores is None or below is None:
            return np.ones(self.num_samples, dtype=bool)
        return self.scores >= below

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and an array (None before the first update)."""
        return {"rounds": self.rounds, "scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.rounds = int(state["rounds"])
        scores = state["scores"]
        self.scores = None if scores is None else np.asarray(scores, dtype=np.float64)
