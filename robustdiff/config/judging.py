"""The section of config.json about the judge of labels: its effort, and evidence from elsewhere."""

import dataclasses
from typing import Annotated, Any

from robustdiff.config import names
from robustdiff.config.bounds import Within, check_bounds


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """How labels are judged by images; for curriculum "crossfit" and for `robustdiff audit`.

    Attributes:
        effort: How much time is spent on training classifiers.
        folds: Parts that are each judged by classifiers trained on the others; None lets effort and
            the number of images decide.
        rounds: How often classifiers are trained, from the second time on with cleaned labels; None
            lets effort decide.
        flip: Mirror images while classifiers are trained; None mirrors colour images only.
        probabilities: Path of a file of out-of-sample class probabilities, which take the place of
            trained classifiers; see `robustdiff.labels.evidence`.
        features: The same with features of the images, or the name of a pretrained network.
    """

    effort: names.JudgeEffort = "default"
    folds: Annotated[int, Within(2, 5)] | None = None
    rounds: Annotated[int, Within(1, 4)] | None = None
    flip: bool | None = None
    probabilities: str | None = None
    features: str | None = None

    def __post_init__(self) -> None:
        check_bounds(self, "judge")
        if self.probabilities is not None and self.features is not None:
            raise ValueError(
                "give at most one of judge.probabilities and judge.features, "
                f"got {self.probabilities!r} and {self.features!r}"
            )


_OF_CLASSIFIERS = ("judge.effort", "judge.folds", "judge.rounds", "judge.flip")
_OF_EVIDENCE = ("judge.probabilities", "judge.features")


def in_place_of_evidence(given: dict[str, Any]) -> dict[str, Any]:
    """Return changes to the judge of labels: settings of classifiers ask for classifiers.

    Args:
        given: Flat settings, key -> value; those of other sections stay as they are.

    Returns:
        The same; where they set classifiers, evidence that was named before is not used.

    Raises:
        ValueError: If evidence is given as well, which is judged without these settings.
    """
    settings = [key for key in _OF_CLASSIFIERS if given.get(key) is not None]
    evidence = [key for key in _OF_EVIDENCE if given.get(key) is not None]
    if settings and evidence:
        raise ValueError(
            f"{', '.join(settings)} is for classifiers, and {evidence[0]} judges the labels "
            "without them; give one or the other"
        )
    return dict.fromkeys(_OF_EVIDENCE if settings else ()) | given
