"""Labels scored by pmi with any denoiser while it is trained, as a dataset for any trainer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from corruptions.tables import first_few
from curricula import CURRICULA, TREATMENTS, CurriculumSampler, Selection
from robustdiff.config.layers import choose
from robustdiff.data.arrays import LabelledImages
from robustdiff.diffusion.model import Model, Network
from robustdiff.diffusion.process import PREDICTIONS, for_labels
from robustdiff.diffusion.schedules import SCHEDULES, Schedule
from robustdiff.labels.judge import judge
from robustdiff.labels.scoring import Probing, prediction_scores
from robustdiff.rng import check_seed
from robustdiff.trainers.labels import TrustedLabels, read_source

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t (B, C, H, W) float32, t (B,), label (B,) int64 in [0, K]) -> noise (B, C, H, W); label K
means no label."""

_PMI = CURRICULA["pmi"]
_COSINE = SCHEDULES["cosine"]


class ScoredLabels(TrustedLabels):
    """Images with labels that the denoiser in training scores, round by round.

    The score is pmi: how much better the image is denoised with its label than without. Before the
    first round every label is used as given. The denoiser must be trained with labels dropped at
    random, K in their place.

    Args:
        images: See `robustdiff.RobustLabels`, like `labels` and `keys`.
        labels: (N,) whole numbers, some of them wrong.
        num_classes: K, the label for no label.
        alphas_cumprod: (T,) falling products of 1 - beta, such as `DDPMScheduler.alphas_cumprod`:
            `x_t = sqrt(a[t]) x_0 + sqrt(1 - a[t]) eps`, t int64 in [0, T). None for the cosine
            schedule of `robustdiff.diffusion.schedules`, t float64 in [0, 1].
        selection: Treatment and smoothing, and the draw of treatment "select"; by default, "null".
        seed: Seed of the noisy images and of the draws.
        probes: Noisy images of each image in a round, at least 1, at times spread over the middle
            of the cosine schedule; of other schedules the nearest noise levels are taken.
        batch_size: Noisy images times labels in one call of the denoiser, at least 2.

    Attributes:
        rounds: Number of scoring rounds so far.

    Raises:
        ValueError: If images, labels, seed or schedule cannot be used, or the score cannot carry
            the treatment.
    """

    def __init__(  # noqa: PLR0913 two ways to hand over images, and how they are scored
        self,
        images: Any,  # noqa: ANN401
        labels: Any = None,  # noqa: ANN401
        *,
        num_classes: int,
        alphas_cumprod: Any = None,  # noqa: ANN401 an array of any library
        selection: Selection | None = None,
        seed: int = 0,
        probes: int = 4,
        batch_size: int = 512,
        keys: tuple[str, str] = ("image", "label"),
    ) -> None:
        if probes < 1 or batch_size < 2:
            raise ValueError(
                f"probes must be at least 1 and batch_size at least 2, got {probes}, {batch_size}"
            )
        check_seed(seed)
        self._probing = Probing(seed=seed, p_uncond=0.0, probes=probes, batch_size=batch_size)
        selection = selection or Selection()
        choose(selection.treatment or _PMI.treatment, TREATMENTS, "treatment")
        self._levels = None if alphas_cumprod is None else _levels(alphas_cumprod)
        source = read_source(images, labels, num_classes, keys)
        curriculum = CurriculumSampler("pmi", len(source.given), seed=seed, selection=selection)
        super().__init__(source, curriculum)

    @property
    def rounds(self) -> int:
        """Number of scoring rounds so far."""
        return self._curriculum.rounds

    def score(self, predict: Predict, device: torch.device | str = "cpu") -> None:
        """Score all labels, and let the items hold what follows.

        Args:
            predict: The denoiser as it is, in evaluation mode; called without gradients.
            device: Where it computes.

        Raises:
            ValueError: If it predicts something of another shape, or numbers that are not finite.
        """
        schedule, network = _bound(predict, self._levels)
        model = Model(network, schedule, PREDICTIONS["eps"], self.num_classes)
        data = LabelledImages(self._images, torch.from_numpy(self.given)).to(torch.device(device))
        rows = torch.arange(len(data))
        found = prediction_scores(_PMI, self._probing, data, model, None, rows, self.rounds)
        assert found is not None
        # Of a run's scores NaN says "not measured in this round"; here all are measured.
        bad = ~np.isfinite(found)
        if bad.any():
            image = int(np.argwhere(bad)[0, 0])
            raise ValueError(f"scores must be finite, got {found[bad][0]} for image {image}")
        self._curriculum.update(found, lambda scores: judge(_PMI, scores, self.given))
        self._renew()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values, for a checkpoint."""
        return _mapped(
            self._curriculum.state_dict(),
            lambda value: torch.from_numpy(value) if isinstance(value, np.ndarray) else value,
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: If it is no such state, or that of another number of labels.
        """
        if "evidence" not in state:
            raise ValueError(f"the state must be that of scored labels, got {first_few(state)}")
        evidence, count = state["evidence"], len(self.given)
        if evidence is not None and len(evidence) != count:
            raise ValueError(f"the state must be of {count} labels, got {len(evidence)}")
        self._curriculum.load_state_dict(
            _mapped(state, lambda value: value.numpy() if isinstance(value, Tensor) else value)
        )
        self._renew()


