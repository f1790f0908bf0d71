"""From the flags of a command to a configuration layer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustdiff.config import Layer


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
