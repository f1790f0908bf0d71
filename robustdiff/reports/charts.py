"""Charts for HTML pages: inline SVG, coloured by the classes of style.css.j2, without a script."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

# Sizes in units of the picture, which a page scales to its width.
_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 12, 8, 22
_MOST_POINTS = 300
_TICKS = 5
_BAR = 160


class Curve(NamedTuple):
    """One line of a chart.

    Attributes:
        name: For the legend.
        x: Horizontal values, rising.
        y: As many vertical values.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Chart(NamedTuple):
    """A picture with its words.

    Attributes:
        title: What it shows.
        picture: SVG.
        legend: Class of the style sheet and name of each line or kind of bars, if several.
    """

    title: str
    picture: Markup
    legend: list[tuple[str, str]]


class _Axis(NamedTuple):
    """A scale from values to a picture.

    Attributes:
        low: Value at the beginning.
        high: Value at the end, larger than `low`.
        start: Place of `low`.
        end: Place of `high`.
        logarithmic: Whether it is.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Return round values within, about five of them."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1,), (1, 3), (1, 2, 5)):
                values = [step * 10.0**power for power in powers for step in steps]
                inside = [value for value in values if self.low <= value <= self.high]
                if len(inside) >= _TICKS - 2:
                    return inside[:: math.ceil(len(inside) / (_TICKS + 2))]
        rough = (self.high - self.low) / _TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    levels: Mapping[str, float] | None = None,
    unit_interval: bool = False,
    logarithmic: bool = False,
) -> Chart:
    """Draw curves over training steps.

    Args:
        title: What they show.
        curves: At least one, each of at least one point; of long ones every so many-th is drawn.
        levels: Name -> height of horizontal lines to compare with.
        unit_interval: Whether the vertical axis runs from 0 to 1.
        logarithmic: Whether it is logarithmic; where a value is not positive, it is not.
    """
    levels = levels or {}
    curves = [_thinned(curve) for curve in curves]
    heights = [*(y for curve in curves for y in curve.y), *levels.values()]
    logarithmic = logarithmic and min(heights) > 0
    low, high = (0.0, 1.0) if unit_interval else _padded(heights, logarithmic=logarithmic)
    ends = [x for curve in curves for x in (curve.x[0], curve.x[-1])]
    left, right = (min(ends), max(ends)) if min(ends) < max(ends) else (0.0, max(*ends, 1.0))
    across = _Axis(left, right, _LEFT, _WIDTH - _RIGHT)
    up = _Axis(low, high, _HEIGHT - _BOTTOM, _TOP, logarithmic)
    picture = _canvas(_WIDTH, _HEIGHT, title)
    _draw_axes(picture, across, up)
    for height in levels.values():
        _line(picture, "level", (_LEFT, up(height)), (_WIDTH - _RIGHT, up(height)))
    for number, curve in enumerate(curves):
        points = [(across(x), up(y)) for x, y in zip(curve.x, curve.y, strict=True)]
        style = f"curve s{number}"
        if len(points) > 1:
            text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            ElementTree.SubElement(picture, "polyline", {"class": style, "points": text})
        for (x, y), value, step in zip(points[-1:], curve.y[-1:], curve.x[-1:], strict=True):
            _dot(picture, f"dot s{number}", x, y, f"{curve.name}: {value:.4g} at step {step:g}")
    legend = [(f"s{number}", curve.name) for number, curve in enumerate(curves)]
    legend += [("level", name) for name in levels]
    return Chart(title, _finished(picture), legend if len(legend) > 1 else [])


def histogram(title: str, parts: Mapping[str, NDArray[np.floating]], bins: int = 40) -> Chart:
    """Draw how values are distributed, counts on a logarithmic axis.

    Args:
        title: What they are.
        parts: Name -> values, drawn over each other; outliers count in the outermost bars.
        bins: Bars.
    """
    every = np.concatenate(list(parts.values()))
    low, high = np.quantile(every, [0.001, 0.999]).tolist()
    edges = np.linspace(low, max(high, low + 1e-9), bins + 1)
    counts = {n: np.histogram(np.clip(v, edges[0], edges[-1]), edges)[0] for n, v in parts.items()}
    most = max(int(count.max()) for count in counts.values())
    across = _Axis(float(edges[0]), float(edges[-1]), _LEFT, _WIDTH - _RIGHT)
    up = _Axis(0.7, max(most, 1) * 1.2, _HEIGHT - _BOTTOM, _TOP, logarithmic=True)
    picture = _canvas(_WIDTH, _HEIGHT, title)
    _draw_axes(picture, across, up)
    width = (across.end - across.start) / bins
    for number, (name, count) in enumerate(counts.items()):
        for place, height in enumerate(count.tolist()):
            if height:
                _bar(
                    picture,
                    f"bars s{number}",
                    (across.start + place * width + 0.5, up(height)),
                    (width - 1, up.start - up(height)),
                    f"{name}: {height}",
                )
    return Chart(title, _finished(picture), [(f"s{i}", name) for i, name in enumerate(counts)])


def range_bar(
    value: float,
    ends: tuple[float, float] | None,
    others: Sequence[float],
    *,
    points: Sequence[float] = (),
    beside: Sequence[float] = (),
    logarithmic: bool = False,
) -> Markup:
    """Draw a figure on a line: a dot, its interval, and marks to compare it with.

    Args:
        value: The figure.
        ends: Ends of its interval, None if there is none.
        others: Values of the marks.
        points: Single repetitions.
        beside: Values that the line holds, too, so that several pictures share a scale.
        logarithmic: Whether the line is logarithmic; where a value is not positive, it is not.
    """
    values = [value, *(ends or ()), *others, *points, *beside]
    logarithmic = logarithmic and min(values) > 0
    low, high = _padded(values, logarithmic=logarithmic)
    across = _Axis(low, high, 4, _BAR - 4, logarithmic)
    picture = _canvas(_BAR, 16, "")
    _line(picture, "axis", (0, 8), (_BAR, 8))
    if ends is not None:
        _line(picture, "interval", (across(ends[0]), 8), (across(ends[1]), 8))
    for other in others:
        _line(picture, "mark", (across(other), 1), (across(other), 15))
    for point in points:
        _line(picture, "point", (across(point), 5), (across(point), 11))
    _dot(picture, "dot s0", across(value), 8, f"{value:.4g}")
    return _finished(picture)


def _thinned(curve: Curve) -> Curve:
    step = math.ceil(len(curve.x) / _MOST_POINTS)
    kept = sorted({*range(0, len(curve.x), step), len(curve.x) - 1})
    return Curve(curve.name, [curve.x[i] for i in kept], [curve.y[i] for i in kept])


def _padded(values: Sequence[float], *, logarithmic: bool) -> tuple[float, float]:
    """Return ends of an axis that all values lie within, with a little room."""
    low, high = min(values), max(values)
    if logarithmic:
        room = max((high / low) ** 0.06, 1.02)
        return low / room, high * room
    room = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
    return low - room, high + room


def _canvas(width: int, height: int, title: str) -> ElementTree.Element:
    shape = {"viewBox": f"0 0 {width} {height}", "role": "img", "class": "chart"}
    return ElementTree.Element("svg", shape | ({"aria-label": title} if title else {}))


def _draw_axes(picture: ElementTree.Element, across: _Axis, up: _Axis) -> None:
    for value in up.ticks():
        _line(picture, "grid", (across.start, up(value)), (across.end, up(value)))
        _text(picture, (across.start - 5, up(value) + 4), f"{value:g}", "end")
    for value in across.ticks():
        _text(picture, (across(value), up.start + 15), f"{value:g}", "middle")
    _line(picture, "axis", (across.start, up.start), (across.end, up.start))


def _line(
    picture: ElementTree.Element, style: str, start: tuple[float, float], end: tuple[float, float]
) -> None:
    ends = zip(("x1", "y1", "x2", "y2"), (*start, *end), strict=True)
    places = {name: f"{value:.1f}" for name, value in ends}
    ElementTree.SubElement(picture, "line", {"class": style, **places})


def _text(picture: ElementTree.Element, place: tuple[float, float], text: str, anchor: str) -> None:
    x, y = (f"{value:.1f}" for value in place)
    ElementTree.SubElement(picture, "text", {"x": x, "y": y, "text-anchor": anchor}).text = text


def _dot(picture: ElementTree.Element, style: str, x: float, y: float, words: str) -> None:
    places = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3.5"}
    dot = ElementTree.SubElement(picture, "circle", {"class": style, **places})
    ElementTree.SubElement(dot, "title").text = words


def _bar(
    picture: ElementTree.Element,
    style: str,
    corner: tuple[float, float],
    size: tuple[float, float],
    words: str,
) -> None:
    places = zip(("x", "y", "width", "height"), (*corner, *size), strict=True)
    shape = {name: f"{value:.1f}" for name, value in places}
    bar = ElementTree.SubElement(picture, "rect", {"class": style, **shape})
    ElementTree.SubElement(bar, "title").text = words


def _finished(picture: ElementTree.Element) -> Markup:
    # ElementTree escapes every name and word within.
    return Markup(ElementTree.tostring(picture, encoding="unicode"))
