"""What is listed of a folder, what is held out, and what is left out, counted and said."""

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustdiff.data.layout import Layout, list_folder
from robustdiff.data.listing import LeftOut, summary

PNG = b"\x89PNG\r\n\x1a\n"


def touch(root, *paths, content=b""):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def classes(root, names=("ant", "bee"), count=5):
    touch(root, *(f"{name}/{i}.png" for name in names for i in range(count)))


def paths(layout, *, is_test):
    return [entry.path for entry in layout.listed if entry.is_test == is_test]


def test_the_split_is_what_it_always_was(tmp_path):
    """Recorded before the listing was rewritten: the same files in the same order."""
    for name, count in (("ant", 13), ("bee wing", 7), ("Cat", 5)):
        touch(tmp_path, *(f"{name}/{'' if i % 4 else 'more/'}IMG_{i}.png" for i in range(count)))
    layout = list_folder(tmp_path)
    assert paths(layout, is_test=True) == [
        "Cat/IMG_1.png",
        "Cat/IMG_3.png",
        "ant/IMG_10.png",
        "ant/more/IMG_12.png",
        "ant/more/IMG_8.png",
        "bee wing/IMG_1.png",
        "bee wing/more/IMG_0.png",
    ]
    listed = repr([tuple(entry) for entry in layout.listed]).encode()
    assert hashlib.sha256(listed).hexdigest()[:16] == "f493149412831643"
    assert layout.class_names == ("Cat", "ant", "bee wing")


def test_the_first_line_says_classes_images_and_split(tmp_path):
    classes(tmp_path, [f"c{i}" for i in range(7)], count=10)
    assert list_folder(tmp_path).describe("photos") == [
        "photos: 7 classes (c0, c1, c2, c3, c4, ...), 56 images to train on, 14 held out "
        "(a fifth of every class, by file name)"
    ]


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("training", "validation"), ("TRAIN", "VAL")]
)
def test_parts_in_any_case(tmp_path, train, test):
    classes(tmp_path / train, count=3)
    classes(tmp_path / test, count=1)
    layout = list_folder(tmp_path)
    assert layout.class_names == ("ant", "bee")
    assert paths(layout, is_test=False)[0] == f"{train}/ant/0.png"
    assert paths(layout, is_test=True) == [f"{test}/ant/0.png", f"{test}/bee/0.png"]
    assert layout.describe("d") == [
        f"d: 2 classes (ant, bee), 6 images to train on, 2 held out ({test}/)"
    ]


def test_split_none_takes_every_sub_folder_as_a_class(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "test")
    layout = list_folder(tmp_path, "none")
    assert layout.class_names == ("test", "train")
    assert len(layout.listed) == 20
    assert layout.describe("d")[1] == (
        "images in sub-folders of their class: 20 (first: test/ant/0.png)"
    )


def test_a_class_called_train_beside_other_classes(tmp_path):
    classes(tmp_path, ("bus", "train", "tram"))
    assert list_folder(tmp_path).class_names == ("bus", "train", "tram")


def test_of_two_held_out_parts_test_is_taken_and_none_is_trained_on(tmp_path):
    for part in ("val", "test", "train"):
        classes(tmp_path / part, count=3)
    layout = list_folder(tmp_path)
    assert {entry.path.split("/")[0] for entry in layout.listed} == {"train", "test"}
    assert layout.describe("d")[1] == "left out: 6 images in val/ (first: val/ant/0.png)"


def test_parts_within_the_classes_are_refused(tmp_path):
    """They would be trained on: all that lies below a class belongs to it."""
    classes(tmp_path, ("ant/train", "ant/Test", "bee/train", "bee/Test"))
    with pytest.raises(ValueError, match=r"has a folder 'Test' within a class.*--split none"):
        list_folder(tmp_path)
    assert len(list_folder(tmp_path, "none").listed) == 20


def test_parts_with_other_classes_are_refused_by_name(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "val", ("ant",))
    with pytest.raises(ValueError, match=r"train has a class 'bee' that .*val has not.*split none"):
        list_folder(tmp_path)
    classes(tmp_path / "val", ("bee", "cat"))
    with pytest.raises(ValueError, match=r"val has a class 'cat' that .*train has not.*split none"):
        list_folder(tmp_path)


def test_everything_else_is_counted_and_said_once(tmp_path):
    classes(tmp_path)
    touch(tmp_path, ".DS_Store", "ant/._0.png", "ant/.ipynb_checkpoints/0.png", ".git/x.png")
    touch(tmp_path, "__MACOSX/ant/0.png", "bee/@eaDir/0.png", "bee/Thumbs.db", "bee/desktop.ini")
    touch(tmp_path, "ant/notes.txt", "labels.csv", "bee/b.json", "ant/none")
    touch(tmp_path, "ant/0.HEIC", "ant/1.heic", "loose.png", "ant/deep/er/x.png")
    touch(tmp_path, "ant/IMG_1", "bee/x.jpeg_large", content=PNG)
    (tmp_path / "ant/more").symlink_to(tmp_path / "bee")
    (tmp_path / "cat").symlink_to(tmp_path / "gone")
    layout = list_folder(tmp_path)
    assert layout.class_names == ("ant", "bee")
    assert len(layout.listed) == 11
    nested, left_out = layout.describe("d")[1:]
    assert nested == "images in sub-folders of their class: 1 (first: ant/deep/er/x.png)"
    assert left_out == (
        "left out: 2 hidden files (first: .DS_Store), 2 hidden folders (first: .git), "
        "2 tool folders (first: __MACOSX), 1 link to nothing (cat), "
        "4 files of another kind (first: labels.csv), 1 image in no class folder (loose.png), "
        "2 .heic files that nothing installed reads (first: ant/0.HEIC), "
        "2 images without an image's extension (first: ant/IMG_1), "
        "1 link to a folder (ant/more), 2 tool files (first: bee/Thumbs.db)"
    )


@pytest.mark.parametrize("last", ["lock", "labels.npz", "samples", "published"])
@pytest.mark.parametrize("place", ["runs", "runs/study", "audits", ""])
def test_what_robustdiff_writes_beside_classes_is_never_taken_for_one(tmp_path, place, last):
    classes(tmp_path)
    run = f"{place}/one".removeprefix("/")
    touch(tmp_path, *(f"{run}/{name}" for name in (".lock", ".config.json.1.tmp")))
    (tmp_path / run / "tb").mkdir()
    if last != "lock":
        touch(tmp_path, f"{run}/labels.npz")
    if last == "samples":
        touch(tmp_path, *(f"{run}/{name}" for name in ("config.json", "samples/step-1.png")))
    if last == "published":
        touch(tmp_path, *(f"{run}/{name}" for name in ("robustdiff.json", "samples.png")))
    layout = list_folder(tmp_path)
    assert layout.class_names == ("ant", "bee")
    assert len(layout.listed) == 10
    assert layout.left_out == [LeftOut(run.partition("/")[0], "folder", "of runs")]


def test_a_class_called_runs_keeps_its_images_but_no_samples(tmp_path):
    classes(tmp_path, ("runs", "walks", "audits/few"))
    touch(
        tmp_path, *(f"runs/one/{name}" for name in ("config.json", "labels.npz", "samples/x.png"))
    )
    layout = list_folder(tmp_path, whole=True)
    assert layout.class_names == ("audits", "runs", "walks")
    assert len(layout.listed) == 15
    assert layout.left_out == [LeftOut("runs/one", "folder", "of a run")]


def test_a_figure_beside_runs_makes_no_class_of_them(tmp_path):
    classes(tmp_path)
    touch(tmp_path, "runs/one/config.json", "runs/one/labels.npz", "runs/table/compare.png")
    layout = list_folder(tmp_path)
    assert "runs" not in layout.class_names
    assert LeftOut("runs", "folder", "of runs") in layout.left_out


def test_linked_class_folders_are_followed_and_others_left_out(tmp_path):
    classes(tmp_path / "elsewhere", ("ant", "bee"))
    root = tmp_path / "d"
    root.mkdir()
    for name in ("ant", "bee"):
        (root / name).symlink_to(tmp_path / "elsewhere" / name)
    for name in ("ant/again", "up"):
        (root / name).symlink_to(root)  # an endless walk, if it were followed
    layout = list_folder(root)
    assert layout.class_names == ("ant", "bee")
    assert len(layout.listed) == 10
    assert layout.left_out == [LeftOut(name, "link", "to a folder") for name in ("up", "ant/again")]


@pytest.mark.parametrize(
    ("link", "target"), [("cat", "ant"), ("cat", "bee/deep"), ("deep", "ant/deep")]
)
def test_links_that_give_an_image_two_classes_are_refused(tmp_path, link, target):
    classes(tmp_path)
    classes(tmp_path, ("ant/deep", "bee/deep"))
    (tmp_path / link).symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match=rf"{link}.* hold the same files.* one class"):
        list_folder(tmp_path)


def test_a_held_out_part_that_is_the_training_part_is_refused(tmp_path):
    classes(tmp_path / "train")
    (tmp_path / "test").symlink_to(tmp_path / "train")
    with pytest.raises(ValueError, match="hold the same files"):
        list_folder(tmp_path)


def test_a_refusal_says_what_was_left_out(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.heic" for name in ("ant", "bee") for i in range(9)))
    with pytest.raises(ValueError, match=r"'ant' has 0 \(left out: 18 \.heic files that nothing"):
        list_folder(tmp_path)


def test_names_of_any_bytes_pass_through(tmp_path):
    for name in (b"caf\xe9", b"bee"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        for i in range(5):
            Path(os.fsdecode(folder + b"/\xff%d.png" % i)).touch()
    layout = list_folder(tmp_path)
    assert layout.class_names == ("bee", "caf\udce9")
    assert layout.listed[-1].path.startswith("caf\udce9/\udcff")


def test_a_folder_that_cannot_be_listed_ends_the_listing(tmp_path, monkeypatch):
    classes(tmp_path)
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "bee":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="bee"):
        list_folder(tmp_path)


def test_summary_counts_by_reason():
    left_out = [LeftOut("a", "file"), LeftOut("b", "file"), LeftOut("c", "link", "to nothing")]
    assert summary(left_out) == "2 files (first: a), 1 link to nothing (c)"


# Random trees: each top is a name and what lies in it.
TOPS = st.sampled_from(["train", "Training", "TEST", "val", "eval", "ant", "bus", "bullet train"])
CLUTTER = st.sampled_from(
    (
        *(".hidden/x.png", ".DS_Store", "__MACOSX/x.png", "notes.txt", "x.heic", "magic"),
        *("deep/y.png", "deep/.h/z.png", "dead", "dead.png", "link", "pipe", "pipe.png"),
    )
)
BITS = st.frozensets(CLUTTER, max_size=3)
PLACE = st.tuples(st.frozensets(st.sampled_from(["", "ant", "bee", "bus"]), max_size=4), BITS)
FULL, FLAT = (st.tuples(st.just(frozenset(names)), BITS) for names in (("ant", "bee"), ("",)))
ANY = st.dictionaries(TOPS, PLACE, min_size=1, max_size=4)
SPLIT = st.dictionaries(st.sampled_from(["Training", "TEST", "val", "eval"]), FULL, min_size=2)
BESIDE = st.dictionaries(st.sampled_from(["extra", "bus"]), PLACE, max_size=1)
CLASSES = st.dictionaries(st.sampled_from(["ant", "train", "bus", "cat"]), FLAT, min_size=2)
TREES = st.tuples(
    st.one_of(ANY, SPLIT, st.builds(dict.__or__, SPLIT, BESIDE), CLASSES),
    st.frozensets(CLUTTER, max_size=2),
)


def add_clutter(folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.startswith("dead"):
        path.symlink_to("gone")
    elif name == "link":
        path.symlink_to(folder, target_is_directory=True)
    elif name.startswith("pipe"):
        os.mkfifo(path)
    else:
        path.write_bytes(PNG if name == "magic" else b"")


def plant(root, tree):
    tops, beside = tree
    for top, (groups, clutter) in tops.items():
        (root / top).mkdir()
        for group in groups:
            touch(root / top / group, *(f"{i}.png" for i in range(5)))
        for name in clutter:
            add_clutter(root / top, name)
    for name in beside:
        add_clutter(root, name)


def accounted(root: Path, layout: Layout) -> None:
    """Check that every file and link is listed or left out, by itself or with its folder, once."""
    listed = [entry.path for entry in layout.listed]
    left = [path for path, _, _ in layout.left_out]
    assert len({*listed, *left}) == len(listed) + len(left)
    for where, folders, files in os.walk(root):
        for name in [*files, *(f for f in folders if (Path(where) / f).is_symlink())]:
            path = (Path(where) / name).relative_to(root)
            above = {str(parent) for parent in path.parents}
            assert (str(path) in listed) + (str(path) in left) + len(above & set(left)) == 1, path


@settings(max_examples=80, deadline=None)
@given(TREES, st.sampled_from(["auto", "auto", "none"]))
def test_every_file_is_used_or_left_out_with_a_reason_or_the_folder_is_refused(tree, split):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plant(root, tree)
        try:
            layout = list_folder(root, split)
        except ValueError as error:
            told = str(error)
            assert "\n" not in told
            assert any(words in told for words in ("--split none", "at least", "the same files"))
            return
        accounted(root, layout)
        assert {entry.label for entry in layout.listed} <= set(range(len(layout.class_names)))
        held = {"TEST", "val", "eval"}
        for entry in layout.listed:
            parts = entry.path.split("/")
            name = parts[0] if layout.held_out.startswith("a fifth") else parts[1]
            if parts[0] in ("train", "Training") and layout.class_names[entry.label] != parts[0]:
                name = parts[1]
            assert layout.class_names[entry.label] == name
            assert split == "none" or entry.is_test or parts[0] not in held
