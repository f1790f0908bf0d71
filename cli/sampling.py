"""Options that `eval` and `sample` share: how images are generated."""

from pathlib import Path
from typing import Annotated, Any

import typer

from robustdiff.config import Config, Layer, SamplerName, resolve, to_plain

_SAMPLING = "Sampling"

RunArgument = Annotated[
    Path | None, typer.Argument(help="Run folder; the newest under runs/ if left out.")
]
SamplerOption = Annotated[SamplerName | None, typer.Option(rich_help_panel=_SAMPLING)]
StepsOption = Annotated[
    int | None, typer.Option("--steps", help="Sampling steps.", rich_help_panel=_SAMPLING)
]
WeightOption = Annotated[
    float | None,
    typer.Option(
        "--guidance-weight", "-w", help="The paper's w; 0 is no guidance.",
        rich_help_panel=_SAMPLING,
    ),
]  # fmt: skip
IntervalOption = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--guidance-interval", metavar="LOW HIGH", rich_help_panel=_SAMPLING,
        help="Times between which guidance acts, 1 being pure noise.",
    ),
]  # fmt: skip
OutsideOption = Annotated[
    str | None,
    typer.Option(
        "--guidance-outside", rich_help_panel=_SAMPLING,
        help="What the other steps see: null (no label) or given (label, no guidance).",
    ),
]  # fmt: skip
DataDirOption = Annotated[
    Path | None, typer.Option(help="Where the dataset lies, if not where training found it.")
]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the generated images.")]


def overridden(config: Config, **options: Any) -> Config:  # noqa: ANN401 plain option values
    """Return a run's configuration with the options that were given.

    Args:
        config: As stored in the run.
        options: "section__key" -> value; None leaves the stored value.

    Raises:
        ValueError: If a value is out of range.
    """
    layers: list[Layer] = []
    for name, value in options.items():
        section, key = name.split("__")
        if value is not None:
            layers.append({section: {key: str(value) if isinstance(value, Path) else value}})
    return resolve(to_plain(config), *layers)
