"""Images within tables: parquet files as the hub ships them, folders of `datasets.save_to_disk`."""

import io
import json
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from corruptions.tables import first_few
from robustdiff.config.images import DataConfig
from robustdiff.data.layout import Layout
from robustdiff.data.parts import split_words
from robustdiff.data.rows import Rows, check_same_names, lay_out
from robustdiff.data.saved import arrow_files, saved_splits
from robustdiff.data.store import Store, files_at
from robustdiff.data.tables import Columns, pick_columns, pyarrow, undamaged

_BLOCKS_KEPT = 4
_NUMBERS = re.compile(r"[-_.]?\d+(-of-\d+(-[0-9a-f]+)?)?$")


class _Block(NamedTuple):
    """Rows that are read together: a row group of parquet, or an arrow file.

    Attributes:
        file: Its file, relative to the source.
        rows: How many.
        split: What they are for; None if nothing says it.
        read: Columns, or parts of one such as "image.path" -> a pyarrow table of them.
        lacks_bytes: Column of the hub's bytes and path -> whether rows may have a path alone.
    """

    file: str
    rows: int
    split: str | None
    read: Callable[[list[str]], Any]
    lacks_bytes: Callable[[str], bool]


def shard_split(path: str) -> str:
    """Return a shard's path without its suffix and its number: "train" of "train-00-of-02.tar"."""
    folder, slash, name = path.rpartition("/")
    stem = name.partition(".")[0]
    return folder + slash + (_NUMBERS.sub("", stem) or stem)


def read_parquet(config: DataConfig) -> tuple[Layout, Store]:
    """List the images of a parquet file, or of all in a folder.

    Args:
        config: `data_dir` is the file or folder.

    Raises:
        ValueError: If there is none, or it does not hold one image and one label a row.
    """
    home = Path(config.data_dir)
    root, files = files_at(home, ".parquet")
    if not files:
        raise ValueError(f"there is no parquet file {home}, nor a folder of them")
    splits = split_words([shard_split(file) for file in files])
    arrow, blocks, schemas = pyarrow(), [], []
    for number, file in enumerate(files):
        with undamaged(root / file):
            opened = arrow.parquet.ParquetFile(root / file, memory_map=True)
        schemas.append(opened.schema_arrow)
        split = None if splits is None else splits[number]
        for group in range(opened.metadata.num_row_groups):
            about = opened.metadata.row_group(group)
            read = partial(_read_group, opened, root / file, group)
            blocks.append(
                _Block(file, about.num_rows, split, read, partial(_lacks_in_group, about))
            )
    return _list(home, root, files, blocks, schemas, config)


def _read_group(opened: Any, path: Path, group: int, columns: list[str]) -> Any:  # noqa: ANN401
    with undamaged(path):
        return opened.read_row_group(group, columns)


def read_arrow(config: DataConfig) -> tuple[Layout, Store]:
    """List the images of a folder that `datasets.Dataset.save_to_disk` has written.

    Args:
        config: `data_dir` is the folder, of a dataset or of a dict of them, whose keys are splits.

    Raises:
        ValueError: If it is none, or does not hold one image and one label a row.
    """
    root, arrow = Path(config.data_dir), pyarrow()
    blocks, files, schemas = [], [], []
    for split in saved_splits(root):
        folder = root if split is None else root / split
        for name in arrow_files(folder):
            path = folder / name
            try:
                with arrow.memory_map(str(path)) as mapped:
                    table = arrow.ipc.open_stream(mapped).read_all()
            except (arrow.ArrowException, OSError) as error:
                raise ValueError(f"{path} is not an arrow file, or is damaged") from error
            files.append(path.relative_to(root).as_posix())
            lacks = partial(_lacks_in_table, table)
            blocks.append(_Block(files[-1], table.num_rows, split, _selector(table), lacks))
            schemas.append(table.schema)
    if not schemas:
        raise ValueError(f"{root} holds no data")
    return _list(root, root, files, blocks, schemas, config)


def _selector(table: Any) -> Callable[[list[str]], Any]:  # noqa: ANN401 a table
    """Return what reads columns of a mapped table; of a part of one it reads the whole one."""
    return lambda columns: table.select([column.partition(".")[0] for column in columns])


