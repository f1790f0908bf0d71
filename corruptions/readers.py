"""Label files of any origin: records of ours, plain .npy and .csv, human labels of CIFAR-N."""

import csv
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corruptions.arrays import load_array
from corruptions.labels import NoisyLabels, check_labels, transition_of
from corruptions.types import Ints


class LabelFile(NamedTuple):
    """What a label file says.

    Attributes:
        given: (N,) int64.
        clean: (N,) int64 clean labels, where the file knows them.
        class_names: Names, where the file has names in place of numbers.
        origin: What the labels are, in words.
        record: The whole record, where the file is one.
    """

    given: Ints
    clean: Ints | None
    class_names: tuple[str, ...] | None
    origin: str
    record: NoisyLabels | None = None


def read_labels(path: Path, key: str | None = None) -> LabelFile:
    """Read a label file.

    Args:
        path: .npz (a saved `NoisyLabels`), .npy (integers), .csv (one column, or one with a
            header), or the .pt and .npy files of CIFAR-10N and CIFAR-100N.
        key: Which labels, in a file with several: a column, or a key such as "worse_label".

    Returns:
        The labels. Nothing in the file is executed: a pickle in it may hold plain data only.

    Raises:
        ValueError: If the file is missing, damaged, or holds something else.
    """
    if path.suffix not in _READERS:
        raise ValueError(f"label files are {', '.join(_READERS)}, got {path}")
    if not path.is_file():
        raise ValueError(f"there is no label file {path}")
    try:
        return _READERS[path.suffix](path, key)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error


def labels_from(file: LabelFile, clean: NDArray[np.integer], num_classes: int) -> NoisyLabels:
    """Make a record of labels from a file.

    Args:
        file: What the file says.
        clean: (N,) labels of the dataset, taken as the truth.
        num_classes: K.

    Returns:
        The file's own record, or a new one whose nominal matrix is the realised one.

    Raises:
        ValueError: If the file is of other samples, another order, or other classes.
    """
    truth = check_labels(clean, num_classes)
    if len(file.given) != len(truth):
        raise ValueError(
            f"the label file has {len(file.given)} labels, but there are {len(truth)} samples"
        )
    if file.clean is not None and (differ := np.count_nonzero(file.clean != truth)):
        raise ValueError(
            f"the label file's own clean labels differ from the dataset's in {differ} of "
            f"{len(truth)} places: it is of other data or of another order"
        )
    given = check_labels(file.given, num_classes)
    if file.record is not None:
        if len(file.record.nominal) != num_classes:
            raise ValueError(
                f"the label file has {len(file.record.nominal)} classes, the dataset {num_classes}"
            )
        return file.record
    matrix = transition_of(truth, given, num_classes)
    return NoisyLabels(
        clean=truth,
        given=given,
        nominal=matrix,
        noise_type="file",
        rate=float((given != truth).mean()),
        seed=None,
        mode="as given",
        convention=file.origin,
    )


def _read_record(path: Path, key: str | None) -> LabelFile:
    record = NoisyLabels.load(path)
    return LabelFile(record.given, record.clean, None, record.convention, record)


def _read_csv(path: Path, key: str | None) -> LabelFile:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text file of comma-separated values") from error
    if not rows:
        raise ValueError(f"{path} is empty")
    header = rows[0]
    if len(header) == 1 and key is None:
        column, body = 0, rows if _is_number(header[0]) else rows[1:]
    else:
        wanted = key or "given_label"
        if wanted not in header:
            raise ValueError(
                f"{path} needs a column {wanted!r}; it has {', '.join(header)}; "
                f"name the one to read with a key"
            )
        column, body = header.index(wanted), rows[1:]
    short = [number for number, row in enumerate(body, start=1) if len(row) <= column]
    if short:
        raise ValueError(f"{path} has too few columns in data row {short[0]}")
    return _from_words([row[column].strip() for row in body], f"column of {path.name}")


