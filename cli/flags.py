"""From options to configuration layers, and other values of a command line."""

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from robustdiff.config.layers import Layer, flat, nested, resolve, to_plain
from robustdiff.config.sections import Config

from .options import Group, with_implied

if TYPE_CHECKING:
    from robustdiff.runs.folder import Run

_Number = TypeVar("_Number", int, float)
_Command = Callable[..., None]


def with_options(command: _Command) -> _Command:
    """Turn every group among the parameters of a command into the options of that group.

    A parameter `noise: Annotated[Layer, NOISE]` becomes one option per key of NOISE, at its place
    in the help. The command receives a configuration layer of the options that were given. If the
    parameter has a default, it is a layer of the options' default values, which the help shows.
    """
    declared = inspect.signature(command).parameters.values()
    groups = {one.name: (group, _defaults(one)) for one in declared if (group := _group(one))}

    @functools.wraps(command)
    def run(**values: Any) -> None:  # noqa: ANN401 the values of all options
        for name, (group, defaults) in groups.items():
            given = {key: values.pop(_name(key)) for key in group}
            values[name] = _layer(given, defaults)
        command(**values)

    shown = [parameter for one in declared for parameter in _expanded(one)]
    # typer reads both.
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run


def _expanded(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    group, defaults = _group(parameter), _defaults(parameter)
    if group is None:
        return [parameter]
    return [
        parameter.replace(name=_name(key), default=defaults.get(key), annotation=option)
        for key, option in group.items()
    ]


def _group(parameter: inspect.Parameter) -> Group | None:
    notes = getattr(parameter.annotation, "__metadata__", ())
    return next((note for note in notes if isinstance(note, dict)), None)


def _defaults(parameter: inspect.Parameter) -> dict[str, Any]:
    return flat(parameter.default) if isinstance(parameter.default, dict) else {}


def _name(key: str) -> str:
    return key.replace(".", "_")


def _layer(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Layer:
    """Return values by config key, None for those that were not given, as a configuration layer."""
    given = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in values.items()
        if value not in (None, defaults.get(key))
    }
    return nested({**defaults, **with_implied(given)})


def one_source(argument: Path | None, option: Path | None) -> Path | None:
    """Return the images that a command is given, as its argument or by --data.

    Raises:
        ValueError: If it is given both.
    """
    if argument is not None and option is not None:
        raise ValueError(f"--data {option} takes the place of the argument {argument}")
    return argument or option


def of_images(source: Path) -> Layer:
    """Return the settings that name images of one's own.

    Raises:
        ValueError: If it is not certain what lies there.
    """
    from robustdiff.data.sources import kind_of

    return {"data": {"dataset": kind_of(source), "data_dir": str(source)}}


def open_with(path: Path | None, *changes: Layer) -> tuple["Run", Config]:
    """Open a run and change its stored configuration.

    Args:
        path: Its folder, None for the newest.
        changes: Configuration layers, the last one wins.

    Raises:
        ValueError: If there is no such run, or a value is out of range.
    """
    from robustdiff.runs.folder import open_run

    run = open_run(path)
    return run, resolve(to_plain(run.config()), *changes)


def refuse_unused(config: Config, sampling: Layer) -> None:
    """Refuse options of a sampler other than the one that is used.

    Args:
        config: The whole configuration.
        sampling: What was asked for.

    Raises:
        ValueError: If there is such an option.
    """
    from robustdiff.diffusion.samplers import SAMPLERS

    asked, used = sampling.get("sample", {}), config.sample.sampler
    for name, sampler in SAMPLERS.items():
        for option in sampler.options:
            if option in asked and option not in SAMPLERS[used].options:
                raise ValueError(
                    f"sample.{option} goes with sampler {name}, got {used}; give --sampler {name}"
                )


def numbers(text: str, kind: type[_Number], flag: str) -> list[_Number]:
    """Read the comma-separated numbers that a flag was given.

    Raises:
        ValueError: If they are something else.
    """
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag} takes comma-separated numbers, got {text!r}") from None
