"""From the flags of a command to numbers and to a configuration layer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from robustdiff.config.layers import Layer

_Number = TypeVar("_Number", int, float)


def numbers(text: str, kind: type[_Number], flag: str) -> list[_Number]:
    """Read the comma-separated numbers that a flag was given.

    Raises:
        ValueError: If they are something else.
    """
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag} takes comma-separated numbers, got {text!r}") from None


def flag_layer(entries: Mapping[str, str], values: Mapping[str, Any]) -> Layer:
    """Return the configuration entries that were given on the command line.

    Args:
        entries: Parameter of the command -> configuration entry, e.g. "noise" -> "noise.rate".
        values: The command's parameters; None was not given, other names are ignored.
    """
    layer: dict[str, Any] = {}
    for name, entry in entries.items():
        value = values.get(name)
        if value is not None:
            *section, key = entry.split(".")
            target = layer.setdefault(section[0], {}) if section else layer
            target[key] = str(value) if isinstance(value, Path) else value
    return layer
