"""The dataset of a run, loaded again: checked against what it was trained on, and joined to it.

A run's labels name their classes and, for images of one's own, the name and digest of each. Their
source may have grown, shrunk or changed since; a dataset without names must be the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from corruptions import NoisyLabels
from robustdiff.config.images import DataConfig, dataset_in_words
from robustdiff.config.sections import Config, NoiseConfig
from robustdiff.data.arrays import Images
from robustdiff.data.registry import load_images
from robustdiff.data.rows import check_same_names
from robustdiff.data.sources import SOURCES
from robustdiff.data.stored import chosen, joined
from robustdiff.labels.given import add_noise, prepare_labels, samples_of
from robustdiff.progress import Report
from robustdiff.runs.folder import PublishedRun, Run

_SHOWN = 3


class RunData(NamedTuple):
    """The dataset of a run.

    Attributes:
        images: Its images; the training part is what the run was trained on, as far as it is there.
        labels: The labels of that part.
        rows: (N,) int64, which of the run's samples these are; all of them, as a rule.
    """

    images: Images
    labels: NoisyLabels
    rows: NDArray[np.int64]


def load_run_data(
    run: Run,
    config: Config,
    report: Report,
    *,
    labels: NoisyLabels | None = None,
    whole: bool = False,
    published: bool = False,
) -> RunData:
    """Load the dataset of a run and join it to the run's labels.

    Args:
        run: The run.
        config: Its configuration; the data section may differ from the stored one.
        report: Receives progress, and what differs.
        labels: The run's labels, where they have been read.
        whole: Whether every image of the run is needed, as for training.
        published: Whether a published model will do, whose labels are taken as published; its own
            stayed with its run.

    Returns:
        The dataset. Images that were added to a folder are left out.

    Raises:
        ValueError: If it is another dataset, its classes are others, or images are missing or have
            changed that are needed.
        DamagedError: If the run's labels are missing or damaged.
    """
    if published and isinstance(run, PublishedRun):
        return _of_published(run, config, report)
    labels = run.labels() if labels is None else labels
    _check_place(run, config.data)
    # Which part of named images is kept depends on all of them; the run's labels know theirs.
    data = config.data if labels.paths is None else replace(config.data, train_size=None)
    images = load_images(_with_names(data, labels), report)
    if labels.kept is not None and max(labels.kept, default=0) < len(images.train):
        images = images.part(torch.tensor(labels.kept))
    _check_classes(run, config, images, labels)
    if labels.paths is not None and images.paths is not None:
        return _joined(run, config, images, labels, report, whole=whole)
    if len(labels.given) != len(images.train):
        raise ValueError(
            f"run {run.path} was trained on {len(labels.given)} images, but {config.data.dataset} "
            f"in {config.data.data_dir} has {len(images.train)}; give it those by --data-dir"
        )
    if not whole:  # training checks and remembers them under its lock
        run.check_images(images.train, remember=False)
    return RunData(images, labels, np.arange(len(labels.given)))


def check_same_labels(run: Run, config: Config) -> None:
    """Refuse a source whose labels are no longer those of a run: its names may be the same.

    Raises:
        ValueError: If they are others, or cannot be read.
    """
    labels = run.labels()
    images = load_images(_with_names(config.data, labels), Report())
    if labels.paths is None or not {*labels.paths} <= {*(images.paths or ())}:
        return
    now = prepare_labels(config, images, Report())
    found = dict(zip(now.paths or (), now.given.tolist(), strict=True))
    known = zip(labels.paths, labels.given.tolist(), strict=True)
    changed = [path for path, label in known if found.get(path, label) != label]
    if changed:
        raise ValueError(
            f"{len(changed)} labels of {config.data.data_dir} are others than when {run.path} was "
            f"made: {_listed(changed)}; choose another --out"
        )


def _of_published(run: PublishedRun, config: Config, report: Report) -> RunData:
    """Load a dataset like that of a published model, with its labels as published."""
    data = config.data
    unnamed = data.data_dir == DataConfig().data_dir and not Path(data.data_dir).exists()
    if unnamed and data.dataset in (*SOURCES, "arrays"):
        raise ValueError(
            f"{run.path} does not say where its images are, {dataset_in_words(data.dataset)}; "
            "give it its own dataset by --data-dir"
        )
    subject, images = run.subject(), load_images(data, report)
    for what, mine, its in (
        ("classes", subject.class_names, images.class_names),
        ("image shape", subject.image_shape, images.image_shape),
    ):
        if mine != its:
            raise ValueError(
                f"{run.path} makes images with the {what} {list(mine)}, but {config.data.dataset} "
                f"in {config.data.data_dir} has {list(its)}; give it its own dataset by --data-dir"
            )
    labels = add_noise(NoiseConfig(), samples_of(images), features=None, seed=config.seed)
    return RunData(images, labels, np.arange(len(labels.given)))


def _check_place(run: Run, config: DataConfig) -> None:
    """Refuse a source of one's own that is no longer where its run looks for it."""
    place = Path(config.data_dir).expanduser()
    if config.dataset in SOURCES and not place.exists():
        raise ValueError(
            f"{run.path} is of {dataset_in_words(config.dataset)}, but there is no "
            f"file or folder {place.absolute()}; say where it is by --data-dir"
        )


