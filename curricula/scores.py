"""Per-sample scores from predictions; high means "prefer this sample, its label looks right".

The scores know a regression target (eps for a denoiser, the one-hot label for a classifier) and
predictions of it, whatever the model that made them. `forwards` names the predictions that a score
needs, each evaluated at the same probe of a sample:

    given       current weights, the label as given
    null        current weights, no label
    dropped     current weights, the label dropped at random as in training
    old_*       the same with the weights of the previous scoring round
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor

from curricula.running import FORGETTING, MEAN_OF_ROUNDS, Running
from curricula.types import Floats, Ints

Forward = Literal["given", "null", "dropped", "old_given", "old_null", "old_dropped"]
Treatment = Literal["none", "select", "reweight", "null", "relabel", "soft"]
Source = Literal["none", "predictions", "classes", "classifier", "random", "clean"]
Compute = Callable[[Tensor, Mapping[Forward, Tensor]], Tensor]


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean over a sample's entries of the product, (B, ...) x (B, ...) -> (B,)."""
    return (a * b).flatten(1).mean(1)


def dynamics(target: Tensor, prediction: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return `<target - prediction, new - old>` (Zhou et al. 2021; section 5 of the paper).

    With prediction = new this equals `(|r_old|^2 - |r_new|^2 - |new - old|^2) / 2`, r being the
    residuals: the learning speed of the sample.

    Args:
        target: (B, ...) regression target.
        prediction: (B, ...) current prediction given the label.
        new: (B, ...) current prediction whose motion is measured.
        old: (B, ...) the same at the previous scoring round.

    Returns:
        (B,) mean over entries.
    """
    return inner(target - prediction, new - old)


def squared_error(target: Tensor, prediction: Tensor) -> Tensor:
    """Return the mean squared error of each sample, (B, ...) -> (B,)."""
    return inner(target - prediction, target - prediction)


def class_margin(gains: Floats, given: Ints) -> Floats:
    """Return by how much the given label beats every other class.

    Args:
        gains: (N, K), error under the given label less that under each class, or any other measure
            of how much better each class fits.
        given: (N,) int64.

    Returns:
        (N,) float64.
    """
    others = gains.copy()
    others[np.arange(len(given)), given] = -np.inf
    return np.asarray(-others.max(axis=1))


def sieve(gains: Floats, given: Ints) -> Floats:
    """Return by how much the given label beats a label drawn at random (Cheng et al. 2021).

    Args:
        gains: (N, K), error under the given label less that under each class.
        given: (N,) int64; their shares are the prior.

    Returns:
        (N,) float64.
    """
    prior = np.bincount(given, minlength=gains.shape[1]) / len(given)
    return np.asarray(-(gains @ prior))


class Curriculum(NamedTuple):
    """A named way to prefer samples.

    Attributes:
        source: Where scores come from: "none"; "predictions" of the model; its errors under other
            "classes" than the given one; a "classifier" trained beside it; "random" numbers; the
            "clean" labels (of `oracle`; no other curriculum may see them).
        treatment: What is done by default, see `curricula.trust.TREATMENTS`.
        forwards: Predictions that `compute` reads.
        compute: (target, predictions) -> (B,) scores.
        zero: Score of a label that is as likely right as wrong, where the score has such a point.
        reduce: (gains (N, K), given (N,)) -> (N,) scores, for source "classes"; None keeps the
            gains of all classes, for Bayes' rule.
        running: Statistic over all rounds, in place of smoothing.
    """

    source: Source
    treatment: Treatment
    forwards: tuple[Forward, ...] = ()
    compute: Compute | None = None
    zero: float | None = None
    reduce: Callable[[Floats, Ints], Floats] | None = None
    running: Running | None = None

    @property
    def needs_previous(self) -> bool:
        """Whether the score compares with the weights of the previous round."""
        return any(name.startswith("old_") for name in self.forwards)

    @property
    def knows_classes(self) -> bool:
        """Whether the score compares the classes of a sample."""
        return self.source == "classifier" or (self.source == "classes" and self.reduce is None)

    @property
    def once(self) -> bool:
        """Whether the score is final before training starts."""
        return self.source == "classifier"


CURRICULA: dict[str, Curriculum] = {
    "uniform": Curriculum("none", "none"),
    "dynamics-cond": Curriculum(
        "predictions",
        "select",
        ("given", "old_given"),
        lambda target, f: dynamics(target, f["given"], f["given"], f["old_given"]),
    ),
    # The paper's proposed fix: the motion is that of the unconditional prediction.
    "dynamics-uncond": Curriculum(
        "predictions",
        "select",
        ("given", "null", "old_null"),
        lambda target, f: dynamics(target, f["given"], f["null"], f["old_null"]),
    ),
    # What the paper first ran: predictions with the label dropped at random, as in training.
    "dynamics-dropout": Curriculum(
        "predictions",
        "select",
        ("dropped", "old_dropped"),
        lambda target, f: dynamics(target, f["dropped"], f["dropped"], f["old_dropped"]),
    ),
    # The conditional motion less the unconditional one: how fast the label is learnt, beyond the
    # image. A round's signal fades as training goes on, so that the rounds are summed.
    "dynamics-label": Curriculum(
        "predictions",
        "null",
        ("given", "null", "old_given", "old_null"),
        lambda target, f: (
            dynamics(target, f["given"], f["given"], f["old_given"])
            - dynamics(target, f["given"], f["null"], f["old_null"])
        ),
        zero=0.0,
        running=MEAN_OF_ROUNDS,
    ),
    # Whether the unconditional prediction moves towards the conditional one, as it does where the
    # image shows the class of the label. With the opposite sign this is part of dynamics-uncond.
    "dynamics-guidance": Curriculum(
        "predictions",
        "null",
        ("given", "null", "old_null"),
        lambda target, f: inner(f["given"] - f["null"], f["null"] - f["old_null"]),
        zero=0.0,
        running=MEAN_OF_ROUNDS,
    ),
    "small-loss": Curriculum(
        "predictions", "select", ("given",), lambda target, f: -squared_error(target, f["given"])
    ),
    # Pointwise mutual information of image and label, up to a factor and the choice of times
    # (Kong et al. 2023): how much better the image is denoised with its label than without. SPFM
    # (arXiv 2509.19091) found it independently, at the one time .5, with the treatment "null".
    "pmi": Curriculum(
        "predictions",
        "null",
        ("given", "null"),
        lambda target, f: squared_error(target, f["null"]) - squared_error(target, f["given"]),
        zero=0.0,
    ),
    # Diffusion classifier: whether the image is denoised best under its given label.
    "margin": Curriculum("classes", "null"),
    "sieve": Curriculum("classes", "null", zero=0.0, reduce=sieve),
    "aum": Curriculum("classes", "null", zero=0.0, reduce=class_margin, running=MEAN_OF_ROUNDS),
    "forgetting": Curriculum("classes", "null", reduce=class_margin, running=FORGETTING),
    # Two small classifiers, each for the half of the samples that it was not trained on.
    "crossfit": Curriculum("classifier", "relabel"),
    "random": Curriculum("random", "select"),
    "oracle": Curriculum("clean", "null", zero=0.0),
}


def treatment_of(name: str, treatment: Treatment | None) -> Treatment:
    """Resolve a curriculum's treatment.

    Args:
        name: Key of `CURRICULA`.
        treatment: The wish, None for the default.

    Returns:
        The treatment to use.

    Raises:
        ValueError: If there is no such curriculum or treatment, or the curriculum's score cannot
            carry the wish.
    """
    if name not in CURRICULA:
        raise ValueError(f"unknown curriculum {name!r}; choose from {', '.join(sorted(CURRICULA))}")
    curriculum = CURRICULA[name]
    chosen = treatment or curriculum.treatment
    if chosen not in (allowed := get_args(Treatment)):
        raise ValueError(f"unknown treatment {chosen!r}; choose from {', '.join(allowed)}")
    if chosen != "none" and curriculum.source == "none":
        raise ValueError(f"treatment {chosen!r} needs a score, and curriculum {name!r} has none")
    if chosen in ("relabel", "soft") and not curriculum.knows_classes:
        able = [key for key, entry in CURRICULA.items() if entry.knows_classes]
        raise ValueError(
            f"treatment {chosen!r} needs a score that knows the classes ({', '.join(able)}), "
            f"got curriculum {name!r}"
        )
    return chosen
