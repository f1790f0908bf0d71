"""Run folders: where each file lies, how one is made, found and read back."""

import datetime
import fcntl
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from corruptions import NoisyLabels
from curricula import Trust
from robustdiff.config.layers import read_layer, resolve, to_plain
from robustdiff.config.sections import Config
from robustdiff.data.arrays import images_digest
from robustdiff.errors import DamagedError, LockedError, TakenError
from robustdiff.files.atomic import forget_temporaries, named, write_atomic, write_text
from robustdiff.files.weights import load_weights, save_weights
from robustdiff.metrics.detection import detection
from robustdiff.parallel import started_by_torchrun

DEFAULT_ROOT = Path("runs")
# Fields of Trust that scores.npz holds where the score knows the classes.
_CLASS_PARTS = ("classes", "image_classes", "transition")
# What training alone writes, under its lock.
_OF_TRAINING = (
    "config.json",
    "labels.npz",
    "images.sha256",
    "scores.npz",
    "model.safetensors",
    "metrics.jsonl",
)


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration; a folder with this file is a run."""
        return self.path / "config.json"

    @property
    def labels_file(self) -> Path:
        """Clean and given labels, flipped mask, matrix, seed, rate."""
        return self.path / "labels.npz"

    @property
    def scores_file(self) -> Path:
        """Newest per-sample scores."""
        return self.path / "scores.npz"

    @property
    def weights_file(self) -> Path:
        """Averaged weights."""
        return self.path / "model.safetensors"

    @property
    def history_file(self) -> Path:
        """One JSON object per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def metrics_file(self) -> Path:
        """Result of the newest evaluation."""
        return self.path / "metrics.json"

    @property
    def images_file(self) -> Path:
        """Digest of the training images."""
        return self.path / "images.sha256"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Folder of generated images."""
        return self.path / "samples"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard events."""
        return self.path / "tb"

    def config(self) -> Config:
        """Read the configuration.

        Raises:
            DamagedError: If config.json is missing or invalid.
        """
        try:
            return resolve(read_layer(self.config_file))
        except ValueError as error:
            raise DamagedError(f"configuration of run {self.path}: {error}") from error

    def labels(self) -> NoisyLabels:
        """Read the labels.

        Raises:
            DamagedError: If labels.npz is missing or damaged.
        """
        try:
            return NoisyLabels.load(self.labels_file)
        except (ValueError, OSError) as error:
            raise DamagedError(f"labels of run {self.path}: {error}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training this run meanwhile; ends with the process, too.

        What a killed process has left half-written is removed.

        Raises:
            LockedError: If another process trains it.
        """
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError(f"run {self.path} is being trained by another process") from None
            for name in _OF_TRAINING:
                forget_temporaries(self.path, name)
            forget_temporaries(self.checkpoints, "step-*")
            yield

    def check_images(self, images: Tensor) -> None:
        """Refuse other training images than before; remember them if there are none yet.

        Args:
            images: (N, C, H, W) uint8.

        Raises:
            ValueError: If they differ from those that the run was trained on so far.
        """
        found = images_digest(images)
        if not self.images_file.exists():
            write_text(self.images_file, f"{found}\n")
        elif self.images_file.read_text(errors="replace").strip() != found:
            raise ValueError(
                f"the training images are not those that run {self.path} began with; give it "
                f"those by --data-dir (or, to go on with these, remove {self.images_file})"
            )

    def save_config(self, config: Config) -> None:
        """Write config.json atomically."""
        write_text(self.config_file, json.dumps(to_plain(config), indent=2) + "\n")

    def load_weights(self, network: nn.Module) -> None:
        """Load the averaged weights into a network of the run's architecture.

        Raises:
            DamagedError: If they are missing, damaged, or of another architecture.
        """
        path = self.weights_file
        if not path.exists():
            raise DamagedError(f"run {self.path} has no {path.name} yet; let it train further")
        load_weights(path, network)

    def save_weights(self, network: nn.Module) -> None:
        """Write the averaged weights atomically."""
        save_weights(self.weights_file, network)

    def save_scores(
        self, scores: NDArray[np.floating], trust: Trust, label_used: NDArray[np.bool_]
    ) -> None:
        """Write per-sample scores, what follows from them, and whether training used the label."""
        content = {
            "index": np.arange(len(scores)),
            "score": scores,
            "label_quality": label_quality(scores),
            "label_right": trust.right,
            "estimated_noise": np.float64(trust.noise),
            "label_used": label_used,
        }
        for name in _CLASS_PARTS:
            value = getattr(trust, name)
            if value is not None:
                content[name] = value.astype(np.float32)
        write_atomic(self.scores_file, lambda file: np.savez(file, **content))  # type: ignore[arg-type]

    def scores(self) -> NDArray[np.floating] | None:
        """Read the newest scores, (N,) floats; None if the run made none."""
        content = self._stored_scores()
        return None if content is None else content["score"]

    def trust(self) -> Trust | None:
        """Read what the newest scores say about the labels; None if the run made none."""
        content = self._stored_scores()
        if content is None:
            return None
        known = {name: content[name] for name in _CLASS_PARTS if name in content}
        return Trust(content["label_right"], float(content["estimated_noise"]), **known)

    def _stored_scores(self) -> dict[str, Any] | None:
        """Read scores.npz; its zip archive has a checksum for every array.

        Raises:
            DamagedError: If it is damaged or something else.
        """
        path = self.scores_file
        if not path.exists():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                content = dict(archive)
                one = content["score"].shape
                if len(one) != 1 or content["label_right"].shape != one:
                    raise ValueError("not one score a sample")
                float(content["estimated_noise"])
        except Exception as error:  # damaged archives fail in many ways
            raise DamagedError(f"scores of run {self.path}: {path.name} is damaged") from error
        return content

    def history(self) -> list[dict[str, Any]]:
        """Return what was logged; half a line, from a process killed while writing, is left out.

        Raises:
            DamagedError: If metrics.jsonl is something else than a file.
        """
        if not self.history_file.exists():
            return []
        if not self.history_file.is_file():  # a pipe would be waited for
            raise DamagedError(f"log of run {self.path}: {self.history_file.name} is not a file")
        entries = []
        for line in self.history_file.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                entries.append(json.loads(line))
        return [entry for entry in entries if isinstance(entry, dict) and "step" in entry]

    def seconds(self, batch_size: int) -> tuple[float, float, float]:
        """Return the time of all training steps, of all scoring rounds, and of the preparation."""
        entries = self.history()
        before, training = 0, 0.0
        for entry in entries:
            if "images_per_second" in entry:
                training += (entry["step"] - before) * batch_size / entry["images_per_second"]
                before = entry["step"]
        scoring = sum(entry.get("scoring_seconds", 0.0) for entry in entries)
        return training, scoring, sum(entry.get("preparing_seconds", 0.0) for entry in entries)

    def detection(self, labels: NoisyLabels) -> dict[str, float] | None:
        """Compare the newest scores with the labels' truth; None if there is nothing to tell."""
        scores = self.scores()
        return None if scores is None else detect(scores, labels)


def detect(scores: NDArray[np.floating], labels: NoisyLabels) -> dict[str, float] | None:
    """Return how well scores, (N,) high = trusted, find the wrong labels; see `detection`."""
    return detection(torch.from_numpy(scores), torch.from_numpy(labels.flipped))


def label_quality(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the rank of each score divided by N, (N,) in (0, 1]; lower is more suspect."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks / len(scores)


def default_path(config: Config) -> Path:
    """Return runs/<what and when> for a new run, in the working directory."""
    noise = f"{config.noise.type}{config.noise.rate:g}" if config.noise.rate else "clean"
    if config.noise.labels is not None or config.noise.type == "matrix":
        noise = "labels" if config.noise.labels is not None else "matrix"
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    parts = (now, config.data.dataset, noise, config.curriculum.name, f"s{config.seed}")
    return DEFAULT_ROOT / "-".join(parts)


def restarted_run(path: Path, config: Config) -> Run | None:
    """Return the run that torchrun's restart should go on with, None if this is a first start.

    torchrun repeats the command of a first start, with the same --out.
    """
    run = Run(path)
    if not started_by_torchrun() or not run.config_file.exists() or run.config() != config:
        return None
    return run


def create_run(path: Path | None, config: Config, labels: NoisyLabels) -> Run:
    """Make a run's folder with its configuration and labels.

    Args:
        path: The folder, missing, empty, or left by a process killed in this function; None for a
            new one under runs/.
        config: The run's configuration.
        labels: Its labels.

    Raises:
        TakenError: If the folder exists and holds anything else.
        LockedError: If another process is about to train in it.
    """
    run = _new_folder(default_path(config)) if path is None else Run(path)
    if path is not None:
        if path.exists() and not _is_free(path):
            raise _taken(path)
        path.mkdir(parents=True, exist_ok=True)
    with run.locked():
        # Once more: of two processes that want the same folder, the other may be done.
        if not _is_free(run.path):
            raise _taken(run.path)
        run.samples.mkdir(exist_ok=True)
        run.tensorboard.mkdir(exist_ok=True)
        with named(run.labels_file):
            labels.save(run.labels_file)
        # Last, because a folder with a configuration counts as a run.
        run.save_config(config)
    return run


def _is_free(path: Path) -> bool:
    """Return whether a folder holds nothing but what comes before a run's configuration."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir() if entry.suffix != ".tmp"}
    begun = names <= {".lock", "samples", "tb", "labels.npz"} and ".lock" in names
    return not any(path.iterdir()) or (begun and not any(path.glob("*/*")))


def _taken(path: Path) -> TakenError:
    return TakenError(
        f"{path} already exists; choose another --out, or continue it with --resume {path}"
    )


def _new_folder(path: Path) -> Run:
    """Make a folder of this name, or with a number after it: runs may start in the same second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        free = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with suppress(FileExistsError):
            free.mkdir()
            return Run(free)
    raise AssertionError("unreachable")


def open_run(path: Path | None) -> Run:
    """Return an existing run.

    Args:
        path: Its folder; None, or the name "latest", for the newest run under runs/.

    Raises:
        ValueError: If there is none.
    """
    if path is None or path == Path("latest"):
        found = list(DEFAULT_ROOT.glob("*/config.json"))
        if not found:
            raise ValueError(
                f"there is no run under {DEFAULT_ROOT.resolve()}; make one with: robustdiff train"
            )
        return Run(max(found, key=lambda file: (file.stat().st_mtime_ns, file)).parent)
    run = Run(path)
    if not run.config_file.exists():
        raise ValueError(f"{path} is not a run: it has no {run.config_file.name}")
    return run