def round_due(epochs: int, warmup: int, every: int) -> bool:
    """Return whether a scoring round follows the epochs so far.

    Args:
        epochs: How many are done.
        warmup: After how many the first round comes, at least 1.
        every: How many lie between two rounds, at least 1.

    Raises:
        ValueError: If warmup or every is below 1.
    """
    if min(warmup, every) < 1:
        raise ValueError(f"warmup and every must be at least 1, got {warmup} and {every}")
    return epochs >= warmup and (epochs - warmup) % every == 0


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Keep a network in evaluation mode for a while; its mode returns afterwards."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _levels(alphas_cumprod: Any) -> Tensor:  # noqa: ANN401
    must = "alphas_cumprod must be (T,) numbers in (0, 1) that fall with t, got"
    try:
        levels = torch.as_tensor(alphas_cumprod).double().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{must} {alphas_cumprod!r:.60}") from error
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"{must} shape {tuple(levels.shape)}")
    inside = (levels > 0) & (levels < 1)
    if not inside.all():
        place = int((~inside).nonzero()[0, 0])
        raise ValueError(f"{must} {levels[place]:g} at {place}")
    if (levels.diff() >= 0).any():
        place = int((levels.diff() >= 0).nonzero()[0, 0])
        raise ValueError(f"{must} {levels[place]:g} before {levels[place + 1]:g} at {place}")
    return levels


def _bound(predict: Predict, levels: Tensor | None) -> tuple[Schedule, Network]:
    """Return the noise schedule of a denoiser, and the denoiser as a network of times in [0, 1]."""

    def step(t: Tensor) -> Tensor:
        assert levels is not None
        wanted = _COSINE(t.double())[0].square()
        return (levels.to(t.device) - wanted[:, None]).abs().argmin(dim=1)

    def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
        if levels is None:
            return _COSINE(t)
        kept = levels.to(t.device)[step(t)]
        return kept.sqrt(), (1 - kept).sqrt()

    def network(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        x_t, t = for_labels(x_t, len(labels)), for_labels(t, len(labels))
        eps: object = predict(x_t, t if levels is None else step(t), labels)
        if not isinstance(eps, Tensor) or eps.shape != x_t.shape:
            shown = tuple(eps.shape) if isinstance(eps, Tensor) else type(eps).__name__
            raise ValueError(
                f"predict must return the noise of shape {tuple(x_t.shape)}, got {shown}"
            )
        return eps.float()

    return schedule, network


def _mapped(state: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        name: _mapped(value, change) if isinstance(value, dict) else change(value)
        for name, value in state.items()
    }
