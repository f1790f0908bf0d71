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

A run that is there with other settings than the file's is a failure. `train.steps` and
`train.epochs` may grow, and sampling and evaluation may change: it is continued then, and evaluated
again.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from robustdiff.config.layers import Layer, choose, read_layer, resolve, to_plain, validated
from robustdiff.config.presets import preset
from robustdiff.config.roles import fixed_changes
from robustdiff.config.sections import Config
from robustdiff.device import check_compiler
from robustdiff.errors import DamagedError, DivergedError, LockedError, TakenError
from robustdiff.files.checkpoint import steps_made
from robustdiff.jobs.evaluate import check_features, evaluate_run
from robustdiff.jobs.model import check_guidance, check_label_noise
from robustdiff.jobs.train import resume_run, start_run
from robustdiff.progress import Report
from robustdiff.runs.evaluations import has_evaluation
from robustdiff.runs.folder import Run
from robustdiff.training.task import total_steps


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
        for name, part in {"base": self.base, **self.method}.items():
            if "seed" in part:
                raise ValueError(f"{name} of a study has a seed; give seeds = [...] at its top")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds of a study must differ, got {self.seeds}")


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
    if any(isinstance(seed, bool) for seed in _listed(layer.get("seeds"))):
        raise ValueError(f"seeds of a study must be whole numbers, got {layer['seeds']}")
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
            for name in _methods(noise_name, noise, study):
                config = resolve(*base, {"noise": section}, study.method[name], {"seed": seed})
                cells.append(Cell(Path(_plain(noise_name)) / _plain(name) / f"s{seed}", config))
    return cells


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 whatever a file holds
    return value if isinstance(value, list) else []


def _methods(noise_name: str, noise: Layer, study: _Study) -> list[str]:
    """Return the names of the methods that are run under a noise."""
    chosen = noise.get("methods", list(study.method))
    names = [name for name in _listed(chosen) if isinstance(name, str)]
    if not names or names != chosen:
        raise ValueError(
            f"methods of noise {noise_name!r} must be a list of one or more of "
            f"{', '.join(study.method)}, got {chosen!r}"
        )
    return [choose(name, study.method, f"method of noise {noise_name!r}") for name in names]


def _plain(name: str) -> str:
    steering = name.startswith(".") or "/" in name or "\\" in name or not name.isprintable()
    if steering or not name.strip():
        raise ValueError(f"names in a study become folders, got {name!r}")
    return name


def standing(run: Run, config: Config) -> Literal["to do", "to resume", "done"]:
    """Return what is left to do for one run of a study.

    A run whose length has grown, or that is to be sampled or evaluated otherwise, is to be resumed.

    Args:
        run: Where it lies or will lie.
        config: Its configuration by the study.

    Raises:
        ValueError: If the run there was made with other settings.
        DamagedError: If its configuration or its labels cannot be read.
    """
    if not run.config_file.exists():
        return "to do"
    stored = run.config()
    changed = fixed_changes(to_plain(stored), to_plain(config))
    if changed:
        raise _made_otherwise(changed)
    count = len(run.labels().given)
    was, steps = total_steps(stored, count), total_steps(config, count)
    if steps < was:
        raise _made_otherwise([f"{steps} steps (was {was})"])
    # Someone may have evaluated a run that was stopped.
    whole = was == steps and steps_made(run.checkpoints, steps) >= steps
    return "done" if whole and has_evaluation(run, config) else "to resume"


def _made_otherwise(changed: list[str]) -> ValueError:
    return ValueError(f"made with other settings: {', '.join(changed)}; delete it or use --out")


def plan(cells: list[Cell], out: Path) -> list[str]:
    """Return one line per run: what would be done, or why nothing can be."""
    lines = []
    for cell in cells:
        run = Run(out / cell.path)
        try:
            lines.append(f"{standing(run, cell.config)} {run.path}")
        except (DamagedError, ValueError) as error:
            lines.append(f"unusable {run.path}: {error}")
    return lines


class Outcome(NamedTuple):
    """What became of a study; all other runs are done.

    Attributes:
        failed: One line per run that failed.
        elsewhere: Runs that another process works on.
    """

    failed: list[str]
    elsewhere: list[Path]


def run_study(cells: list[Cell], out: Path, report: Report) -> Outcome:
    """Train and evaluate what is missing.

    Args:
        cells: Runs to make.
        out: Folder of the study.
        report: Receives progress.

    Returns:
        The runs that are not done.

    Raises:
        InterruptedRunError: If a signal asked to stop; call again to go on.
    """
    outcome = Outcome([], [])
    for number, cell in enumerate(cells, start=1):
        run = Run(out / cell.path)
        try:
            state = standing(run, cell.config)
            if state == "done":
                continue
            report.message(f"study: run {number} of {len(cells)}, {cell.path}")
            _finish(run, cell.config, out, report, resume=state == "to resume")
        except (DamagedError, DivergedError, OSError, ValueError) as error:
            # Of two processes that start a run at once, one finds the other's folder.
            begun = isinstance(error, TakenError) and run.config_file.exists()
            if begun or isinstance(error, LockedError):
                outcome.elsewhere.append(cell.path)
                report.message(f"study: {cell.path} is in work elsewhere")
            else:
                outcome.failed.append(f"{cell.path}: {error}")
                report.message(f"study: {outcome.failed[-1]}")
    return outcome


def _finish(run: Run, config: Config, out: Path, report: Report, *, resume: bool) -> None:
    check_features(config, None)
    check_guidance(config.sample)
    if config.sample.compile:
        check_compiler("sample.compile")
    if resume:
        check_label_noise(run, config.sample)
        resume_run(run, config, report)
    else:
        start_run(config, run.path, report)
    with run.locked():
        evaluate_run(
            run,
            config,
            report,
            seed=config.seed,
            inception_weights=None,
            evaluators=out / "evaluators",
        )
