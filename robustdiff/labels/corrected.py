"""Corrected labels, and who decided about each: a person first, then the judge."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corruptions import NoisyLabels, transition_of
from corruptions.labels import CORRECTED
from curricula import Trust
from curricula.sparse import of_class
from robustdiff.labels.checked import Checked, gain, taught
from robustdiff.labels.decision import relabelled

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """The labels of N samples after correction.

    Attributes:
        before: The labels that were corrected.
        labels: (N,) int64; of a removed image the given label.
        decided_by: N words of `corruptions.labels.DECIDED_BY`.
        likelihood: (N,) float64, how likely each label is right; NaN where no judge compares the
            classes.
        gain: (N,) float64, how likely a person's decision changes it, see
            `robustdiff.labels.checked.gain`; NaN likewise.
    """

    before: NoisyLabels
    labels: Ints
    decided_by: tuple[str, ...]
    likelihood: NDArray[np.float64]
    gain: NDArray[np.float64]

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names, of bare numbers the numbers."""
        count = len(self.before.nominal)
        return self.before.class_names or tuple(str(number) for number in range(count))

    @property
    def removed(self) -> NDArray[np.bool_]:
        """Which images are to be left out, (N,)."""
        return np.asarray(np.array(self.decided_by) == "removed")

    def record(self, *, truth_known: bool) -> NoisyLabels:
        """Return the record that `--labels` reads.

        Args:
            truth_known: Whether the clean labels of `before` are the truth, or the labels of a
                folder of which nobody knows which are wrong.
        """
        clean, given = self.before.clean, self.labels
        kind = self.before.noise_type if truth_known else CORRECTED
        return replace(
            self.before,
            given=given,
            nominal=transition_of(clean, given, len(self.before.nominal)),
            noise_type=kind,
            convention=f"{self.before.convention}, corrected",
            rate=float((clean != given).mean()),
            seed=None,
            mode="as given",
            decided_by=self.decided_by,
        )


def correct(
    before: NoisyLabels, trust: Trust | None, checked: Checked | None, *, decided_only: bool
) -> Corrected:
    """Correct labels.

    Args:
        before: Labels as given.
        trust: What a judge found who knew of no decision; None where there is no judge.
        checked: What a person said; None where nobody said anything.
        decided_only: Whether only a person's decisions count.

    Returns:
        The labels. Where the judge does not compare the classes, only a person's decisions count.
    """
    given, n = before.given, len(before.given)
    if checked is None:
        checked = Checked(np.full(n, -1), np.zeros(n, dtype=np.bool_))
    labels, likelihood, gains = given, np.full(n, np.nan), np.full(n, np.nan)
    if trust is not None and trust.classes is not None:
        learnt = taught(trust, given, checked)
        classes = learnt.classes
        assert classes is not None
        labels = given if decided_only else relabelled(classes, given)
        gains = gain(learnt, given, decided_only=decided_only)
        likelihood = of_class(classes, checked.fixed(labels)).astype(np.float64)
    fixed = np.where(checked.removed, given, checked.fixed(labels))
    by = np.where(fixed != given, "judge", "given").astype(object)
    by[checked.known], by[checked.removed] = "person", "removed"
    return Corrected(
        before=before,
        labels=fixed,
        decided_by=tuple(by.tolist()),
        likelihood=likelihood,
        gain=np.where(checked.known | checked.removed, 0.0, gains),
    )