def _list(
    home: Path,
    root: Path,
    files: Sequence[str],
    blocks: Sequence[_Block],
    schemas: Sequence[Any],  # pyarrow's, of each file
    config: DataConfig,
) -> tuple[Layout, Store]:
    """List the images of tables, and say where each one's bytes are."""
    schema = schemas[0]
    columns = _columns(schema, str(home), config)
    used = [name for name in columns[:3] if name is not None]
    for file, other in zip(files, schemas, strict=True):
        if absent := [name for name in used if name not in other.names]:
            raise ValueError(f"{root / file} has no column {absent[0]!r}, as {files[0]} has")
    labels = [
        label
        for block in blocks
        for label in _exact(block.read([columns.label]).column(columns.label))
    ]
    class_names = _common_names(root, files, schemas, blocks, columns.label, labels)
    has_paths = bool(pyarrow().types.is_struct(schema.field(columns.image).type))
    paths = _paths(blocks, columns.image, has_paths=has_paths)
    names, note = named(paths, [b.split or "row" for b in blocks for _ in range(b.rows)])
    beside = _files_beside(root, blocks, columns.image, paths) if has_paths else ()
    splits: list[str] | None = None
    if columns.split is not None:
        splits = [
            str(word or "")
            for block in blocks
            for word in block.read([columns.split]).column(columns.split).to_pylist()
        ]
    elif blocks[0].split is not None:
        splits = [str(block.split) for block in blocks for _ in range(block.rows)]
    if class_names is not None:  # the hub's mark of a hidden label
        labels = [None if label == -1 else label for label in labels]
    rows = Rows(str(home), names, labels, splits, class_names, (*columns.notes, *note))
    places = [(block, row) for block in range(len(blocks)) for row in range(blocks[block].rows)]
    place = dict(zip(names, places, strict=True))
    opened = _opener(root, blocks, place, columns.image)
    several = sum(holds_images(field.type) for field in schema) > 1
    column = columns.image if several else None
    return lay_out(rows, config), Store(home, root, opened, tuple(files), beside, column)


def _opener(
    root: Path, blocks: Sequence[_Block], place: dict[str, tuple[int, int]], column: str
) -> Callable[[str], BinaryIO]:
    lock = threading.Lock()

    @lru_cache(_BLOCKS_KEPT)
    def images(block: int) -> Any:  # noqa: ANN401 a column
        return blocks[block].read([column]).column(column)

    def opened(name: str) -> BinaryIO:
        block, row = place[name]
        with lock:  # or threads would read the same rows at once
            values = images(block)
        content = values[row].as_py()
        if isinstance(content, dict):
            path, content = content.get("path"), content.get("bytes")
            if content is None and path:
                return _beside(root, blocks[block].file, path).open("rb")
        if not content:
            raise ValueError("a row without an image")
        return io.BytesIO(content)

    return opened


def _beside(root: Path, file: str, path: str) -> Path:
    """Return where an image lies that its row only names: beside its table, or below.

    Raises:
        ValueError: If it lies elsewhere.
    """
    folder = (root / file).parent.resolve()
    found = (folder / path).resolve()
    if not found.is_relative_to(folder):
        raise ValueError("a row without the bytes of its image, whose file lies elsewhere")
    return found


def _files_beside(
    root: Path, blocks: Sequence[_Block], column: str, paths: Sequence[str | None]
) -> tuple[str, ...]:
    """Return the files that rows may name without holding their bytes."""
    found: dict[str, None] = {}
    row = 0
    for block in blocks:
        some = paths[row : row + block.rows] if block.lacks_bytes(column) else ()
        for path in filter(None, some):
            with suppress(ValueError):  # such a path is refused when its image is read
                found[str(_beside(root, block.file, path))] = None
        row += block.rows
    return tuple(found)


def _lacks_in_table(table: Any, column: str) -> bool:  # noqa: ANN401 pyarrow's
    return any(chunk.field("bytes").null_count for chunk in table.column(column).chunks)


def _lacks_in_group(group: Any, column: str) -> bool:  # noqa: ANN401 pyarrow's
    """Return whether bytes of a row group may be missing, by its statistics."""
    parts = [group.column(number) for number in range(group.num_columns)]
    counts = [p.statistics for p in parts if p.path_in_schema == f"{column}.bytes"]
    return any(c is None or not c.has_null_count or c.null_count for c in counts)


