"""Run folders: where each file lies, the lock, how a folder is found."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor, nn

from corruptions import NoisyLabels
from corruptions.labels import given_digest
from robustdiff.config.layers import read_layer, resolve, to_plain
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images, Subject, images_digest
from robustdiff.errors import DamagedError, LockedError
from robustdiff.files.atomic import forget_temporaries, write_text
from robustdiff.files.weights import load_weights, save_weights
from robustdiff.runs.subject import read_facts, subject_in

DEFAULT_ROOT = Path("runs")
# What the names of tensors begin with in a published model.
PUBLISHED_PREFIX = "network."
# Files that only training writes, under the run's lock.
_OF_TRAINING = (
    "config.json",
    "labels.npz",
    "images.sha256",
    "subject.json",
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
        """Newest score of each sample, see `robustdiff.runs.scores`."""
        return self.path / "scores.npz"

    @property
    def judged_file(self) -> Path:
        """What an audit found that judged the labels anew, in the form of scores.npz."""
        return self.path / "judged.npz"

    @property
    def weights_file(self) -> Path:
        """Averaged weights."""
        return self.path / "model.safetensors"

    @property
    def history_file(self) -> Path:
        """What training logged, see `robustdiff.runs.history`."""
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
    def subject_file(self) -> Path:
        """What the run's model makes images of."""
        return self.path / "subject.json"

    @property
    def decisions_file(self) -> Path:
        """What a person decided about the labels, see `robustdiff.review.decisions`."""
        return self.path / "decisions.sqlite"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def unfinished(self) -> Path:
        """Folder of what an interrupted judge of labels has done."""
        return self.path / "unfinished"

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

    def given_digest(self) -> str | None:
        """Return the digest of the given labels, see there; None if labels.npz is gone.

        Raises:
            DamagedError: If it is damaged.
        """
        if not self.labels_file.exists():
            return None
        try:
            return given_digest(self.labels_file)
        except (ValueError, OSError) as error:
            raise DamagedError(f"labels of run {self.path}: {error}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing this run inside the block; a killed process unlocks.

        Temporary files that a killed process has left are removed.

        Raises:
            LockedError: If another process trains, audits or corrects it.
        """
        try:
            held = FileLock(self.path / ".lock").acquire(blocking=False)
        except Timeout:
            raise LockedError(f"run {self.path} is in use by another process") from None
        with held:
            for name in _OF_TRAINING:
                forget_temporaries(self.path, name)
            for name in ("step-*", "scores-*"):
                forget_temporaries(self.checkpoints, name)
            yield

    def check_images(self, images: Tensor, *, remember: bool = True) -> None:
        """Refuse other training images than those of the start; at the start, record them.

        Args:
            images: (N, C, H, W) uint8.
            remember: Whether to record them if the run has no record.

        Raises:
            ValueError: If they differ from those that the run was trained on so far.
        """
        found = images_digest(images)
        if not self.images_file.exists():
            if remember:
                write_text(self.images_file, f"{found}\n")
        elif self.images_file.read_text(encoding="utf-8", errors="replace").strip() != found:
            raise ValueError(
                f"the training images are not those that run {self.path} began with; give it "
                f"those by --data-dir (or, to go on with these, remove {self.images_file})"
            )

    def subject(self) -> Subject | None:
        """Return what the run's model makes images of; None where nothing recorded that.

        Raises:
            DamagedError: If the record is damaged.
        """
        if not self.subject_file.exists():
            return None
        facts = read_facts(self.subject_file)
        return subject_in(facts, str(facts.get("name", "the dataset")))

    def save_subject(self, images: Images | Subject) -> None:
        """Record what the run's model makes images of."""
        facts = {name: getattr(images, name) for name in ("name", "image_shape", "class_names")}
        write_text(self.subject_file, json.dumps(facts) + "\n")

    def save_config(self, config: Config) -> None:
        """Write config.json atomically."""
        write_text(self.config_file, json.dumps(to_plain(config), indent=2) + "\n")

    def check_trained(self) -> None:
        """Refuse a run without a model.

        Raises:
            ValueError: If it is an audit.
            DamagedError: If it has saved none yet.
        """
        if not (path := self.weights_file).exists():
            if self.config().data.whole:
                raise ValueError(f"{self.path} is an audit, which has no model; train one first")
            raise DamagedError(f"run {self.path} has no {path.name} yet; let it train further")

    def load_weights(self, network: nn.Module) -> None:
        """Load the averaged weights into a network of the run's architecture.

        Raises:
            DamagedError: If they are damaged or of another architecture; see `check_trained`.
        """
        self.check_trained()
        load_weights(self.weights_file, network)

    def save_weights(self, network: nn.Module) -> None:
        """Write the averaged weights atomically."""
        save_weights(self.weights_file, network)


@dataclass(frozen=True)
class PublishedRun(Run):
    """A model that `robustdiff export` wrote, read as a run.

    It has weights, a configuration and the names of its classes. Labels, scores and checkpoints
    stayed with the run that it was made of.
    """

    @property
    def config_file(self) -> Path:
        """What robustdiff must know of the model; a folder with this file is one."""
        return self.path / "robustdiff.json"

    @property
    def weights_file(self) -> Path:
        """Averaged weights, under the names that diffusers loads."""
        return self.path / "unet" / "diffusion_pytorch_model.safetensors"

    def facts(self) -> dict[str, Any]:
        """Read the file.

        Raises:
            DamagedError: If it is damaged.
        """
        facts = read_facts(self.config_file)
        if not isinstance(facts.get("config"), dict):
            raise DamagedError(f"{self.config_file} is damaged: no configuration")
        return facts

    def config(self) -> Config:
        """Read the configuration; paths of the machine that trained are not in it.

        Raises:
            DamagedError: If it is damaged.
        """
        try:
            return resolve(self.facts()["config"])
        except ValueError as error:
            raise DamagedError(f"configuration of {self.path}: {error}") from error

    def subject(self) -> Subject:
        """Return what the model makes images of."""
        return subject_in(self.facts(), self.config().data.dataset)

    def labels(self) -> NoisyLabels:
        """Refuse: the labels stayed with the run.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"{self.path} is a published model, which robustdiff can sample, evaluate and load; "
            "for what needs the labels that it was trained on, name its run"
        )

    def load_weights(self, network: nn.Module) -> None:
        """Load the averaged weights into a network of the model's architecture.

        Raises:
            DamagedError: If they are missing, damaged, or of another architecture.
        """
        load_weights(self.weights_file, network, prefix=PUBLISHED_PREFIX)


def is_run(path: Path) -> bool:
    """Return whether a folder is a run or a published model."""
    return Run(path).config_file.exists() or PublishedRun(path).config_file.exists()


def open_run(path: Path | None) -> Run:
    """Return an existing run, or a published model read as one.

    Args:
        path: Its folder; None or "latest" for the newest run under runs/.

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
    run, published = Run(path), PublishedRun(path)
    if not run.config_file.exists() and published.config_file.exists():
        return published
    if not run.config_file.exists():
        raise ValueError(f"{path} is not a run: it has no {run.config_file.name}")
    return run
