"""Evidence from elsewhere: class probabilities or features of the images, joined to them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corruptions import NoisyLabels, Samples
from corruptions.arrays import load_array
from corruptions.columns import is_number, naming_columns
from corruptions.rows import Claims, claims_of
from corruptions.tables import Table, first_few, read_table
from robustdiff.classifiers.pretrained import (
    EFFICIENTNET_LITE0,
    features_cache,
    load_network,
    pretrained_features,
)
from robustdiff.config.judging import JudgeConfig
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images
from robustdiff.data.stored import near
from robustdiff.device import native_precision, pick_device
from robustdiff.labels.features import probe
from robustdiff.progress import Report

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Dataset(NamedTuple):
    """The images that evidence is about.

    Attributes:
        images: The training part holds the N images.
        samples: The M >= N samples of the run, in the order of its labels; their labels as given.
        rows: (N,) int64, which of those the images are.
        folder: The folder of the images.
    """

    images: Images
    samples: Samples
    rows: Ints
    folder: Path


def dataset_of(
    config: Config, images: Images, labels: NoisyLabels, rows: Ints | None = None
) -> Dataset:
    """Return what evidence is joined to; the clean labels are not in it.

    Args:
        config: Its section data names the folder.
        images: The dataset of a run, as far as it is there.
        labels: All labels of the run.
        rows: (N,) which of those the images are; None for all.
    """
    samples = Samples(
        clean=labels.given,
        num_classes=images.num_classes,
        class_names=images.class_names,
        paths=labels.paths,
        held_out=images.test_paths or (),
    )
    rows = np.arange(len(labels.given)) if rows is None else rows
    folder = Path(config.data.data_dir) if images.store is None else images.store.root
    return Dataset(images, samples, rows, folder)


def is_given(judge: JudgeConfig) -> bool:
    """Return whether labels are judged by evidence from elsewhere."""
    return judge.probabilities is not None or judge.features is not None


def in_words(judge: JudgeConfig) -> str:
    """Name the evidence."""
    if judge.probabilities is not None:
        return f"the probabilities in {Path(judge.probabilities).name}"
    if judge.features == EFFICIENTNET_LITE0:
        return f"features of {EFFICIENTNET_LITE0}"
    return f"the features in {Path(str(judge.features)).name}"


def read_evidence(judge: JudgeConfig, data: Dataset, report: Report) -> NDArray[np.floating] | None:
    """Read the file of evidence; None for features that are still to be computed.

    Args:
        judge: Which file.
        data: Whose images.
        report: Receives what was left out of the file.

    Returns:
        (N, K) float64 probabilities, at least 0, whose rows need not sum to 1; or (N, D) float32
        features.

    Raises:
        ValueError: If the file cannot be read, or is of other images or classes, or the packages
            for features are missing.
    """
    if judge.features == EFFICIENTNET_LITE0:
        load_network(native_precision(pick_device("cpu")), pick_device("cpu"))
        return None
    path = Path(str(judge.probabilities or judge.features)).expanduser()
    classes = None if judge.probabilities is None else data.samples.names
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    values: NDArray[np.generic]
    if path.suffix == ".csv":
        values = _from_table(path, classes, data, report)
    elif path.suffix in (".npy", ".npz"):
        width = None if classes is None else len(classes)
        values = _from_array(path, len(data.samples.clean), width)[data.rows]
    else:
        raise ValueError(f"evidence is read from .npy, .npz and .csv files, got {path}")
    numbers: NDArray[np.floating] = values.astype(np.float32 if classes is None else np.float64)
    _check_numbers(numbers, path, classes, data)
    return numbers


def _check_numbers(
    numbers: NDArray[np.floating], path: Path, classes: Sequence[str] | None, data: Dataset
) -> None:
    """Refuse numbers that are no features, or no probabilities, naming the first."""
    wanted, bad = "finite numbers", np.asarray(~np.isfinite(numbers))
    if classes is not None and not bad.any():
        wanted, bad = "probabilities of at least 0, not all of a row 0", numbers < 0
        bad |= (numbers.sum(axis=1, keepdims=True) <= 0) & ~bad.any(axis=1, keepdims=True)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        image = data.samples.shown(int(data.rows[row]))
        about = f"feature {column}" if classes is None else f"class {classes[column]!r}"
        raise ValueError(
            f"{path} must hold {wanted}, got {numbers[row, column]:g} for {about} of image "
            f"{image}, and {int(bad.any(axis=1).sum()) - 1} more such rows"
        )


def probabilities_from(
    config: Config, data: Dataset, given: Ints, report: Report
) -> NDArray[np.floating]:
    """Return class probabilities of images by evidence from elsewhere.

    Args:
        config: Its section judge names the evidence, see `is_given`.
        data: The images.
        given: (N,) int64, their labels as given.
        report: Receives progress, and what was left out of a file.

    Returns:
        (N, K), by nothing that was trained on the label in question, unless the file was.

    Raises:
        ValueError: See `read_evidence`.
    """
    values = read_evidence(config.judge, data, report)
    if values is not None and config.judge.probabilities is not None:
        return values
    if values is None:
        device = pick_device(config.train.device)
        values = pretrained_features(
            near(data.images.train, device),
            dtype=native_precision(device),
            cache=features_cache(),
            progress=report.stage(f"features of {EFFICIENTNET_LITE0}"),
        ).numpy()
    return probe(
        values,
        given,
        data.images.num_classes,
        seed=config.seed,
        progress=report.stage("judging the labels"),
    )


def _from_array(path: Path, count: int, width: int | None) -> NDArray[np.generic]:
    """Read the one array of `count` rows and `width` columns, None for any number of columns."""
    found = _arrays(path)
    fitting = [
        array
        for array in found
        if array.ndim == 2
        and len(array) == count
        and array.shape[1] == (width or max(array.shape[1], 1))
        and array.dtype.kind in "fiu"
    ]
    if len(fitting) != 1:
        shapes = ", ".join(f"{array.shape} of {array.dtype}" for array in found) or "nothing"
        columns = f"{width}), a row for each image and a column for each class"
        columns = "D), a row for each image" if width is None else columns
        numbers = all(array.dtype.kind in "fiu" for array in found)
        raise ValueError(
            f"{path} must hold one array of shape ({count}, {columns}, got {shapes}"
            + ("" if numbers else "; its numbers must be whole or real")
        )
    return fitting[0]


def _arrays(path: Path) -> list[NDArray[np.generic]]:
    if path.suffix == ".npy":
        return [load_array(path)]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in archive.files]
    except OSError:
        raise
    except Exception as error:  # damaged archives fail in many ways
        raise ValueError(f"{path} is not an archive of plain arrays, or is damaged") from error


def _from_table(path: Path, classes: Sequence[str] | None, data: Dataset, report: Report) -> Floats:
    table = read_table(path)
    if table.header is None:
        raise ValueError(f"{path} has one column; it needs one that names images, and numbers")
    columns = _feature_columns(table) if classes is None else _class_columns(table, classes)
    naming = naming_columns(table, columns)
    samples, rows = data.samples, data.rows
    by_name = bool(naming.paths) and samples.paths is not None
    if by_name:  # the file need not list images that are gone
        samples, rows = _present(data), np.arange(len(rows))
    claims = claims_of(table, naming, samples)
    _refuse_doubles(table, claims, samples)
    _refuse_unknown(table, claims, data.folder)
    for note in claims.notes:
        report.message(note)
    values = np.empty((len(samples.clean), len(columns)))
    for place, column in enumerate(columns):
        values[claims.images, place] = _numbers(table, column, claims.rows)
    return values[rows]


def _present(data: Dataset) -> Samples:
    samples, rows = data.samples, data.rows.tolist()
    assert samples.paths is not None
    kept = {samples.paths[row] for row in rows}
    gone = tuple(path for path in samples.paths if path not in kept)
    return Samples(
        clean=samples.clean[data.rows],
        num_classes=samples.num_classes,
        class_names=samples.class_names,
        paths=tuple(samples.paths[row] for row in rows),
        held_out=(*samples.held_out, *gone),
    )


def _class_columns(table: Table, classes: Sequence[str]) -> list[int]:
    """Return the column of each class."""
    header = list(table.header or ())
    missing = [name for name in classes if header.count(name) != 1]
    if missing:
        raise ValueError(
            f"{table.path} needs one column for each class by its name, and has none, or several, "
            f"for {first_few(missing)}; its columns are {first_few(header)}"
        )
    return [header.index(name) for name in classes]


def _feature_columns(table: Table) -> list[int]:
    """Return the columns f0, f1, ... in their order."""
    header = list(table.header or ())
    found = {name for name in header if name[:1] == "f" and name[1:].isdecimal()}
    wanted = [f"f{number}" for number in range(len(found))]
    if not found or any(header.count(name) != 1 for name in wanted):
        raise ValueError(
            f"{table.path} needs columns f0, f1, f2, ... without gaps, each once; "
            f"its columns are {first_few(header)}"
        )
    return [header.index(name) for name in wanted]


def _refuse_doubles(table: Table, claims: Claims, samples: Samples) -> None:
    counts = np.bincount(claims.images, minlength=len(samples.clean))
    double = np.flatnonzero(counts > 1).tolist()
    if double:
        named = first_few(samples.shown(number) for number in double)
        raise ValueError(f"{len(double)} images have several rows in {table.path}: {named}")


def _refuse_unknown(table: Table, claims: Claims, folder: Path) -> None:
    """Refuse rows of files that are not there; a folder may hold files that are not used."""
    places = (folder, folder.parent, Path())
    absent = [
        word for word in claims.unknown if not any((place / word).is_file() for place in places)
    ]
    if absent:
        raise ValueError(
            f"{len(absent)} rows of {table.path} name no file in {folder}: {first_few(absent)}"
        )


def _numbers(table: Table, column: int, rows: Ints) -> Floats:
    words = [table.rows[row][column] for row in rows.tolist()]
    try:
        return np.array(words).astype(np.float64)
    except ValueError:
        bad = [word for word in words if not is_number(word)]
        name = (table.header or ())[column]
        raise ValueError(
            f"{len(bad)} cells of column {name!r} of {table.path} are no numbers: {first_few(bad)}"
        ) from None
