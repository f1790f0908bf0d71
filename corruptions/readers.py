"""Label files of any origin: records of ours, arrays, text tables, human labels of CIFAR-N."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corruptions.arrays import load_array
from corruptions.columns import Columns, pick_columns
from corruptions.labels import NoisyLabels
from corruptions.tables import Table, read_table
from corruptions.types import Ints


class LabelFile(NamedTuple):
    """What a label file says: an array, a record, or a table.

    Attributes:
        path: The file.
        origin: What the labels are, in words.
        given: (N,) int64, of an array or a record.
        clean: (N,) int64 clean labels, where an array comes with them, or a record.
        record: The whole record, where the file is one.
        table: The cells of a text file.
        columns: What its columns are for; None for one column, whose header depends on the dataset.
    """

    path: Path
    origin: str
    given: Ints | None = None
    clean: Ints | None = None
    record: NoisyLabels | None = None
    table: Table | None = None
    columns: Columns | None = None


def read_labels(path: str | Path, key: str | None = None) -> LabelFile:
    """Read a label file.

    Args:
        path: .npz (a saved `NoisyLabels`), .npy (integers), .csv or .tsv (see
            `corruptions.tables.read_table`), or the .pt and .npy files of CIFAR-10N and CIFAR-100N.
        key: Which labels, in a file with several: a column, or a key such as "worse_label".

    Returns:
        What the file says; `corruptions.labels_from` joins it to a dataset. Nothing in the file is
        executed: a pickle in it may hold plain data only.

    Raises:
        ValueError: If the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise ValueError(f"label files are {', '.join(_READERS)}, got {path}")
    if not path.is_file():
        raise ValueError(f"there is no label file {path}")
    try:
        return _READERS[suffix](path, key)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error


def _read_record(path: Path, key: str | None) -> LabelFile:
    record = NoisyLabels.load(path)
    _refuse_key(path, key)
    return LabelFile(path, record.convention, record.given, record.clean, record)


def _refuse_key(path: Path, key: str | None) -> None:
    if key is not None:
        raise ValueError(f"{path} holds labels of no name, one for each image, got the key {key!r}")


def _read_text(path: Path, key: str | None) -> LabelFile:
    table = read_table(path)
    if table.header is None and key is None:
        return LabelFile(path, f"column of {path.name}", table=table)
    if table.header is None:
        table = Table(path, tuple(table.rows[0]), table.rows[1:])
    columns = pick_columns(table, key)
    return LabelFile(path, f"column of {path.name}", table=table, columns=columns)


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
    _refuse_key(path, key)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{path} must hold a one-dimensional array of integers, "
            f"got shape {array.shape} of {array.dtype}"
        )
    return LabelFile(path, f"array of {path.name}", array.astype(np.int64))


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
    return LabelFile(path, origin, arrays[wanted], arrays.get("clean_label"))


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
    ".csv": _read_text,
    ".tsv": _read_text,
    ".pt": _read_pt,
}
