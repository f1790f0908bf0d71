"""A new run's folder: its name, whether it is free, how it is made."""

import datetime
import itertools
from contextlib import suppress
from pathlib import Path

from corruptions import NoisyLabels
from robustdiff.config.sections import Config
from robustdiff.data.listing import is_begun
from robustdiff.errors import TakenError
from robustdiff.files.atomic import check_folder, named
from robustdiff.runs.folder import DEFAULT_ROOT, Run, is_run


def default_path(config: Config) -> Path:
    """Return runs/<what and when> for a new run, in the working directory."""
    noise = f"{config.noise.type}{config.noise.rate:g}" if config.noise.rate else "clean"
    if config.noise.labels is not None or config.noise.type == "matrix":
        noise = "labels" if config.noise.labels is not None else "matrix"
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    parts = (now, config.data.dataset, noise, config.curriculum.name, f"s{config.seed}")
    return DEFAULT_ROOT / "-".join(parts)


def check_place(path: Path | None, *, trained: bool = True) -> None:
    """Refuse a folder that no run can be made in, before any work.

    Args:
        path: The folder; None for a new one under runs/.
        trained: Whether a model will be trained there.

    Raises:
        TakenError: If the folder exists and holds anything else.
        ValueError: If the name is not UTF-8, which TensorBoard and safetensors could not write to,
            or there can be no such folder.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise ValueError(f"the folder of a run must have a UTF-8 name, got {shown}") from None
    if path is None:
        return
    check_folder(path)
    if path.exists() and not _is_free(path):
        raise _taken(path, trained=trained)


def create_run(
    path: Path | None, config: Config, labels: NoisyLabels, *, trained: bool = True
) -> Run:
    """Make a run's folder with its configuration and labels.

    Args:
        path: The folder: missing, empty, or left by a process killed in this function; None for a
            new one under runs/.
        config: The run's configuration.
        labels: Its labels.
        trained: Whether a model will be trained there.

    Raises:
        TakenError: If the folder exists and holds anything else.
        ValueError: If there can be no such folder.
        LockedError: If another process is about to train in it.
    """
    run = _new_folder(default_path(config)) if path is None else Run(path)
    if path is not None:
        check_place(path, trained=trained)
        path.mkdir(parents=True, exist_ok=True)
    with run.locked():
        # Again under the lock: another process may have made a run here since the first check.
        if not _is_free(run.path):
            raise _taken(run.path, trained=trained)
        if trained:
            run.samples.mkdir(exist_ok=True)
            run.tensorboard.mkdir(exist_ok=True)
        with named(run.labels_file):
            labels.save(run.labels_file)
        # Last, because a folder with config.json counts as a run.
        run.save_config(config)
    return run


def _is_free(path: Path) -> bool:
    """Return whether a folder holds nothing but what `create_run` writes before config.json."""
    names = {entry.name for entry in path.iterdir()}
    return not names or (is_begun(names) and not any(path.glob("*/*")))


def _taken(path: Path, *, trained: bool) -> TakenError:
    more = f", or continue it with --resume {path}" if trained and is_run(path) else ""
    return TakenError(f"{path} already exists; choose another --out{more}")


def _new_folder(path: Path) -> Run:
    """Make a folder of this name; a number follows it if another run started in that second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        free = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with suppress(FileExistsError):
            free.mkdir()
            return Run(free)
    raise AssertionError("unreachable")
