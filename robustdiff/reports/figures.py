"""Plots for reports, written as PNG."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from robustdiff.files.atomic import write_atomic
from robustdiff.metrics.catalogue import Metric
from robustdiff.reports.intervals import interval

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
    """Return a name that leaves room for the picture beside it; bytes are spelled out."""
    shown = name.encode(errors="backslashreplace").decode()
    if len(shown) <= _LONGEST_TICK:
        return shown
    return f"{shown[: _LONGEST_TICK - 1]}\N{HORIZONTAL ELLIPSIS}"


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
    # Not "best": its search is slow for many bars, and warns.
    axes.legend(frameon=False, loc="upper left")
    return figure


def comparison_figure(
    parts: Mapping[str, Sequence[tuple[str, Mapping[str, Sequence[float]]]]],
    columns: tuple[str, str] = ("class-wise FID", "AUROC"),
) -> Figure:
    """Draw two figures of every method: the mean, its interval, and the single repetitions.

    Args:
        parts: Noise -> methods, each a name and column -> one value per seed.
        columns: Left panel, on a logarithmic axis, and right panel, from 0 to 1.

    Returns:
        The figure, one row of panels per noise.
    """
    heights = [0.6 + 0.26 * len(part) for part in parts.values()]
    figure = Figure(figsize=(9, 1 + sum(heights)), dpi=110, layout="constrained")
    grid = figure.subplots(len(parts), 2, squeeze=False, height_ratios=heights)
    for panels, (noise, part) in zip(grid, parts.items(), strict=True):
        for axes, column in zip(panels, columns, strict=True):
            _draw_methods(axes, part[::-1], column, named=axes is panels[0])
            axes.set_title(f"{noise}: {column}", fontsize=9, loc="left", parse_math=False)
        panels[0].set_xscale("log")
        _logarithmic(panels[0].xaxis)
        panels[0].tick_params(axis="x", labelsize=7)
        panels[1].set_xlim(0, 1.02)
    return figure


def _draw_methods(
    axes: Axes,
    methods: Sequence[tuple[str, Mapping[str, Sequence[float]]]],
    column: str,
    *,
    named: bool,
) -> None:
    for place, (_, values) in enumerate(methods):
        if values[column]:
            mean, half = interval(values[column])
            axes.errorbar(mean, place, xerr=half or 0, fmt="o", color="tab:blue", ms=4)
            axes.plot(values[column], [place] * len(values[column]), "|", color="grey", ms=6)
    axes.set_ylim(-0.6, len(methods) - 0.4)
    names = [name if named else "" for name, _ in methods]
    axes.set_yticks(range(len(methods)), names, fontsize=8, parse_math=False)
    axes.grid(axis="x", alpha=0.3)


class Line(NamedTuple):
    """One line of a sweep, in every panel.

    Attributes:
        name: For the legend; "" leaves it out.
        x: Swept values, in order.
        figures: Key of a metric -> its values there.
    """

    name: str
    x: Sequence[float]
    figures: Mapping[str, Sequence[float]]


def sweep_figure(
    lines: Sequence[Line],
    real: Mapping[str, float],
    metrics: Sequence[Metric],
    x_title: str,
    *,
    logarithmic: bool,
) -> Figure:
    """Draw metrics against a swept setting, one panel each, beside what real images get.

    Args:
        lines: What to draw.
        real: Key of a metric -> figure of held-out real images.
        metrics: Six of the catalogue's.
        x_title: Name of what is swept.
        logarithmic: Whether the horizontal axis is.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(10.5, 6.2), dpi=110, layout="constrained")
    legend = {}
    for panel, metric in zip(figure.subplots(2, 3).ravel(), metrics, strict=True):
        drawn = {}
        for line in lines:
            y = line.figures[metric.key]
            (drawn[line.name],) = panel.plot(line.x, y, marker="o", markersize=3.5, linewidth=1.2)
        floor = panel.axhline(real[metric.key], color="0.4", linestyle="--", linewidth=1)
        legend = {"real, held out": floor} | {name: part for name, part in drawn.items() if name}
        panel.set_title(metric.title, fontsize=10)
        panel.grid(visible=True, color="0.92")
        panel.set_xlabel(x_title, fontsize=9)
        if logarithmic:
            panel.set_xscale("log")
            _logarithmic(panel.xaxis)
        shown = [real[metric.key], *(y for line in lines for y in line.figures[metric.key])]
        if metric.logarithmic and any(y > 0 for y in shown):  # of too few images all are NaN
            panel.set_yscale("log")
            _logarithmic(panel.yaxis)
    box = figure.legend(
        legend.values(),
        legend.keys(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    for text in box.get_texts():
        text.set_parse_math(False)  # a run's name may hold dollar signs
    return figure


def _logarithmic(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def figure_png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    png = figure_png(figure)
    write_atomic(path, lambda file: file.write(png))
