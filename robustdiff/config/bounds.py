"""Bounds of settings: an entry's type says where its numbers must lie, one function checks it."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal, get_args


@dataclasses.dataclass(frozen=True)
class Within:
    """The interval that a number must lie in, for `Annotated[float, Within(0, 1)]`.

    Attributes:
        low: Lower end.
        high: Upper end.
        without: Which end does not belong to it; None if both do.
    """

    low: float = -math.inf
    high: float = math.inf
    without: Literal["low", "high"] | None = None

    def __contains__(self, number: float) -> bool:
        """Return whether a number lies in the interval; NaN lies in none."""
        above = number > self.low if self.without == "low" else number >= self.low
        below = number < self.high if self.without == "high" else number <= self.high
        return above and below

    def __str__(self) -> str:
        """Describe the interval as it follows "must be"."""
        if self.high == math.inf:
            above = "positive" if self.low == 0 else f"above {self.low:g}"
            return above if self.without == "low" else f"at least {self.low:g}"
        if self.low == -math.inf:
            return f"{'below' if self.without == 'high' else 'at most'} {self.high:g}"
        left, right = "(" if self.without == "low" else "[", ")" if self.without == "high" else "]"
        return f"in {left}{self.low:g}, {self.high:g}{right}"


def check_bounds(section: Any, name: str) -> None:  # noqa: ANN401 a dataclass of settings
    """Check every number of a section against the bounds that its type states.

    Args:
        section: Instance of a dataclass; entries that are not numbers are left to its own checks.
        name: Name of the section, for messages; "" for the whole configuration.

    Raises:
        ValueError: Naming the entry, what is allowed and what came.
    """
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        for bounds in _bounds(field.type):
            if isinstance(value, int | float) and value not in bounds:
                key = f"{name}.{field.name}" if name else field.name
                raise ValueError(f"{key} must be {bounds}, got {value}")


def _bounds(kind: Any) -> Iterator[Within]:  # noqa: ANN401 a type
    """Yield the bounds in a type, such as `Annotated[int, Within(1)] | None`."""
    for part in get_args(kind):
        if isinstance(part, Within):
            yield part
        else:
            yield from _bounds(part)