def _features(schema: Any) -> dict[str, Any]:  # noqa: ANN401 pyarrow's
    """Return what the hub's library wrote about the columns."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _exact(column: Any) -> list[Any]:  # noqa: ANN401 pyarrow's
    """Return labels; fractions as the shortest numbers that their own type tells from others."""
    values: list[Any] = column.to_pylist()
    if not pyarrow().types.is_floating(column.type):
        return values
    exact = column.type.to_pandas_dtype()
    return [None if value is None else float(str(exact(value))) for value in values]


def _common_names(
    root: Path,
    files: Sequence[str],
    schemas: Sequence[Any],  # pyarrow's, of each file
    blocks: Sequence[_Block],
    column: str,
    labels: Sequence[Any],
) -> tuple[str, ...] | None:
    """Return the names of the classes, which must be those of every file that has labels."""
    start, known = 0, set()
    for block in blocks:
        end = start + block.rows
        if any(label not in (None, -1) for label in labels[start:end]):
            known.add(block.file)
        start = end
    parts = [(f, _class_names(s, column)) for f, s in zip(files, schemas, strict=True)]
    parts = [part for part in parts if part[0] in known] or parts[:1]
    first, names = parts[0]
    for file, found in parts[1:]:
        check_same_names(names, str(root / first), found, str(root / file))
    return names


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:  # noqa: ANN401
    feature = _features(schema).get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if names else None


def _columns(schema: Any, where: str, config: DataConfig) -> Columns:  # noqa: ANN401
    """Find the columns: those asked for, else by their types, else by usual names."""
    arrow, features = pyarrow(), _features(schema)
    images = [field.name for field in schema if holds_images(field.type)]
    classes = [name for name, about in features.items() if _is_class(about)]
    asked = {
        "image": config.image_column or _only(images, "images", where),
        "label": config.label_column or _only(classes, "labels", where),
        "split": config.split_column,
    }
    columns = pick_columns(schema.names, where, asked)
    kind = schema.field(columns.image).type
    if not holds_images(kind):
        said = "several images a row" if arrow.types.is_list(kind) else f"values of type {kind}"
        raise ValueError(f"column {columns.image!r} of {where} must hold one image, got {said}")
    return columns


def holds_images(kind: Any) -> bool:  # noqa: ANN401 a type of pyarrow
    """Return whether a column of this type holds images: bytes, or the hub's bytes and path."""
    types = pyarrow().types
    if types.is_struct(kind):
        return {"bytes", "path"} <= {field.name for field in kind}
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_class(about: Any) -> bool:  # noqa: ANN401 of JSON
    return isinstance(about, dict) and about.get("_type") == "ClassLabel"


def _only(names: list[str], what: str, where: str) -> str | None:
    if len(names) > 1:
        flag = "--image-column" if what == "images" else "--label-column"
        raise ValueError(
            f"{where} has several columns of {what}, {first_few(names)}; name one with {flag}"
        )
    return names[0] if names else None


def _paths(blocks: Sequence[_Block], column: str, *, has_paths: bool) -> list[str | None]:
    """Return the path that is written for every row's image, if there is one."""
    paths: list[str | None] = []
    for block in blocks:
        if has_paths:
            chunks = block.read([f"{column}.path"]).column(column).chunks
            paths += [path for chunk in chunks for path in chunk.field("path").to_pylist()]
        else:
            paths += [None] * block.rows
    return paths


def named(paths: Sequence[str | None], *homes: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return different names of images: their paths, else these below a home, else numbers.

    Args:
        paths: As written; None where nothing is.
        homes: Where each image belongs, such as its split, or more closely, its shard.

    Returns:
        The names; what was chosen, one line.
    """
    plain = [path for path in paths if path]
    if len(set(plain)) == len(paths):
        return plain, ()
    for home in homes if len(plain) == len(paths) else ():
        longer = [f"{place}/{path}" for place, path in zip(home, plain, strict=True)]
        if len(set(longer)) == len(longer):
            return longer, (f"images of one name are told apart, as {longer[0]!r}",)
    counts: dict[str, int] = {}
    numbered = []
    for place in homes[0]:
        numbered.append(f"{place}/{counts.setdefault(place, 0)}")
        counts[place] += 1
    note = f"the images have no names of their own: they are {numbered[0]!r} and so on"
    return numbered, (note,)
