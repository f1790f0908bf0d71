"""Class probabilities of any origin, turned into trust in the labels."""

from curricula import Trust, spared
from curricula.sparse import ClassValues
from curricula.types import Floats, Ints
from robustdiff.labels.decision import Decision, decide
from robustdiff.labels.judge import margins


def by_decision(found: Decision, given: Ints) -> tuple[Trust, str]:
    """Return trust in the labels by a decision about them, and what was found, in words.

    Args:
        found: The decision.
        given: (N,) int64 labels as given.
    """
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


def by_probabilities(probabilities: ClassValues, given: Ints) -> tuple[Trust, str]:
    """Return trust in the labels by `decide`; see `by_decision`.

    Args:
        probabilities: (N, K), by a classifier that was not trained on the label that it judges.
        given: (N,) int64 labels as given.
    """
    return by_decision(decide(probabilities, given), given)


def label_scores(trust: Trust, given: Ints) -> Floats:
    """Return how well each given label fits its image, (N,), high = trusted.

    Args:
        trust: What `by_decision` returned.
        given: (N,) int64 labels as given.
    """
    # Where all labels are right, they still differ in how well they fit.
    classes = trust.classes if trust.noise > 0 else trust.image_classes
    assert classes is not None
    return margins(classes, given)


def _in_words(found: Decision) -> str:
    if found.kind == "no evidence":
        return "they predict the given labels no better than chance, or hardly better"
    if found.kind == "no noise":
        return f"nothing speaks for wrong labels (at most {found.high:.1%})"
    between = f"between {found.low:.1%} and {found.high:.1%} of them"
    if found.kind == "few":
        return f"some labels are wrong, {between}"
    where = "by class" if found.kind == "by class" else "more often on images that are hard"
    return f"labels are wrong {where}, {between}"