def _is_number(word: str) -> bool:
    return word.strip().removeprefix("-").isdecimal()


def _from_words(words: list[str], origin: str) -> LabelFile:
    if all(_is_number(word) for word in words):
        try:
            return LabelFile(np.array(words, dtype=np.int64), None, None, origin)
        except (OverflowError, ValueError):
            longest = max(words, key=len)
            raise ValueError(f"labels must be below 2**63, got {longest:.30} in {origin}") from None
    names = tuple(sorted(set(words)))
    numbers = {name: number for number, name in enumerate(names)}
    given = np.array([numbers[word] for word in words], dtype=np.int64)
    return LabelFile(given, None, names, origin)


def _read_npy(path: Path, key: str | None) -> LabelFile:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version](file)
        except Exception as error:  # the header is parsed as Python text, which fails in many ways
            raise ValueError(f"{path} is not an array file, or is damaged") from error
        if header[2].hasobject:
            content = _unpickle(file.read(), path)
            if isinstance(content, np.ndarray) and content.ndim == 0:
                content = content.item()
            return _pick(content, path, key)
    array = load_array(path)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{path} must hold a one-dimensional array of integers, "
            f"got shape {array.shape} of {array.dtype}"
        )
    return LabelFile(array.astype(np.int64), None, None, f"array of {path.name}")


def _read_pt(path: Path, key: str | None) -> LabelFile:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            content = archive.read(names[0]) if len(names) == 1 else None
    except OSError:
        raise
    except Exception as error:  # damaged archives fail in many ways
        raise ValueError(f"{path} is damaged or not a label file") from error
    if content is None:
        raise ValueError(f"{path} is not a label file: it holds no data.pkl")
    return _pick(_unpickle(content, path), path, key)


def _pick(content: object, path: Path, key: str | None) -> LabelFile:
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold named arrays, got {type(content).__name__}")
    arrays = {
        name: value.astype(np.int64)
        for name, value in content.items()
        if isinstance(value, np.ndarray)
        and value.ndim == 1
        and np.issubdtype(value.dtype, np.integer)
    }
    choices = [name for name in arrays if name != "clean_label"]
    wanted = choices[0] if key is None and len(choices) == 1 else key
    if wanted not in arrays:
        raise ValueError(
            f"{path} holds the labels {', '.join(map(str, arrays)) or 'of no name'}; "
            f"give one of them as the key, got {key!r}"
        )
    origin = f"{wanted} of {path.name}"
    return LabelFile(arrays[wanted], arrays.get("clean_label"), None, origin)


def _new_array(*_: object) -> NDArray[np.generic]:
    # The pickle asks for an empty array first and fills it by __setstate__ afterwards.
    return np.ndarray.__new__(np.ndarray, (0,), np.int8)


def _from_buffer(
    buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"]
) -> NDArray[np.generic]:
    # How protocol 5 spells arrays of numbers.
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _new_dtype(code: str, *_: object) -> np.dtype[Any]:
    dtype = np.dtype(code)
    if dtype.kind not in "biufO":
        raise pickle.UnpicklingError(f"arrays of {code!r} are not allowed")
    return dtype


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # How protocol 2 spells bytes.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., object] | type] = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _new_dtype,
    ("_codecs", "encode"): _encode,
}


class _PlainData(pickle.Unpickler):
    """Reads arrays, lists, dicts, strings and numbers; refuses every other name."""

    def find_class(self, module: str, name: str) -> Callable[..., object] | type:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _unpickle(content: bytes, path: Path) -> object:
    try:
        return _PlainData(io.BytesIO(content)).load()
    except Exception as error:
        raise ValueError(
            f"{path} is refused: it is not plain arrays and numbers ({error})"
        ) from error


_READERS: dict[str, Callable[[Path, str | None], LabelFile]] = {
    ".npz": _read_record,
    ".npy": _read_npy,
    ".csv": _read_csv,
    ".pt": _read_pt,
}
