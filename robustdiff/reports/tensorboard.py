"""What a run shows in TensorBoard: the loss, the samples, and the scores of every image.

Where noise was injected, wrong labels are known and shown apart from right ones. Training reads
none of this.
"""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from robustdiff.reports.pictures import image_grid
from robustdiff.runs.many import sampled
from robustdiff.runs.scores import label_score

_SHOWN = 40
_BINS = np.linspace(0, 1, 51)
_QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9}
_LAYOUT = {
    "Do the scores separate wrong labels?": {
        "detection (AUROC, average precision)": [
            "Multiline",
            ["scores/auroc", "scores/average_precision"],
        ],
        "median score, right against wrong labels": [
            "Multiline",
            ["scores_right/q50", "scores_wrong/q50"],
        ],
        "right labels, median and 10 to 90 %": [
            "Margin",
            ["scores_right/q50", "scores_right/q10", "scores_right/q90"],
        ],
        "wrong labels, median and 10 to 90 %": [
            "Margin",
            ["scores_wrong/q50", "scores_wrong/q10", "scores_wrong/q90"],
        ],
    }
}


def _wait_for_a_later_name(folder: Path) -> None:
    """Wait until a new event file is named after those that are there.

    Names begin with the second, and TensorBoard reads the files in their order: what a resumed
    process drops must come before it.
    """
    begun = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    while f"{int(time.time()):010d}" in begun:
        time.sleep(0.02)


class TensorBoard:
    """Writer of one run's event files.

    Args:
        folder: The run's tb folder.
        dropped_from: Step from which on events of a killed process are dropped; 0 begins anew.
    """

    def __init__(self, folder: Path, *, dropped_from: int) -> None:
        is_new = dropped_from == 0 or not any(folder.glob("events.out.tfevents.*"))
        _wait_for_a_later_name(folder)
        self.writer = SummaryWriter(str(folder), purge_step=dropped_from)
        if is_new:
            self.writer.add_custom_scalars(_LAYOUT)

    def training(self, step: int, loss: float, images_per_second: float) -> None:
        """Log the mean loss since the last call and the throughput."""
        self.writer.add_scalar("train/loss", loss, step)
        self.writer.add_scalar("train/images_per_second", images_per_second, step)

    def samples(self, step: int, grid: Tensor) -> None:
        """Log a (3, H, W) uint8 grid of generated images, one column per class."""
        self.writer.add_image("samples/one_column_per_class", grid, step)

    def scores(
        self,
        step: int,
        scores: NDArray[np.floating],
        flipped: NDArray[np.bool_],
        detected: dict[str, float] | None,
    ) -> None:
        """Log a scoring round.

        Args:
            step: Training step.
            scores: (N,) smoothed scores, high = trusted.
            flipped: (N,) which labels are known to be wrong.
            detected: Detection metrics; None where no label or every label is wrong.
        """
        rows = sampled(len(scores))
        scores, flipped = scores[rows], flipped[rows]
        ranks = label_score(scores)
        self.writer.add_histogram("scores/all", scores, step)
        if detected is None:
            return
        for name, value in detected.items():
            self.writer.add_scalar(f"scores/{name}", value, step)
        self._part("right", step, scores[~flipped], ranks[~flipped])
        self._part("wrong", step, scores[flipped], ranks[flipped])
        self.writer.add_pr_curve("wrong_labels", flipped, 1 - ranks, step)

    def estimate(self, step: int, estimated: float, true: float | None) -> None:
        """Log the estimated share of wrong labels, beside the true one where that is known."""
        self.writer.add_scalar("noise/estimated", estimated, step)
        if true is not None:
            self.writer.add_scalar("noise/injected", true, step)

    def _part(
        self, name: str, step: int, scores: NDArray[np.floating], ranks: NDArray[np.float64]
    ) -> None:
        for quantile, share in _QUANTILES.items():
            value = float(np.quantile(scores, share))
            self.writer.add_scalar(f"scores_{name}/{quantile}", value, step)
        self.writer.add_histogram(f"label_score/{name}", ranks, step, bins=_BINS)

    def extremes(
        self,
        step: int,
        images: Tensor,
        scores: NDArray[np.floating],
        given: NDArray[np.int64],
        true: NDArray[np.int64],
    ) -> None:
        """Log grids of the least and the most trusted images with their given labels.

        Args:
            step: Training step.
            images: (N, C, H, W) uint8.
            scores: (N,) high = trusted.
            given: (N,) labels as given.
            true: (N,) labels before the noise; a wrong one reads "given, is true".
        """
        rows = sampled(len(scores))
        order = rows[np.argsort(scores[rows], kind="stable")]
        for name, which in (("least", order[:_SHOWN]), ("most", order[::-1][:_SHOWN])):
            captions = [_caption(given[i], true[i]) for i in which]
            chosen = images[torch.from_numpy(which.copy())].cpu()
            grid = image_grid(chosen, 10, captions=captions)
            self.writer.add_image(f"trust/{name}_trusted", grid, step)

    def result(self, hparams: dict[str, str | int | float], metrics: dict[str, float]) -> None:
        """Log hyper-parameters with final figures, once."""
        self.writer.add_hparams(hparams, metrics, run_name=".")

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self.writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()


def _caption(given: int, true: int) -> str:
    return f"{given}" if true == given else f"{given}, is {true}"
