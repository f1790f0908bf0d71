"""`robustdiff correct`: corrected labels leave a run, as files, folders or moved images."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from curricula import CURRICULA
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images
from robustdiff.data.sources import SOURCES, files_in
from robustdiff.exports.label_studio import interface_of, write_tasks
from robustdiff.exports.moving import (
    Journal,
    apply_moves,
    is_made,
    plan_moves,
    read_journal,
    undo_moves,
    write_journal,
)
from robustdiff.exports.places import places, places_by_class
from robustdiff.exports.table import write_table
from robustdiff.exports.tree import check_target, without_files, write_tree
from robustdiff.files.atomic import check_folder
from robustdiff.jobs.dataset import load_run_data
from robustdiff.labels.checked import next_to_check
from robustdiff.labels.corrected import Corrected, correct
from robustdiff.labels.given import known_noise
from robustdiff.progress import Report
from robustdiff.review.checked import read_checked
from robustdiff.runs.folder import Run
from robustdiff.runs.scores import load_judged

_JOURNALS = "moves-{}.json"
# Suffixes of files that are not written, and that nobody gives a folder.
_OTHER_FILES = {
    *(".tsv", ".txt", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".xls", ".xlsx"),
    *(".ods", ".npy", ".pkl", ".xml", ".html", ".tar", ".zip"),
}


def corrected_labels(run: Run, config: Config, *, decided_only: bool = False) -> Corrected:
    """Return the labels of a run, corrected by a person's decisions first, then by the judge.

    Args:
        run: The run.
        config: Its configuration.
        decided_only: Whether only a person's decisions count.

    Raises:
        ValueError: If it has neither decisions nor a judge that compares the classes.
        DamagedError: If its labels, scores or decisions are damaged, or about others.
    """
    labels, found = run.labels(), load_judged(run)
    judged = CURRICULA[config.curriculum.name].source not in ("none", "random")
    trust = found.trust if found is not None and (judged or run.judged_file.exists()) else None
    checked = read_checked(run, labels.given)
    where = shlex.quote(str(run.path))
    if checked is None and (decided_only or trust is None or trust.classes is None):
        raise ValueError(
            f"nothing corrects the labels of {run.path}: nobody has decided about any, "
            + ("and --decided-only was given" if decided_only else "and it names no other classes")
            + f"; see robustdiff audit {where} --by crossfit and robustdiff review {where}"
        )
    return correct(labels, trust, checked, decided_only=decided_only)


def check_targets(
    targets: Sequence[Path], config: Config, *, link: str, in_place: bool = False
) -> None:
    """Refuse places to which corrected labels cannot leave, before anything is written.

    Args:
        targets: Files and new folders, see `kind_of_target`.
        config: Of the run.
        link: How new folders get the files.
        in_place: Whether images are moved within their own folder.

    Raises:
        ValueError: If one exists, or cannot be made, two are at one place, or the images are not
            kept as they came.
    """
    if in_place:
        _check_class_folders(config)
    for path in targets:
        others = [other.resolve() for other in targets if other is not path]
        if any(path.resolve().is_relative_to(other) for other in others):
            raise ValueError(f"{path} is asked for twice, or within another target; name each once")
        kind = kind_of_target(path)
        if kind == "labels":
            _check_new_files(path)
        elif kind == "tasks":
            _check_tasks(path, config)
        else:
            _check_tree(path, config, link)


def kind_of_target(path: Path) -> Literal["labels", "tasks", "tree"]:
    """Return what is written to a place: a record or table, tasks for Label Studio, or a folder.

    Raises:
        ValueError: If its suffix, in any case, is that of a file of another format.
    """
    suffix = path.suffix.lower()
    if suffix in (".npz", ".csv"):
        return "labels"
    if suffix == ".json":
        return "tasks"
    if suffix in _OTHER_FILES:
        raise ValueError(
            "corrected labels leave as a record (.npz), a table (.csv), tasks for Label Studio "
            f"(.json), or a new folder, got {path}"
        )
    return "tree"


def check_unmoved(run: Run, config: Config) -> None:
    """Refuse to write labels that would name places which images have left since.

    Raises:
        ValueError: If images of the run were moved between their class folders, naming the journal.
    """
    root = files_in(config.data)
    if config.data.dataset != "folder" or root is None:
        return
    for path in sorted(run.path.glob(_JOURNALS.format("*"))):
        if is_made(root, read_journal(path)):
            folder, journal = shlex.quote(str(root)), shlex.quote(str(path))
            raise ValueError(
                f"images of {root} were moved by {path}, and the labels of {run.path} name the "
                f"places that they left; audit the folder anew with: robustdiff audit {folder} "
                f"--out NEW, or take the moves back with: robustdiff correct --undo {journal}"
            )


def _check_new_files(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise ValueError(f"{path} already exists; choose another name")
        check_folder(path.parent)


def _check_tasks(path: Path, config: Config) -> Path:
    """Return the folder of the images that tasks show."""
    _check_new_files(path, interface_of(path))
    root = files_in(config.data)
    if root is None:
        raise _without_files(config, "Label Studio shows files")
    return root


def _check_tree(target: Path, config: Config, link: str) -> None:
    if config.data.dataset not in SOURCES:
        raise _without_files(config, "a tree is made of files")
    home, root = Path(config.data.data_dir).expanduser(), files_in(config.data)
    check_target(root or (home.parent if home.is_file() else home), target)
    check_folder(target.parent)
    if root is None and link != "copy":
        raise without_files(home)


def _check_class_folders(config: Config) -> None:
    if config.data.dataset != "folder":
        raise ValueError(
            f"images are moved between class folders, and dataset {config.data.dataset!r} has "
            "none; its corrected labels leave as .npz or .csv, or as a new folder"
        )


def is_truth_known(config: Config, corrected: Corrected) -> bool:
    """Return whether the labels before correction come with the right ones."""
    return known_noise(config.data, corrected.before) is not None


def write_labels(path: Path, config: Config, corrected: Corrected) -> None:
    """Write a record (.npz) or a table (.csv) of corrected labels.

    Raises:
        ValueError: If the file exists.
    """
    _check_new_files(path)
    known = is_truth_known(config, corrected)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".npz":
        corrected.record(truth_known=known).save(path)
    else:
        write_table(path, corrected, truth_known=known)


def write_label_studio(path: Path, config: Config, corrected: Corrected, worst: int | None) -> Path:
    """Write undecided labels as tasks for Label Studio, those of the greatest gain first.

    Args:
        path: The .json file.
        config: Of the run.
        corrected: Its labels.
        worst: How many; None for all that the judge corrects.

    Returns:
        The labelling interface that goes with them.

    Raises:
        ValueError: If one of the files exists, or the images are no files.
    """
    root = _check_tasks(path, config)
    by = np.array(corrected.decided_by)
    decided = (by == "person") | (by == "removed")
    if worst is None:
        decided |= by == "given"
    gains = np.nan_to_num(corrected.gain)
    chosen = list(next_to_check(gains, decided))[:worst]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_tasks(path, corrected, root, chosen)


def _without_files(config: Config, why: str) -> ValueError:
    return ValueError(
        f"{why}, and dataset {config.data.dataset!r} has none; corrected labels of it leave as "
        ".npz or .csv"
    )


def make_tree(
    run: Run, config: Config, corrected: Corrected, target: Path, link: str, report: Report
) -> int:
    """Make a new folder of images under corrected labels; see `write_tree`.

    Images that are gone are left out.

    Returns:
        How many images it holds.

    Raises:
        ValueError: If the target cannot be made, or the images are not kept as they came.
    """
    _check_tree(target, config, link)
    images, _, rows = load_run_data(run, config, report)
    assert images.store is not None
    find = places if config.data.dataset == "folder" else places_by_class
    found, folders = find(images, corrected.labels[rows], corrected.removed[rows])
    if lost := _lost(images, folders):
        report.message(
            f"no folder is made for {', '.join(map(repr, lost))}, of which no image is left: "
            f"{target} has {images.num_classes - len(lost)} of {images.num_classes} classes"
        )
    stage = report.stage("sorting images")
    return write_tree(images.store, target, found, folders, link, stage)


def move_in_place(
    run: Run, config: Config, corrected: Corrected, report: Report
) -> tuple[Path, int]:
    """Move images between the class folders of a run's own folder.

    Returns:
        The journal that takes it back, in the run's folder; how many were moved.

    Raises:
        ValueError: If the images lie in no class folders, or something lies at a new path.
        OSError: If one cannot be moved, naming the journal and what finishes it or takes it back.
    """
    _check_class_folders(config)
    with run.locked():
        images, _, rows = load_run_data(run, config, report)
        found, folders = places(images, corrected.labels[rows], corrected.removed[rows])
        journal = plan_moves(Path(config.data.data_dir).expanduser(), found)
        if lost := _lost(images, folders):
            report.message(
                f"no image is left of {', '.join(map(repr, lost))}: remove the empty folder before "
                "other commands read the images, since every class needs some; --undo makes it "
                "again"
            )
        path = _free_journal(run)
        write_journal(path, journal)
        with _half_way(path, None):
            return path, apply_moves(journal, report.stage("moving images"))


def _lost(images: Images, folders: Sequence[str]) -> list[str]:
    """Return the names of the classes that have no folder."""
    left = {folder.rpartition("/")[2] for folder in folders}
    return [name for name in images.class_names if name not in left]


def _free_journal(run: Run) -> Path:
    number = 1
    while (path := run.path / _JOURNALS.format(number)).exists():
        number += 1
    return path


@contextmanager
def _half_way(path: Path, root: Path | None) -> Iterator[None]:
    """Say how a journal's moves go on where the system refuses one."""
    try:
        yield
    except OSError as error:
        words = shlex.quote(str(path))
        words += "" if root is None else f" --data-dir {shlex.quote(str(root))}"
        raise OSError(
            f"{error}; every move stands in {path}: finish them with: robustdiff correct --finish "
            f"{words}, or take them back with: robustdiff correct --undo {words}"
        ) from error


def finish_moves(path: Path, report: Report, root: Path | None = None) -> tuple[Journal, int]:
    """Do what is left of a journal's moves.

    Args:
        path: The journal.
        report: Receives progress.
        root: Where the folder of images lies now; None for where it was.

    Returns:
        The journal, of that folder; how many were left.

    Raises:
        ValueError: If the journal does not fit what lies there; nothing was moved.
        OSError: If an image cannot be moved.
    """
    journal = _of_root(read_journal(path), root)
    with _half_way(path, root):
        return journal, apply_moves(journal, report.stage("moving images"))


def take_back_moves(path: Path, report: Report, root: Path | None = None) -> tuple[Journal, int]:
    """Take back a journal's moves; see `finish_moves`."""
    journal = _of_root(read_journal(path), root)
    with _half_way(path, root):
        return journal, undo_moves(journal, report.stage("moving images back"))


def _of_root(journal: Journal, root: Path | None) -> Journal:
    return journal if root is None else journal._replace(root=root.expanduser().resolve())
