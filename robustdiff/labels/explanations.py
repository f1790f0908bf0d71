"""How given labels may have come about, by probabilities that can be read in many ways.

With p(class | image) = softmax(scale z + bias), z a logarithm of probabilities, a label has

    p(given | class, image) = (1 - guessed) T[class, given] + guessed h(given | image),

T the noise of classes and h the calibrated forecast of the given label: whoever errs on a hard
image names a class that it resembles. guessed = 0 is class-dependent noise, T = 1 none. Beside it
stands the model of `robustdiff.labels.mistakes`.

The given labels cannot tell sharp classes under guessed labels from blurred classes under right
ones: their likelihood is nearly the same. A convention decides: a picture shows one thing, whatever
its labellers said. So where the noise has structure and the classifier knows most images, the
sharpest classes that explain the labels as well are taken.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from curricula.sparse import ClassValues, SparseClasses, dense, held, of_class, some_rows
from robustdiff.labels.label_fit import (
    Family,
    LabelModel,
    deconvolve,
    fit_labels,
    sparse_deconvolve,
)
from robustdiff.labels.mistakes import MistakeModel, fit_mistakes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Nats an image by which explanations count as alike; the one with the sharpest classes is taken.
_ALIKE = 0.0025
# Gain in likelihood of any matrix over symmetric noise, as a share of that of the latter over none.
_STRUCTURE = 0.3
# Mean probability of the likeliest class from which on classes are sharpened; the steps in the
# logarithm of the scale; nats an image that it may cost; the most labels that may be guessed.
_KNOWN, _STEPS, _COST, _GUESSED = 0.8, (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9), 0.001, 1 / 3
# Where no noise of classes gains so many nats an image, and leaves classes less sharp than this,
# the probabilities have learnt the mistakes: then guesses alone explain them.
_SOLE, _CLEAR = 0.002, 0.85
# Nats an image by which noise of classes and noise that depends on the image count as alike; the
# steps and costs of sharpening the latter; the most classes that it is fitted to. All these were
# chosen on generated noise, on digits, MNIST and features of CIFAR-10, and while looking at
# CIFAR-10N's worst labels.
_FAMILIES_ALIKE, _IMAGE_STEPS, _IMAGE_COST = 0.006, (0.15, 0.3, 0.45, 0.6), 0.001
_IMAGE_CLASSES = 50
# Resemblance from which on wrong labels name what the image resembles.
_RESEMBLING = 0.15
# Least probability that counts, and least divisor.
_FLOOR, _LEAST = 1e-6, 1e-12


class Labelled(NamedTuple):
    """Images and labels that are explained.

    Attributes:
        probabilities: (N, K), as a classifier says.
        hardness: (N,), see `robustdiff.labels.mistakes`.
        given: (N,) int64 labels.
        unnoisy: The model without noise, fitted to these or to more of them.
    """

    probabilities: ClassValues
    hardness: Floats
    given: Ints
    unnoisy: LabelModel

    def at(self, rows: Ints | slice) -> "Labelled":
        """Return some of them."""
        return self._replace(
            probabilities=readable(self.probabilities, rows),
            hardness=self.hardness[rows],
            given=self.given[rows],
        )

    def forecast(self) -> Floats:
        """Return h(given label), (N,)."""
        classes = self.unnoisy.image_classes(logs(self.probabilities))
        return np.asarray(of_class(classes, self.given), dtype=np.float64)


class Explanation(NamedTuple):
    """How the probabilities are read, and what explains the labels.

    Attributes:
        matrix: (K, K) noise that they have learnt and that is undone, or None.
        model: The model.
        gain: Nats an image by which labels are likelier than under the probabilities alone.
        structured: Whether the noise is more than symmetric.
        sharpness: Mean probability of the likeliest class.
    """

    matrix: Floats | None
    model: LabelModel | MistakeModel
    gain: float
    structured: bool
    sharpness: float

    @property
    def by_image(self) -> bool:
        """Whether wrong labels depend on the image."""
        if isinstance(self.model, MistakeModel):
            return self.model.resemblance > _RESEMBLING
        return self.model.guessed > 0

    def posterior(self, some: Labelled) -> tuple[ClassValues, ClassValues]:
        """Return p(class | image) and p(class | image, label), both (N, K)."""
        z = logs(some.probabilities, self.matrix)
        if isinstance(self.model, MistakeModel):
            known = _dense(z)
            found = self.model.posterior(known, some.hardness, some.given)
            return self.model.image_classes(known), found
        return self.model.image_classes(z), self.model.posterior(z, some.given, some.forecast())

    def share(self, some: Labelled) -> float:
        """Return the share of wrong labels."""
        _, found = self.posterior(some)
        return float(1 - of_class(found, some.given).mean())


def explanations(
    some: Labelled, matrix: Floats, *, by_image: bool | None = None
) -> tuple[list[Explanation], list[Explanation]]:
    """Return explanations of all kinds, and the likeliest ones, of which the last decides.

    Among the former noise that depends on the image comes with classes that are not sharpened.

    Args:
        some: What is explained.
        matrix: (K, K), noise that the classifier may have learnt.
        by_image: Whether noise is known to depend on the image; None where that is open.
    """
    plain, freed = (_by_class(some, undone) for undone in (None, matrix))
    best = max(plain.gain, freed.gain)
    alike = [found for found in (plain, freed) if found.gain > best - _ALIKE]
    sharpened = _sharpened(some, max(alike, key=lambda found: found.sharpness))
    everything, likeliest = [plain, freed, *sharpened], [*alike, *sharpened]
    if some.probabilities.shape[1] <= _IMAGE_CLASSES:
        first, sharp = _by_image(some, [plain.matrix, freed.matrix])
        everything.append(first)
        likeliest = _with_images(likeliest, sharp, by_image)
    return everything, likeliest


def readable(probabilities: ClassValues, rows: Ints | slice) -> ClassValues:
    """Return some rows; of few classes dense ones, which noise that depends on the image needs."""
    if probabilities.shape[1] <= _IMAGE_CLASSES:
        return probabilities[rows]
    return some_rows(probabilities, rows)


def logs(probabilities: ClassValues, matrix: Floats | None = None) -> ClassValues:
    """Return log-probabilities less their mean, (N, K), of the classes that give these under T."""
    if isinstance(probabilities, SparseClasses):
        return _sparse_logs(probabilities, matrix)
    shares = probabilities.astype(np.float64)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), _LEAST)
    if matrix is not None:
        shares = deconvolve(shares, matrix)
    found = np.log(np.maximum(shares, _FLOOR))
    return np.asarray(found - found.mean(axis=1, keepdims=True))


def _dense(z: ClassValues) -> Floats:
    return np.asarray(dense(z), dtype=np.float64)


def _sparse_logs(few: SparseClasses, matrix: Floats | None) -> SparseClasses:
    values, rest = few.values.astype(np.float64), few.rest.astype(np.float64)
    total = np.maximum(values.sum(axis=1) + few.left * rest, _LEAST)
    few = replace(few, values=values / total[:, None], rest=rest / total)
    if matrix is not None:
        few = sparse_deconvolve(few, matrix)
    values, rest = (np.log(np.maximum(part, _FLOOR)) for part in (few.values, few.rest))
    mean = (values.sum(axis=1) + few.left * rest) / few.count
    return replace(few, values=values - mean[:, None], rest=rest - mean)


def _by_class(some: Labelled, matrix: Floats | None) -> Explanation:
    """Fit symmetric noise and any matrix.

    Any matrix must gain more nats than it has parameters (Akaike 1974), and a fair share of what
    symmetric noise gains, since no softmax is quite right.
    """
    (n, k), y, none = some.probabilities.shape, some.given, some.unnoisy
    x = logs(some.probabilities, matrix)
    alone = none if matrix is None else fit_labels(x, y, np.zeros(k + 1), Family("none"))
    # The second start finds much noise under weak evidence.
    symmetric = max(
        (
            fit_labels(x, y, np.r_[alone.scale + more, alone.bias, rate], Family("symmetric"))
            for more, rate in ((0.3, -2.0), (1.2, 0.0))
        ),
        key=lambda model: model.likelihood,
    )
    gain, model, structured = symmetric.likelihood - none.likelihood, symmetric, False
    wanted = max(k * (k - 1) - 1, _STRUCTURE * gain)
    if -symmetric.likelihood >= wanted:  # else no matrix can gain so much
        start = np.log(0.9 * symmetric.transition + 0.1 / k).ravel()
        free = fit_labels(x, y, np.r_[symmetric.scale, symmetric.bias, start], Family("any"))
        structured = free.likelihood - symmetric.likelihood >= wanted
        model = free if structured else symmetric
    gain = (model.likelihood - none.likelihood) / n
    return Explanation(matrix, model, gain, structured, _sharpness(model, x))


def _sharpened(some: Labelled, found: Explanation) -> list[Explanation]:
    """Return one, sharpened where the classifier knows most images, after the next likeliest.

    Classes are sharpened as far as the labels stay as likely and few of them are guessed.
    """
    model, y, guessed = found.model, some.given, -2.0
    x, forecast = logs(some.probabilities, found.matrix), some.forecast()
    steps: tuple[float, ...] = _STEPS
    sole = found.gain < _SOLE and found.sharpness < _CLEAR
    if sole:
        steps = _STEPS[-1:]
    elif not found.structured:
        return [found]
    known = sole or found.sharpness >= _KNOWN
    last, best = found, -np.inf
    for step in steps:
        assert isinstance(model, LabelModel)
        start = np.r_[model.bias, np.log(model.transition + _FLOOR).ravel(), guessed]
        model = fit_labels(x, y, start, Family("any", found.model.scale + step), forecast)
        best, guessed = max(best, model.likelihood), float(logit(model.guessed / 2 + _FLOOR))
        tried = found._replace(
            model=model,
            gain=(model.likelihood - some.unnoisy.likelihood) / len(y),
            sharpness=_sharpness(model, x),
        )
        costly = model.likelihood < best - _COST * len(y) or model.guessed > _GUESSED
        if costly and not sole:
            return [tried, last] if known else [last, found]
        last = tried
    return [last] if known else [last, found]


def _by_image(some: Labelled, matrices: list[Floats | None]) -> tuple[Explanation, Explanation]:
    """Fit noise that depends on the image; return it before and after sharpening.

    Classes are sharpened while labels stay as likely.
    """
    (n, k), y, u = some.probabilities.shape, some.given, some.hardness
    before = MistakeModel.before(k).parameters()
    starts = [
        (matrix, fit_mistakes(_dense(logs(some.probabilities, matrix)), u, y, before))
        for matrix in matrices
    ]
    matrix, first = max(starts, key=lambda start: start[1].likelihood)
    z, model = _dense(logs(some.probabilities, matrix)), first
    for step in _IMAGE_STEPS:
        tried = fit_mistakes(z, u, y, model.parameters(), scale=first.scale + step)
        if tried.likelihood < first.likelihood - _IMAGE_COST * n:
            break
        model = tried
    # Less the parameters that noise of classes has not: they fit few labels by chance
    # (Akaike 1974).
    least = some.unnoisy.likelihood + k + 2

    def explanation(model: MistakeModel) -> Explanation:
        gain, sharpness = (model.likelihood - least) / n, _sharpness(model, z)
        return Explanation(matrix, model, gain, structured=True, sharpness=sharpness)

    return explanation(first), explanation(model)


def _with_images(
    likeliest: list[Explanation], found: Explanation, known: bool | None
) -> list[Explanation]:
    """Return the likeliest with that of noise that depends on the image, where this shows.

    It comes last if that is known; or if it is likelier, or sharper and as likely, where it is not.
    The last one decides.
    """
    if known:
        return [*likeliest, found]
    if not found.by_image:
        return likeliest
    last = likeliest[-1]
    if known is not None:
        return [found, *likeliest]
    if found.gain > last.gain + _FAMILIES_ALIKE:
        return [found]
    if found.sharpness > max(last.sharpness, _KNOWN) and found.gain > last.gain - _ALIKE:
        return [*likeliest, found]
    return [found, *likeliest]


def _sharpness(model: LabelModel | MistakeModel, z: ClassValues) -> float:
    """Return the mean probability of the likeliest class."""
    if isinstance(model, MistakeModel):
        return float(model.image_classes(_dense(z)).max(axis=1).mean())
    return float(held(model.image_classes(z)).max(axis=1).mean())