def _with_names(config: DataConfig, labels: NoisyLabels) -> DataConfig:
    """Return settings with the classes of a run's labels where the file that named them is gone."""
    text, names = config.class_names or "", labels.class_names or ()
    is_gone = text.endswith(".txt") and not Path(text).expanduser().exists()
    if not is_gone or not names or any("," in name for name in names):
        return config
    return replace(config, class_names=",".join(names))


def _check_classes(run: Run, config: Config, images: Images, labels: NoisyLabels) -> None:
    trained, count = labels.class_names, len(labels.nominal)
    if count == images.num_classes and trained in (None, images.class_names):
        return
    gone = [name for name in trained or () if name not in images.class_names]
    new = [name for name in images.class_names if name not in (trained or ())]
    if trained is not None and not gone and not new:
        check_same_names(trained, f"run {run.path}", images.class_names, config.data.data_dir)
    raise ValueError(
        f"the classes are not those of run {run.path}: it has {count}, "
        f"{config.data.data_dir} has {images.num_classes}; gone: {_listed(gone)}; "
        f"new: {_listed(new)}; give it its own dataset by --data-dir"
    )


def _joined(
    run: Run, config: Config, images: Images, labels: NoisyLabels, report: Report, *, whole: bool
) -> RunData:
    """Join a folder's images, wherever its split puts them now, to a run's by file and digest."""
    assert labels.paths is not None
    assert images.paths is not None
    assert images.digests is not None
    held = images.test_paths or ()
    place = {path: i for i, path in enumerate((*images.paths, *held))}
    digest = dict(zip(place, (*images.digests, *(images.test_digests or ())), strict=True))
    digests = labels.digests or (None,) * len(labels.paths)
    known = dict(zip(labels.paths, digests, strict=True))
    missing = [path for path in labels.paths if path not in place]
    changed = [p for p, d in known.items() if d is not None and digest.get(p, d) != d]
    part = config.data.train_size is not None
    added = [] if part else [path for path in images.paths if path not in known]
    for what, paths, needed in (
        ("are gone", missing, whole),
        ("have changed", changed, whole),
        ("are not among those trained on, and are left out", added, False),
    ):
        if paths:
            said = f"{len(paths)} images of {config.data.data_dir} {what}: {_listed(paths)}"
            if needed:
                raise ValueError(f"{said}; run {run.path} cannot go on without them as they were")
            report.message(said)
    lost = {*missing, *changed}
    rows = np.array([i for i, path in enumerate(labels.paths) if path not in lost], dtype=np.int64)
    if len(rows) == 0:
        raise ValueError(
            f"{config.data.data_dir} holds no image that run {run.path} was trained on"
        )
    places = [place[labels.paths[i]] for i in rows]
    if config.noise.labels is None and labels.decided_by is None and not config.data.whole:
        now = torch.cat([images.train_labels, images.test_labels])[places].numpy()
        other = [labels.paths[i] for i in rows[now != labels.clean[rows]]]
        if other:
            report.message(
                f"{len(other)} labels of {config.data.data_dir} are others than when run "
                f"{run.path} was made: {_listed(other)}; its own are used"
            )
    return RunData(_taken(images, places, known), labels.at(rows), rows)


def _taken(images: Images, places: Sequence[int], known: dict[str, str | None]) -> Images:
    """Return images whose training part is given by places in both parts together."""
    assert images.paths is not None
    held = images.test_paths or ()
    where = torch.tensor(places)
    if len(places) == len(images.paths) and torch.equal(where, torch.arange(len(places))):
        return images
    kept = torch.tensor([i for i, path in enumerate(held) if path not in known], dtype=torch.int64)
    pooled = replace(
        images,
        train=joined(images.train, images.test),
        train_labels=torch.cat([images.train_labels, images.test_labels]),
        paths=(*images.paths, *held),
        digests=(*(images.digests or ()), *(images.test_digests or ())),
    )
    return replace(
        pooled.part(where),
        test=chosen(images.test, kept),
        test_labels=images.test_labels[kept],
        test_paths=tuple(held[i] for i in kept.tolist()),
        test_digests=tuple((images.test_digests or ())[i] for i in kept.tolist()),
    )


def _listed(names: Sequence[str | None]) -> str:
    shown = ", ".join(str(name) for name in names[:_SHOWN])
    return (shown or "none") + (", ..." if len(names) > _SHOWN else "")
