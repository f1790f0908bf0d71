"""Time to a fixed class-wise FID: contenders train against the clock and are looked at."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.contenders import OURS, PLAIN, Contender
from benchmarks.speed.rates import against_the_clock, seconds_to
from robustdiff.classifiers.image import embed
from robustdiff.data.arrays import Images
from robustdiff.diffusion.generate import class_labels
from robustdiff.metrics.distribution import classwise_frechet
from robustdiff.metrics.evaluator import train_evaluator

# Looks at these shares of the clock. Ours gets there early; peers take long to generate, and what
# counts of them is the end.
SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
PEERS_SHARES = SHARES[-3:]

Points = Sequence[tuple[float, float]]


def classwise_fid(images: Images) -> Callable[[Tensor], float]:
    """Return the class-wise FID of generated images against the held-out ones.

    The evaluator is that of `robustdiff eval`, trained on the clean training images.

    Args:
        images: The dataset.

    Returns:
        (M, C, H, W) uint8 images, of classes 0, 1, ..., K - 1, 0, ... -> their class-wise FID.
    """
    k = images.num_classes
    evaluator = train_evaluator(images.train, images.train_labels, k, seed=0)
    real, _ = embed(evaluator, images.test)

    def measure(generated: Tensor) -> float:
        found, _ = embed(evaluator, generated)
        labels = class_labels(len(found), k)
        return classwise_frechet(real, images.test_labels.cpu(), found, labels, k)[0]

    return measure


def curves(
    makers: Mapping[str, Callable[[], Contender]],
    clock: float,
    count: int,
    measure: Callable[[Tensor], float],
) -> dict[str, list[tuple[float, float]]]:
    """Train each contender for so many seconds.

    Args:
        makers: Name -> builder.
        clock: Seconds of training; those of looking are not counted.
        count: Images that a look generates.
        measure: See `classwise_fid`.

    Returns:
        Name -> (seconds, class-wise FID) of each look.
    """
    found = {}
    for name, make in makers.items():
        torch.manual_seed(0)
        contender = make()

        def look(contender: Contender = contender) -> float:
            return measure(contender.sample(count))

        shares = SHARES if name in (OURS, PLAIN) else PEERS_SHARES
        marks = [share * clock for share in shares]
        found[name] = against_the_clock(contender.step, look, marks)
        print(name, found[name], flush=True)
    return found


def to_the_peers_level(found: Mapping[str, Points]) -> dict[str, Any]:
    """Compare the seconds to what the best peer reaches at the end.

    Args:
        found: Name -> (seconds, figure), lower is better; `OURS`, and one peer at least.

    Returns:
        The peer, its figure at the end, the seconds to it of all (None: not reached), and the
        peer's over ours (None if ours does not reach it).
    """
    peers = {name: points for name, points in found.items() if name not in (OURS, PLAIN)}
    best = min(peers, key=lambda name: peers[name][-1][1])
    level = peers[best][-1][1]
    seconds = {name: seconds_to(points, level) for name, points in found.items()}
    mine, theirs = seconds[OURS], seconds[best]
    ratio = None if mine is None or theirs is None else theirs / mine
    return {"peer": best, "level": level, "seconds": seconds, "ratio": ratio}


def table(found: dict[str, Any]) -> list[str]:
    """Return a Markdown table of the curves and of the seconds to the level."""
    lines = ["| | class-wise FID at the end | seconds to the best peer's |", "|---|---|---|"]
    reached = found.get("reached")
    for name, points in found["curves"].items():
        seconds = reached["seconds"][name] if reached else None
        cell = "not reached" if seconds is None else f"{seconds:.1f}"
        lines.append(f"| {name} | {points[-1][1]:.2f} | {cell} |")
    if reached and reached["ratio"] is not None:
        lines += ["", f"robustdiff is there {reached['ratio']:.1f} times as fast"]
    return lines
