"""How presets, files and flags resolve to one configuration.

Precedence: defaults < preset < file < `--set section.key=value` < flag. Unknown keys are errors.
The module imports no pydantic at its top, so that `robustdiff --help` stays fast.
"""

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from robustdiff.config.sections import Config

_Kind = TypeVar("_Kind")
Layer = Mapping[str, Any]
"""Nested plain data, e.g. {"train": {"steps": 100}}; what a TOML file holds."""


def choose(name: str, allowed: Iterable[str], what: str) -> str:
    """Return `name` if it is allowed.

    Raises:
        ValueError: Naming what was unknown, with the nearest match and the allowed names.
    """
    names = sorted(allowed)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {what} {name!r}; {hint}choose from {', '.join(names)}")


def read_layer(path: Path) -> Layer:
    """Read a config file, TOML or a run's config.json.

    Raises:
        ValueError: If the file cannot be read or parsed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        layer = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ValueError(f"cannot read config file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of parsers, of bad UTF-8, of deep nesting
        raise ValueError(f"config file {path} is not valid: {error}") from error
    if not isinstance(layer, dict):
        raise ValueError(f"config file {path} must hold sections, got {type(layer).__name__}")
    return layer


def parse_setting(text: str) -> Layer:
    """Turn `section.key=value` into a layer; the value is TOML, a bare word is a string.

    Raises:
        ValueError: If the text has no key or no "=".
    """
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ValueError(f"--set takes section.key=value, got {text!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return nested({".".join(keys): parsed})


def _merge(base: Layer, over: Layer) -> dict[str, Any]:
    merged = dict(base)
    # The length is one choice with two names: a later layer's choice replaces an earlier one's.
    for name, other in (("steps", "epochs"), ("epochs", "steps")):
        if over.get(name) is not None and other not in over:
            merged.pop(other, None)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _known_keys(kind: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401 a dataclass type
    known: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        known[prefix + field.name] = field
        if dataclasses.is_dataclass(field.type):
            known |= _known_keys(field.type, f"{prefix}{field.name}.")
    return known


def _check_keys(layer: Layer, known: Mapping[str, Any], prefix: str = "") -> None:
    for key, value in layer.items():
        choose(prefix + key, known, "config key")
        if dataclasses.is_dataclass(known[prefix + key].type):
            if not isinstance(value, Mapping):
                raise ValueError(f"config key {prefix}{key} is a section, got {value!r}")
            _check_keys(value, known, f"{prefix}{key}.")


def resolve(*layers: Layer) -> Config:
    """Merge layers, the last one wins, into a validated configuration.

    Raises:
        ValueError: One line naming the key, what is allowed and what came.
    """
    # A section is built from what is given of it, and the section alone has no default length.
    merged: dict[str, Any] = {"train": {"steps": Config.train.steps}}
    for layer in layers:
        _check_keys(layer, _known_keys(Config))
        merged = _merge(merged, layer)
    return validated(Config, merged)


def validated(kind: type[_Kind], plain: Mapping[str, Any]) -> _Kind:
    """Build a dataclass from plain data.

    Raises:
        ValueError: One line naming the key, what is allowed and what came.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        built = TypeAdapter(kind).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":
            raise ValueError(message) from None
        raise ValueError(f"{where}: {message}, got {first['input']!r}") from None
    _check_finite(built)
    return built


def _check_finite(built: Any) -> None:  # noqa: ANN401 a dataclass
    """Refuse infinity and NaN, which pass many comparisons, wherever a number is asked for."""
    for key, value in flat(dataclasses.asdict(built)).items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
            raise ValueError(f"{key} must be finite, got {value}")


def flat(plain: Layer) -> dict[str, Any]:
    """Return nested settings as dotted key -> value."""
    entries: dict[str, Any] = {}
    for key, value in plain.items():
        nested = value if isinstance(value, Mapping) else {}
        entries |= {f"{key}.{name}": entry for name, entry in nested.items()} or {key: value}
    return entries


def nested(entries: Layer) -> dict[str, Any]:
    """Return dotted key -> value as nested settings, the inverse of `flat`.

    Examples:
        >>> nested({"noise.rate": 0.3, "seed": 1})
        {'noise': {'rate': 0.3}, 'seed': 1}
    """
    layer: dict[str, Any] = {}
    for key, value in entries.items():
        section, _, name = key.rpartition(".")
        target = layer.setdefault(section, {}) if section else layer
        target[name] = value
    return layer


def to_plain(config: Config) -> dict[str, Any]:
    """Return the configuration as nested plain data, ready for JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain
