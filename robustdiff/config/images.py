"""The section of config.json about the images: which, where they lie, what their columns are."""

import dataclasses
from typing import Annotated

from robustdiff.config import names
from robustdiff.config.bounds import Within, check_bounds

Count = Annotated[int, Within(1)]
# Which datasets each entry about columns is for.
_TABLES = ("manifest", "imagefolder", "parquet", "arrow")
_USED_BY = {
    "image_column": _TABLES,
    "label_column": (*_TABLES, "webdataset"),
    "split_column": _TABLES,
    "class_names": (*_TABLES, "webdataset", "arrays"),
    "image_root": ("manifest",),
}
# Sources of which one image can be read alone and soon: of parquet it is a whole row group.
_DECODABLE = ("folder", "manifest", "imagefolder", "arrow", "webdataset")
# What a source of one's own is called in a sentence, where the name of its kind says little.
_IN_WORDS = {
    "folder": "a folder of images",
    "manifest": "images listed in a table",
    "imagefolder": "a folder of images with metadata",
    "parquet": "images in parquet files",
    "arrow": "images in arrow files",
    "webdataset": "images in tar shards",
    "arrays": "images handed over in Python",
}


def dataset_in_words(name: str) -> str:
    """Return what a dataset, or a kind of source of one's own, is called in a sentence."""
    return _IN_WORDS.get(name, name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images.

    Attributes:
        dataset: Name of the dataset, or kind of a source of one's own; see docs/data.md.
        data_dir: Folder in torchvision's layout, or the folder or file of a source of one's own;
            not used by digits.
        download: Fetch a missing dataset into data_dir.
        image_size: Side in pixels that images get; None is their own, 32 for those of one's own.
        copy: Whether decoded images of one's own are kept on disk and mapped into memory; if not,
            they are decoded whenever they are used.
        on_bad_image: What to do about files of one's own that cannot be read.
        split: How the parts of a source are read: "auto" takes train and test, under any usual
            names, as parts where that is certain; "none" takes every sub-folder as a class, and
            the rows of all splits together.
        train_size: Training images to use, an equal share of every class; None for all.
        whole: Whether all of a source is its training part: to be audited, not trained on.
        image_column: Column of the images or their files; None for the one of a usual name.
        label_column: Column of the labels, or what holds them in a shard; None like image_column.
        split_column: Column that says train or test; None for "split" where there is one.
        class_names: Names of the classes in their order, separated by commas, or a .txt file with
            one a line; None for those of the source, or the labels themselves, sorted.
        image_root: Folder that the files of a manifest are relative to; None for its own.
    """

    dataset: names.DatasetName = "digits"
    data_dir: str = "data"
    download: bool = False
    image_size: Count | None = None
    copy: bool = True
    on_bad_image: names.BadImage = "refuse"
    split: names.SplitName = "auto"
    train_size: Count | None = None
    whole: bool = False
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    class_names: str | None = None
    image_root: str | None = None

    def __post_init__(self) -> None:
        check_bounds(self, "data")
        for key, users in _USED_BY.items():
            value = getattr(self, key)
            if value is not None and self.dataset not in users:
                raise ValueError(
                    f"data.{key} goes with dataset {', '.join(users)}, got {value!r} beside "
                    f"dataset {self.dataset!r}"
                )
        if not self.copy and self.dataset not in _DECODABLE:
            raise ValueError(
                f"data.copy false (--no-copy) goes with dataset {', '.join(_DECODABLE)}, whose "
                f"images can be read one by one, got dataset {self.dataset!r}"
            )
