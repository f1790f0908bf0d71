"""One set of labelled images in every form that is read."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("ant", "bee", "cat")


def make_folder(root, train=8, test=3, seed=0):
    """Make root/train/<class>/*.png and root/test/<class>/*.png, colour images of 12 x 10."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("test", test)):
        for label, name in enumerate(NAMES):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (10, 12, 3), dtype=np.uint8)
                pixels[3 * label : 3 * label + 3, :, label] = 255
                Image.fromarray(pixels).save(root / part / name / f"{i:03}.png")
    return root


def rows_of(folder, parts=("train", "test")):
    """Return (file, class, part) of all images of such a folder, in the order of `folder`."""
    paths = [path for part in parts for path in sorted((folder / part).rglob("*.png"))]
    return [(str(p.relative_to(folder)), p.parent.name, p.parts[-3]) for p in paths]


def write_csv(path, rows, header=("file", "label", "split"), delimiter=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def write_jsonl(path, rows, header=("file", "label", "split")):
    lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def csv_manifest(folder, out):
    return write_csv(folder / "labels.csv", rows_of(folder))


def jsonl_manifest(folder, out):
    """Beside the folder, by numbers of classes."""
    rows = [
        (f"{folder.name}/{file}", NAMES.index(name), part) for file, name, part in rows_of(folder)
    ]
    return write_jsonl(folder.parent / "labels.jsonl", rows, ("path", "class", "split"))


def parquet_manifest(folder, out):
    import pyarrow
    import pyarrow.parquet

    columns = zip(*rows_of(folder), strict=True)
    table = pyarrow.table(dict(zip(("file", "label", "split"), map(list, columns), strict=True)))
    pyarrow.parquet.write_table(table, folder / "labels.parquet")
    return folder / "labels.parquet"


def image_folder(folder, out):
    """As the hub has it: train/1.png beside train/metadata.csv."""
    for number, (file, name, part) in enumerate(rows_of(folder)):
        place = out / part / f"{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((folder / file).read_bytes())
        metadata = place.parent / "metadata.csv"
        if not metadata.exists():
            metadata.write_text("file_name,label\n")
        with metadata.open("a") as lines:
            lines.write(f"{place.name},{name}\n")
    return out


def _table(folder, part):
    import pyarrow

    rows = rows_of(folder, (part,))
    image = {"_type": "Image"}
    label = {"names": NAMES, "_type": "ClassLabel"}
    about = {"info": {"features": {"image": image, "label": label}}}
    schema = pyarrow.schema(
        [
            ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
            ("label", pyarrow.int64()),
        ],
        metadata={"huggingface": json.dumps(about)},
    )
    images = [
        {"bytes": (folder / file).read_bytes(), "path": file.partition("/")[2]}
        for file, _, _ in rows
    ]
    labels = [NAMES.index(name) for _, name, _ in rows]
    return pyarrow.table({"image": images, "label": labels}, schema=schema)


def parquet_files(folder, out):
    """As the hub ships image folders: data/train-00000-of-00002.parquet."""
    import pyarrow.parquet

    (out / "data").mkdir(parents=True)
    for part, count in (("train", 2), ("test", 1)):
        table = _table(folder, part)
        size = -(-len(table) // count)
        for number in range(count):
            pyarrow.parquet.write_table(
                table.slice(number * size, size),
                out / "data" / f"{part}-{number:05}-of-{count:05}.parquet",
                row_group_size=5,
            )
    return out


def arrow_folder(folder, out):
    """As `datasets.DatasetDict.save_to_disk` writes it."""
    import pyarrow

    out.mkdir()
    (out / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    for part in ("train", "test"):
        table, place = _table(folder, part), out / part
        place.mkdir()
        with pyarrow.ipc.new_stream(place / "data-00000-of-00001.arrow", table.schema) as file:
            file.write_table(table)
        files = [{"filename": "data-00000-of-00001.arrow"}]
        (place / "state.json").write_text(json.dumps({"_data_files": files}))
    return out


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def shards(folder, out):
    """train-0.tar and train-1.tar with .cls, test-0.tar with .json."""
    for part, count in (("train", 2), ("test", 1)):
        rows = rows_of(folder, (part,))
        size = -(-len(rows) // count)
        for number in range(count):
            members = []
            for file, name, _ in rows[number * size : (number + 1) * size]:
                stem = file.partition("/")[2].removesuffix(".png")
                members.append((f"{stem}.png", (folder / file).read_bytes()))
                label = NAMES.index(name)
                kind, said = ("cls", label) if part == "train" else ("json", {"label": label})
                members.append((f"{stem}.{kind}", json.dumps(said).encode()))
            write_tar(out / f"{part}-{number}.tar", members)
    return out


FORMS = {
    "csv": csv_manifest,
    "jsonl": jsonl_manifest,
    "parquet-manifest": parquet_manifest,
    "imagefolder": image_folder,
    "parquet": parquet_files,
    "arrow": arrow_folder,
    "webdataset": shards,
}
ARROW = ("parquet-manifest", "parquet", "arrow")


class Handed:
    """A map-style dataset of (PIL image, label)."""

    classes = NAMES

    def __init__(self, folder, part):
        self.rows = rows_of(folder, (part,))
        self.folder = Path(folder)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        file, name, _ = self.rows[index]
        return Image.open(self.folder / file), NAMES.index(name)
