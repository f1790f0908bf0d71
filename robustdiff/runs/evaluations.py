"""The evaluations of a run: the newest is metrics.json, those of other settings lie beside it.

Evaluations differ by the settings of sampling and measuring, the seed of the
images, the evaluator, and the weights. A new one replaces its like, and all of other weights.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from robustdiff.config.layers import flat, to_plain
from robustdiff.config.roles import role_of
from robustdiff.config.sections import Config
from robustdiff.files.atomic import sha256, write_text
from robustdiff.runs.folder import Run, open_run
from robustdiff.runs.scores import estimated_transition, transition_digest

Metrics = dict[str, Any]

_FOLDER = "evaluations"
# Entry of metrics.json before it held the sections as used -> the setting that it stands for.
_EARLIER = {
    "features": "eval.features",
    "guidance": "sample.guidance",
    "guidance_weight": "sample.guidance_weight",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
}
_SHORT = 12


class Evaluation(NamedTuple):
    """One evaluation of a run.

    Attributes:
        path: Its file.
        metrics: The file's content; nothing has been checked.
    """

    path: Path
    metrics: Metrics


def settings_used(metrics: Metrics, config: Config) -> dict[str, Any]:
    """Return the settings of an evaluation that decide its figures, dotted key -> value.

    Args:
        metrics: Content of metrics.json.
        config: The run's configuration: an evaluation by an earlier version wrote down some of its
            settings only, the others are taken from here.

    Returns:
        Entries of role "evaluation"; `eval.num_samples` is the number that was generated, and
        `sample.weak` has the digest of its weights behind an "@".
    """
    settings = flat(to_plain(config))
    settings |= {key: metrics[name] for name, key in _EARLIER.items() if name in metrics}
    settings |= flat({name: metrics[name] for name in ("sample", "eval") if name in metrics})
    settings["eval.num_samples"] = metrics.get("num_samples") or settings["eval.num_samples"]
    if metrics.get("weak_sha256"):
        settings["sample.weak"] += f"@{metrics['weak_sha256'][:_SHORT]}"
    return {key: value for key, value in settings.items() if role_of(key) == "evaluation"}


def digests_used(run: Run, config: Config) -> dict[str, str | None]:
    """Return the digests of what an evaluation generates with, as metrics.json holds them."""
    sample = config.sample
    transition = estimated_transition(run) if sample.undo_label_noise else None
    return {
        "weights_sha256": _digest(run),
        "weak_sha256": None if sample.weak is None else _digest(open_run(Path(sample.weak))),
        "transition_sha256": None if transition is None else transition_digest(transition),
    }


def save_evaluation(run: Run, metrics: Metrics) -> None:
    """Write metrics.json; what was there is kept in the folder of evaluations first.

    Args:
        run: The run.
        metrics: With `sample`, `eval`, `evaluation_seed`, `evaluator_sha256` and `weights_sha256`.
    """
    newest, folder = run.metrics_file, run.path / _FOLDER
    # Of two at once, the later must see the earlier.
    with FileLock(run.path / ".evaluations.lock"):
        with suppress(ValueError):  # a damaged one has nothing to keep
            old = _read(newest).metrics
            if _is_beside(old, metrics):
                folder.mkdir(exist_ok=True)
                write_text(folder / f"{_identity(old)}.json", newest.read_text(encoding="utf-8"))
        write_text(newest, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        for other in _others(run):
            if not _is_beside(other.metrics, metrics):
                other.path.unlink(missing_ok=True)


def _is_beside(old: Metrics, new: Metrics) -> bool:
    """Return whether both are of the same weights, under different settings."""
    return old.get("weights_sha256") == new["weights_sha256"] and _identity(old) != _identity(new)


def evaluations(run: Run) -> list[Evaluation]:
    """Return a run's evaluations, the newest last; [] if there is none.

    Raises:
        ValueError: If a file is not a JSON object.
    """
    if not run.metrics_file.exists():
        return []
    newest = _read(run.metrics_file)
    mine = _identity(newest.metrics)
    return [*(old for old in _others(run) if _identity(old.metrics) != mine), newest]


def forget_evaluations(run: Run) -> None:
    """Remove all evaluations of a run."""
    for path in [*(run.path / _FOLDER).glob("*.json"), run.metrics_file]:
        path.unlink(missing_ok=True)


def has_evaluation(run: Run, config: Config) -> bool:
    """Return whether a run's present weights have been evaluated as a configuration says.

    Args:
        run: The run.
        config: For its sections `sample` and `eval`, and for the seed of the images.

    Raises:
        ValueError: If a file is not a JSON object.
    """
    found = evaluations(run)
    if not found:
        return False
    digests, stored = digests_used(run, config), run.config()
    return any(_fits(one.metrics, stored, config, digests) for one in found)


def _fits(
    metrics: Metrics, stored: Config, config: Config, digests: Mapping[str, str | None]
) -> bool:
    """Return whether an evaluation of a run, whose configuration is stored, is as one says."""
    # Earlier versions wrote down neither the weights nor the seed of the images.
    wanted: Metrics = {"num_samples": config.eval.num_samples or metrics.get("num_samples")}
    if "weak_sha256" in metrics:
        wanted["weak_sha256"] = digests["weak_sha256"]
    return (
        metrics.get("weights_sha256", digests["weights_sha256"]) == digests["weights_sha256"]
        and metrics.get("transition_sha256") == digests["transition_sha256"]
        and metrics.get("evaluation_seed", config.seed) == config.seed
        and (metrics.get("cas") is not None or not config.eval.cas)
        and settings_used(metrics, stored) == settings_used(wanted, config)
    )


def _digest(run: Run) -> str | None:
    return sha256(run.weights_file) if run.weights_file.exists() else None


def _others(run: Run) -> list[Evaluation]:
    paths = (run.path / _FOLDER).glob("*.json")
    return [_read(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]


def _read(path: Path) -> Evaluation:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not isinstance(metrics, dict):
        raise ValueError(f"{path} does not hold an evaluation's figures")
    return Evaluation(path, metrics)


def _identity(metrics: Metrics) -> str:
    parts = ("sample", "eval", "num_samples", "evaluation_seed", "evaluator_sha256", "weak_sha256")
    known = {name: metrics.get(name) for name in parts}
    if isinstance(known["eval"], dict):  # with a score besides it is the same evaluation
        known["eval"] = {key: value for key, value in known["eval"].items() if key != "cas"}
    if isinstance(known["sample"], dict):  # earlier evaluations do not say so
        plain = [("guidance_every", 1), ("undo_label_noise", False)]
        known["sample"] = {k: v for k, v in known["sample"].items() if (k, v) not in plain}
    text = json.dumps(list(known.values()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]
