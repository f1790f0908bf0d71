"""Plots for reports, written as PNG."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustdiff.files.atomic import write_atomic

_MOST_NUMBERS = 12
_MOST_TICKS = 30
_LONGEST_TICK = 18


def matrix_figure(
    matrix: NDArray[np.float64], class_names: Sequence[str], title: str, *, given: str = "given"
) -> Figure:
    """Draw a transition matrix as a heat map.

    Args:
        matrix: (K, K), T[clean, given], in [0, 1].
        class_names: K names.
        title: Title.
        given: What the columns are.

    Returns:
        The figure, with numbers in the cells while they fit.
    """
    k = len(matrix)
    side = min(9.0, 2.5 + 0.45 * k)
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(matrix, vmin=0, vmax=1, cmap="Blues")
    if k <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(matrix):
            if value > 0:
                colour = "white" if value > 0.5 else "black"
                text = f"{value:.2f}".removeprefix("0")
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    if k <= _MOST_TICKS:
        # parse_math: a class may be called "$x$"
        names = [_short(name) for name in class_names]
        axes.set_xticks(range(k), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(k), names, fontsize=8, parse_math=False)
    axes.set_xlabel(f"{given} class")
    axes.set_ylabel("clean class")
    axes.set_title(title, fontsize=10, parse_math=False)
    figure.colorbar(shown, ax=axes, fraction=0.046, label="share of the clean class")
    return figure


def _short(name: str) -> str:
    """Return a name that leaves room for the picture beside it."""
    return (
        name
        if len(name) <= _LONGEST_TICK
        else f"{name[: _LONGEST_TICK - 1]}\N{HORIZONTAL ELLIPSIS}"
    )


def score_figure(
    scores: NDArray[np.floating], issue: NDArray[np.bool_], wrong: NDArray[np.bool_] | None
) -> Figure:
    """Draw the distribution of the scores of labels, 80 bins on a logarithmic axis of counts.

    Args:
        scores: (N,), high = trusted.
        issue: (N,), which labels count as wrong.
        wrong: (N,), which labels are wrong; None if nobody knows, then `issue` splits the bars.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(6, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    low, high = np.quantile(scores, [0.001, 0.999])
    bins = np.linspace(low, max(high, low + 1e-9), 81).tolist()
    split = issue if wrong is None else wrong
    names = ("suspect", "trusted") if wrong is None else ("wrong label", "right label")
    parts = [np.clip(scores[split], low, high), np.clip(scores[~split], low, high)]
    # Each from the bottom up: on a logarithmic axis the upper part of a stack would look small.
    for part, name, colour in zip(parts, names, ("#c8553d", "#588b8b"), strict=True):
        axes.hist(part, bins=bins, histtype="stepfilled", alpha=0.55, label=name, color=colour)
    axes.set_yscale("log")
    axes.set_xlabel("score, high is trusted")
    axes.set_ylabel("labels")
    # Not "best": of many bars its search is slow, and says so.
    axes.legend(frameon=False, loc="upper left")
    return figure


def figure_png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    png = figure_png(figure)
    write_atomic(path, lambda file: file.write(png))
