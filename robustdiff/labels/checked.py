"""Labels that a person has checked: what they teach about the others, and which to check next.

With p(class | image, label) and p(class | image) by a judge that knows of no decision,

    log p(class | image, label, decisions) = a log p(class | image, label) + b log p(class | image)
                                             + bias[class] + (c + trust[label]) [class = label]

up to a constant. The factors are those under which the checked classes are likeliest, under narrow
priors about a = 1 and 0. Which labels a person has checked may depend on images and labels, since
these are what the probabilities are conditioned on; but no model is quite right, and those that are
checked first are the doubtful ones, so the priors let few decisions change little elsewhere.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from curricula import Trust
from curricula.sparse import ClassValues, SparseClasses, empty_like, holding, of_class, pieces
from robustdiff.labels.decision import relabelled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Standard deviations of the priors of a, b, c, and of bias and trust, about their means. Chosen on
# digits, MNIST and 2,000 images of CIFAR-10 under generated and human mistakes, for few wrong
# labels after 300 decisions without harm on any: ten times wider ones did harm on MNIST.
_FACTORS, _OF_CLASSES = 0.1, 0.05
# Least probability that counts, and the largest gain where the judge is sure of all labels.
_FLOOR, _LEAST_GAIN = 1e-4, 1e-3


class Checked(NamedTuple):
    """What a person said about N images.

    Attributes:
        classes: (N,) int64, the class that a person saw; -1 where nobody said.
        removed: (N,) bool, images that are to be left out.
    """

    classes: Ints
    removed: NDArray[np.bool_]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whose class a person said, (N,)."""
        return np.asarray((self.classes >= 0) & ~self.removed)

    def at(self, rows: Ints) -> "Checked":
        """Return what was said about some of the images."""
        return Checked(self.classes[rows], self.removed[rows])

    def fixed(self, given: Ints) -> Ints:
        """Return labels, (N,) int64: the checked class where there is one, else the given one."""
        return np.where(self.known, self.classes, given)


def taught(trust: Trust, given: Ints, checked: Checked) -> Trust:
    """Return trust in labels by a judge and by what a person said; see `learn`.

    Args:
        trust: The judge's, who compares the classes.
        given: (N,) int64.
        checked: What a person said.
    """
    assert trust.classes is not None
    image = trust.classes if trust.image_classes is None else trust.image_classes
    classes = learn(trust.classes, image, given, checked)
    right = of_class(classes, given).astype(np.float64)
    kept = ~checked.removed
    return trust._replace(right=right, classes=classes, noise=float(1 - right[kept].mean()))


class _Factors(NamedTuple):
    """What is fitted; see above."""

    a: float
    b: float
    bias: Floats
    trust: Floats

    def logits(self, by_both: Floats, by_image: Floats, given: Ints) -> Floats:
        """Return log p up to a constant per row, (N, K), of logarithms of both."""
        logits = self.a * by_both + self.b * by_image + self.bias
        logits[np.arange(len(given)), given] += self.trust[given]
        return logits


def learn(
    classes: ClassValues,
    image_classes: ClassValues,
    given: Ints,
    checked: Checked,
) -> ClassValues:
    """Return p(class | image, label, decisions).

    Args:
        classes: (N, K) p(class | image, label), rows sum to 1.
        image_classes: (N, K) p(class | image), rows sum to 1.
        given: (N,) int64 labels in [0, K).
        checked: What a person said.

    Returns:
        (N, K) float32, sparse where `classes` is, rows sum to 1; 1 at the class that a person saw.
        Without any: `classes`.
    """
    known = np.flatnonzero(checked.known)
    if not len(known):
        return classes if isinstance(classes, SparseClasses) else classes.astype(np.float32)
    factors = _fit(
        _logs(classes[known]), _logs(image_classes[known]), given[known], checked.classes[known]
    )
    if isinstance(classes, SparseClasses):
        classes = holding(classes, known, checked.classes[known])
    found = empty_like(classes)
    for where in pieces(*classes.shape):
        both, image = _logs(classes[where]), _logs(image_classes[where])
        found[where] = softmax(factors.logits(both, image, given[where]), axis=1)
    found[known] = np.eye(classes.shape[1], dtype=np.float32)[checked.classes[known]]
    return found


def _fit(by_both: Floats, by_image: Floats, given: Ints, seen: Ints) -> _Factors:
    """Maximise the likelihood of the classes that a person saw, (M,), under the priors."""
    k = by_both.shape[1]
    own, is_seen = np.eye(k)[given], np.eye(k)[seen]
    precision = np.r_[[_FACTORS**-2] * 3, [_OF_CLASSES**-2] * (2 * k)]
    start = np.r_[1.0, np.zeros(2 + 2 * k)]

    def factors(p: Floats) -> _Factors:
        return _Factors(p[0], p[1], p[3 : 3 + k], p[2] + p[3 + k :])

    def loss(p: Floats) -> tuple[float, Floats]:
        found = log_softmax(factors(p).logits(by_both, by_image, given), axis=1)
        off = np.exp(found) - is_seen
        of_label = (off * own).sum(axis=1)
        slope = [
            [(off * by_both).sum(), (off * by_image).sum(), of_label.sum()],
            off.sum(axis=0),
            own.T @ of_label,
        ]
        prior = precision * (p - start)
        value = -found[np.arange(len(seen)), seen].sum() + (prior * (p - start)).sum() / 2
        return float(value), np.concatenate(slope) + prior

    return factors(minimize(loss, start, jac=True, method="L-BFGS-B").x)


def _logs(probabilities: NDArray[np.floating]) -> Floats:
    return np.log(np.maximum(probabilities.astype(np.float64), _FLOOR))


def gain(trust: Trust, given: Ints, *, decided_only: bool = False) -> Floats:
    """Return how likely a decision about each label changes what leaves, (N,) in [0, 1].

    That is the number of wrong labels that it is expected to remove: a label that the judge is sure
    to correct, rightly, gains nothing from being looked at. Where the judge is sure of all labels,
    those come first that fit their images least.

    Args:
        trust: A judge's, who compares the classes, `taught` or not.
        given: (N,) int64.
        decided_only: Whether labels that nobody decides about leave as given, not as the judge
            corrects them.
    """
    assert trust.classes is not None
    labels = given if decided_only else relabelled(trust.classes, given)
    found = 1 - of_class(trust.classes, labels).astype(np.float64)
    if found.any() or trust.image_classes is None:
        return np.asarray(found)
    return np.asarray(_LEAST_GAIN * (1 - of_class(trust.image_classes, labels).astype(np.float64)))


def next_to_check(gains: Floats, decided: NDArray[np.bool_]) -> Iterator[int]:
    """Yield the numbers of labels that nobody decided about, that of the greatest gain first."""
    order = np.argsort(-gains, kind="stable")
    return iter(order[~decided[order]].tolist())
