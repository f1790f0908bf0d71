"""Options that `eval`, `sample` and `sweep` share: how images are generated and judged."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from robustdiff.config.layers import resolve, to_plain
from robustdiff.config.names import GuidanceName, SamplerName
from robustdiff.config.sections import Config

from .flags import flag_layer

if TYPE_CHECKING:
    from robustdiff.runs.folder import Run

_SAMPLING = "Sampling"

RunArgument = Annotated[
    Path | None, typer.Argument(help="Run folder; the newest under runs/ if left out.")
]
SamplerOption = Annotated[SamplerName | None, typer.Option(rich_help_panel=_SAMPLING)]
EtaOption = Annotated[
    float | None, typer.Option(help="Randomness of ddim, 0 to 1.", rich_help_panel=_SAMPLING)
]
ChurnOption = Annotated[
    float | None,
    typer.Option(help="Noise that edm adds back over its steps.", rich_help_panel=_SAMPLING),
]
SpacingOption = Annotated[
    Literal["even", "karras"] | None,
    typer.Option(help="Where the steps lie; each sampler has its own.", rich_help_panel=_SAMPLING),
]
StepsOption = Annotated[
    int | None, typer.Option("--steps", help="Sampling steps.", rich_help_panel=_SAMPLING)
]
GuidanceOption = Annotated[
    GuidanceName | None,
    typer.Option(
        "--guidance", rich_help_panel=_SAMPLING,
        help="By the estimate without a label, a classifier's gradient, or a weaker run.",
    ),
]  # fmt: skip
WeakOption = Annotated[
    Path | None,
    typer.Option(
        "--weak", metavar="RUN", rich_help_panel=_SAMPLING,
        help="Weaker run to guide away from; implies --guidance auto.",
    ),
]  # fmt: skip
RescaleOption = Annotated[
    float | None,
    typer.Option(
        "--guidance-rescale", rich_help_panel=_SAMPLING,
        help="0 to 1: give guided outputs the spread of unguided ones.",
    ),
]  # fmt: skip
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
CompileOption = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile", rich_help_panel=_SAMPLING,
        help="Compile the network first, for many images or steps; needs a C++ compiler.",
    ),
]  # fmt: skip
NumSamplesOption = Annotated[
    int | None, typer.Option(help="Images to generate, equal numbers per class.")
]
FeaturesOption = Annotated[
    Literal["classifier", "inception"] | None,
    typer.Option(help="Feature space of FID, KID, density and coverage."),
]
InceptionOption = Annotated[
    Path | None, typer.Option(help="File of the standard Inception weights.")
]
DataDirOption = Annotated[
    Path | None, typer.Option(help="Where the dataset lies, if not where training found it.")
]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the generated images.")]


# Which configuration entry each option replaces.
_FLAGS = {
    "num_samples": "eval.num_samples",
    "features": "eval.features",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
    "eta": "sample.eta",
    "churn": "sample.churn",
    "spacing": "sample.spacing",
    "guidance": "sample.guidance",
    "weak": "sample.weak",
    "guidance_rescale": "sample.guidance_rescale",
    "guidance_weight": "sample.guidance_weight",
    "guidance_interval": "sample.guidance_interval",
    "guidance_outside": "sample.guidance_outside",
    "compiled": "sample.compile",
    "data_dir": "data.data_dir",
    "device": "train.device",
}


def open_with(path: Path | None, values: Mapping[str, Any]) -> tuple["Run", Config]:
    """Open a run, with the options that were given in place of its stored settings.

    Args:
        path: Its folder, None for the newest.
        values: The command's parameters.

    Raises:
        ValueError: If there is no such run, or a value is out of range.
    """
    from robustdiff.runs.folder import open_run

    run = open_run(path)
    given = dict(values)
    if given.get("weak") is not None and given.get("guidance") is None:
        given["guidance"] = "auto"
    return run, resolve(to_plain(run.config()), flag_layer(_FLAGS, given))
