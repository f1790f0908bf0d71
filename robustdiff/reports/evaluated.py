"""An evaluation among others: what its repetitions have in common, and what its row is called."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from curricula import CURRICULA
from robustdiff.config.layers import flat, to_plain
from robustdiff.config.roles import distinguishing
from robustdiff.config.sections import Config, NoiseConfig
from robustdiff.runs.evaluations import Evaluation, Metrics, settings_used

CLEAN, UNKNOWN = "clean", "unknown"
AS_THEY_ARE = (CLEAN, UNKNOWN)
# As many digits of a digest are shown.
_DIGITS = 12
# Settings that name a file, of which the name is shown without its folder.
_FILES = ("judge.probabilities", "judge.features")


class Evaluated(NamedTuple):
    """One evaluation of a run.

    Attributes:
        path: Its file.
        config: The run's configuration.
        metrics: The figures.
        settings: What repetitions have in common, dotted key -> value.
        noise: Which noise its labels have.
    """

    path: Path
    config: Config
    metrics: Metrics
    settings: dict[str, Any]
    noise: str

    @property
    def setup(self) -> str:
        """What the run has in common with those it is measured against."""
        apart = ("noise.", "objective.", "curriculum.", "judge.", "sample.undo_label_noise")
        return json.dumps([s for s in self.settings.items() if not s[0].startswith(apart)])


def evaluated(evaluation: Evaluation, config: Config, digest: str | None) -> Evaluated:
    """Return what a comparison knows of an evaluation.

    Args:
        evaluation: Its file and figures.
        config: The run's configuration.
        digest: Of its labels, if they came from a file; None where they are gone, and only the
            file's path says which they were.

    Raises:
        KeyError, TypeError, AttributeError: If the figures are not those of an evaluation.
    """
    path, metrics = evaluation
    # What a label file holds may change, and the same labels may lie in several files.
    known = config
    if digest is not None:
        known = replace(config, noise=NoiseConfig(labels=digest[:_DIGITS]))
    return Evaluated(path, config, metrics, _settings(known, metrics), _noise(known, metrics))


def _settings(config: Config, metrics: Metrics) -> dict[str, Any]:
    settings = flat(to_plain(config)) | settings_used(metrics, config)
    if config.curriculum.name == "uniform":
        # Settings of scores say nothing where there are none.
        named = ("curriculum.name", "curriculum.treatment")
        settings = {
            k: v for k, v in settings.items() if k in named or not k.startswith("curriculum.")
        }
    if (
        CURRICULA[config.curriculum.name].source != "classifier"
        and config.objective.name == "plain"
    ):
        # Neither does the judge where nobody asks it.
        settings = {k: v for k, v in settings.items() if not k.startswith("judge.")}
    settings["evaluator"] = metrics.get("evaluator_sha256")
    # A run that was stopped is no repetition of one that went on to its end.
    made, steps = metrics.get("trained_steps"), metrics.get("planned_steps")
    settings["steps made"] = "all" if made is None or made >= steps else made
    return dict(distinguishing(settings))


def _noise(config: Config, metrics: Metrics) -> str:
    if metrics["noise"] is None and config.noise.labels is None:
        return UNKNOWN
    if config.noise.labels is None and not metrics["noise"]:
        return CLEAN
    return json.dumps(to_plain(config)["noise"])


def headings(runs: Sequence[Evaluated]) -> dict[str, str]:
    """Name every noise; those of one name by every setting in which they differ besides.

    Labels that lie in several files have the name of the first one. What one file held at several
    times is told apart by its digest.
    """
    alike: dict[str, dict[str, dict[str, Any]]] = {}
    first = {run.noise: run for run in reversed(runs)}.values()
    files = Counter(run.config.noise.labels for run in first)
    for run in first:
        name = run.noise if run.noise in AS_THEY_ARE else _noise_name(run.config.noise)
        noise = {} if run.noise in AS_THEY_ARE else json.loads(run.noise)
        if (file := run.config.noise.labels) is not None:
            noise["labels"] = file if files[file] == 1 else f"{file} {noise['labels']}"
        alike.setdefault(name, {})[run.noise] = noise
    found = {}
    for name, noises in alike.items():
        for key, mine in noises.items():
            differs = (k for k in mine if any(other[k] != mine[k] for other in noises.values()))
            found[key] = " ".join([name, *(_shown(k, mine[k]) for k in differs)])
    return found


def _noise_name(noise: NoiseConfig) -> str:
    if noise.labels is not None:
        return f"labels of {Path(noise.labels).name} {noise.labels_key or ''}".strip()
    if noise.matrix is not None:
        return f"matrix {Path(noise.matrix).name}"
    return f"{noise.type} {noise.rate:g}"


def _shown(setting: str, value: Any) -> str:  # noqa: ANN401 whatever a setting holds
    return f"{setting}={value if isinstance(value, str) else json.dumps(value)}"


def _short(key: str, value: Any) -> Any:  # noqa: ANN401 whatever a setting holds
    if key == "evaluator" and value:
        return value[:_DIGITS]
    return Path(value).name if key in _FILES and value else value


def method_names(runs: Sequence[Evaluated]) -> list[str]:
    """Name methods by objective or curriculum, and every setting in which runs differ besides."""
    named = ("objective.name", "curriculum.name", "curriculum.treatment")
    names = []
    for run in runs:
        curriculum, objective = run.config.curriculum, run.config.objective
        parts: list[str] = [curriculum.name if objective.name == "plain" else objective.name]
        parts += [] if curriculum.treatment is None else [curriculum.treatment]
        for key, value in run.settings.items():
            section, _, setting = key.rpartition(".")
            if section == "noise" or key in named:
                continue
            # Settings of one objective or curriculum say nothing about another.
            own = f"{section}.name"
            others = [
                other.settings
                for other in runs
                if key in other.settings
                and (own not in run.settings or other.settings[own] == run.settings[own])
            ]
            if any(other[key] != value for other in others):
                parts.append(_shown(key if section == "sample" else setting, _short(key, value)))
        names.append(" ".join(parts))
    return names
