"""A grid of runs from one TOML file: noise x method x seed, each trained and evaluated once.

    preset = "mnist-14"
    seeds = [0, 1, 2]

    [base.data]                     # settings of every run, as in a config file
    data_dir = "data"

    [noise.symmetric-40]            # the noise section of a config
    rate = 0.4

    [noise.clean]
    methods = ["uniform"]           # only these; all if left out

    [method.uniform]                # settings of a method, as in a config file

    [method.crossfit-soft.curriculum]
    name = "crossfit"
    treatment = "soft"

Run folders are OUT/<noise>/<method>/s<seed>. What is evaluated is skipped, what was interrupted is
resumed, so a study can be stopped at any time, and several workers can share it.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from robustdiff.config import Config, Layer, choose, preset, read_layer, resolve, validated
from robustdiff.errors import DamagedError, DivergedError
from robustdiff.evaluate import evaluate_run
from robustdiff.experiment import resume_run, start_run
from robustdiff.progress import Report
from robustdiff.runs import Run


@dataclass(frozen=True, kw_only=True)
class _Study:
    """Content of a study file."""

    noise: dict[str, dict[str, Any]]
    method: dict[str, dict[str, Any]]
    seeds: list[int] = field(default_factory=lambda: [0])
    preset: str | None = None
    base: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("noise", "method", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} of a study must not be empty")


class Cell(NamedTuple):
    """One run of a study.

    Attributes:
        path: Its folder, relative to the study's.
        config: Its configuration.
    """

    path: Path
    config: Config


def read_study(path: Path, data_dir: Path | None = None) -> list[Cell]:
    """Read a study file into its runs, seed by seed.

    Args:
        path: The file.
        data_dir: Where the dataset lies, in place of what the file says.

    Returns:
        The runs.

    Raises:
        ValueError: If the file cannot be read, or a setting in it is wrong.
    """
    layer = read_layer(path)
    for key in layer:
        choose(key, [known.name for known in fields(_Study)], "study key")
    study = validated(_Study, layer)
    base: list[Layer] = [study.base]
    if study.preset is not None:
        base.insert(0, preset(study.preset))
    if data_dir is not None:
        base.append({"data": {"data_dir": str(data_dir)}})
    cells = []
    for seed in study.seeds:
        for noise_name, noise in study.noise.items():
            section = {key: value for key, value in noise.items() if key != "methods"}
            for name in noise.get("methods", study.method):
                method = study.method[choose(name, study.method, f"method of noise {noise_name!r}")]
                config = resolve(*base, {"noise": section}, method, {"seed": seed})
                cells.append(Cell(Path(_plain(noise_name)) / _plain(name) / f"s{seed}", config))
    return cells


def _plain(name: str) -> str:
    steering = name.startswith(".") or "/" in name or "\\" in name or not name.isprintable()
    if steering or not name.strip():
        raise ValueError(f"names in a study become folders, got {name!r}")
    return name


def run_study(cells: list[Cell], out: Path, report: Report) -> list[str]:
    """Train and evaluate what is missing.

    Args:
        cells: Runs to make.
        out: Folder of the study.
        report: Told about progress.

    Returns:
        One line per run that failed; the others are done.

    Raises:
        InterruptedRunError: If a signal asked to stop; call again to go on.
    """
    failed = []
    for number, cell in enumerate(cells, start=1):
        run = Run(out / cell.path)
        if run.metrics_file.exists():
            continue
        report.message(f"study: run {number} of {len(cells)}, {cell.path}")
        try:
            if run.config_file.exists():
                resume_run(run, run.config(), report)
            else:
                start_run(cell.config, run.path, report)
            evaluate_run(
                run,
                cell.config,
                report,
                seed=cell.config.seed,
                inception_weights=None,
                evaluators=out / "evaluators",
            )
        except (DamagedError, DivergedError, OSError, ValueError) as error:
            failed.append(f"{cell.path}: {error}")
            report.message(f"study: {failed[-1]}")
    return failed
