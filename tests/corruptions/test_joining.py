"""Rows find their images, words their classes; what does not join is named."""

import unicodedata

import numpy as np
import pytest

from corruptions import Samples, labels_from, read_labels

CLEAN = np.array([0, 0, 1, 2])
PATHS = ("train/ant/1.png", "train/ant/2.png", "train/bee/1.jpg", "train/cat/x/3.png")
HELD_OUT = ("test/ant/9.png", "test/bee/1.jpg")
ANIMALS = Samples(
    clean=CLEAN, num_classes=3, class_names=("ant", "bee", "cat"), paths=PATHS, held_out=HELD_OUT
)
GIVEN = ("bee", "ant", "cat", "cat")
NUMBERS = [1, 0, 2, 2]


def join(tmp_path, text, samples=ANIMALS, labels_as="auto", key=None):
    path = tmp_path / "y.csv"
    path.write_text(text)
    joined = labels_from(read_labels(path, key), samples, labels_as)
    return joined.labels.given.tolist(), list(joined.notes)


def table(columns):
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    return "".join(f"{line}\n" for line in lines)


def named(name, cells, labels=GIVEN):
    """A file, its rows from the last to the first."""
    return table({name: list(cells)[::-1], "label": list(labels)[::-1]})


UNIQUE = Samples(
    clean=CLEAN,
    num_classes=3,
    class_names=("ant", "bee", "cat"),
    paths=("ant/a1.png", "ant/a2.png", "bee/b\u00e4r.jpg", "cat/x/c3.png"),
)


@pytest.mark.parametrize(
    ("samples", "write"),
    [
        (ANIMALS, lambda path: path),
        (ANIMALS, lambda path: f"./{path}"),
        (ANIMALS, lambda path: f"/home/me/{path}"),
        (ANIMALS, lambda path: path.replace("/", "\\")),
        (ANIMALS, lambda path: "C:\\d\\" + path.replace("/", "\\")),
        (ANIMALS, lambda path: f"a/../{path}".replace("ant", "./ant")),
        (UNIQUE, lambda path: path.rpartition("/")[2]),
        (UNIQUE, lambda path: "all/" + path.rpartition("/")[2]),
        (UNIQUE, lambda path: path.rpartition("/")[2].rpartition(".")[0]),
        (UNIQUE, lambda path: unicodedata.normalize("NFD", path)),
    ],
)
@pytest.mark.parametrize("name", ["path", "File Name", "IMAGE", "image_id", "id", "handle"])
def test_rows_are_joined_by_path(tmp_path, samples, write, name):
    given, notes = join(tmp_path, named(name, map(write, samples.paths)), samples)
    assert given == NUMBERS
    assert notes == (
        ["column 'handle' of " + str(tmp_path / "y.csv") + " was taken for the images' files"]
        if name == "handle"
        else []
    )


def test_a_path_need_not_begin_at_the_datasets_folder(tmp_path):
    inside = [path.removeprefix("train/") for path in PATHS]
    samples = Samples(clean=CLEAN, num_classes=3, class_names=ANIMALS.class_names, paths=PATHS)
    assert join(tmp_path, named("path", inside), samples) == (NUMBERS, [])
    # With a held-out image of the same name nobody knows which of the two is meant.
    with pytest.raises(ValueError, match=r"for 1 of 4 .*jpg'; 1 rows fit several .*'bee/1.jpg'"):
        join(tmp_path, named("path", inside))


@pytest.mark.parametrize("name", ["index", "IDX", "row", "id", "", "Unnamed: 0", "number"])
@pytest.mark.parametrize("form", ["{}", "{}.0", " {} "])
@pytest.mark.parametrize("paths", [PATHS, None])
def test_rows_are_joined_by_index(tmp_path, name, form, paths):
    samples = Samples(clean=CLEAN, num_classes=3, class_names=ANIMALS.class_names, paths=paths)
    given, notes = join(tmp_path, named(name, map(form.format, range(4))), samples)
    assert given == NUMBERS
    assert len(notes) == (name == "number")


def test_the_order_counts_where_nothing_else_is_there(tmp_path):
    given, notes = join(tmp_path, table({"label": GIVEN}))
    assert given == NUMBERS
    assert notes == [
        f"nothing in {tmp_path / 'y.csv'} names the images: its labels were taken in their order, "
        "and 2 of 4 agree with the dataset's"
    ]
    true = ["ant", "ant", "bee", "cat"]
    for others in ({"split": "aabb"}, {"score": [".1", ".2", ".3", ".4"]}, {"note": "xxxx"}):
        columns = {"label": GIVEN, "true_label": true, **others}
        assert join(tmp_path, table(columns)) == (NUMBERS, [])
    with pytest.raises(ValueError, match=r"differ from the dataset's in 2 of 4 .*data row 2, 3\)"):
        join(tmp_path, table({"label": GIVEN, "clean_label": ["ant", "bee", "ant", "cat"]}))


def test_more_rows_than_images(tmp_path):
    more = [*PATHS, *HELD_OUT, "dog/7.png", "", "dog/8.png"]
    given, notes = join(tmp_path, named("path", more, [*GIVEN, "ant", "", "dog", "", "bee"]))
    assert given == NUMBERS
    assert len(notes) == 2
    assert "2 rows of" in notes[0]
    assert "held-out images; left out" in notes[0]
    assert "2 rows of" in notes[1]
    assert "name no image of the dataset: 'dog/8.png', 'dog/7.png'; left out" in notes[1]


def test_rows_of_one_image(tmp_path):
    twice = [*PATHS, "./train/ant/1.png"]
    given, notes = join(tmp_path, named("path", twice, [*GIVEN, "bee"]))
    assert given == NUMBERS
    assert notes == ["1 images have several rows with equal labels: 'train/ant/1.png'"]
    with pytest.raises(
        ValueError, match=r"1 images have several rows with different labels.*1.png"
    ):
        join(tmp_path, named("path", twice, [*GIVEN, "ant"]))
    with pytest.raises(
        ValueError, match=r"1 images have several rows with different labels.*/3\.png"
    ):
        join(tmp_path, named("index", ["0", "1", "2", "3", "3"], [*GIVEN, "ant"]))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"path": PATHS[1:], "label": GIVEN[1:]}, "no row for 1 of 4 images: 'train/ant/1.png'"),
        ({"path": ["x.png"] * 4, "label": GIVEN}, "names none of the dataset's files: it has 'x"),
        (
            {"path": ["x.png"] * 4, "index": "0123", "label": GIVEN},
            "names none of the dataset's files",
        ),
        ({"path": [*PATHS[:3], ""], "label": GIVEN}, "1 rows name no image .*: data row 4"),
        (
            {"path": [*PATHS[:3], "train/cat/4.png"], "label": GIVEN},
            "no row for 1 of 4 .*3.png'; 1 of its rows name no image: 'train/cat/4.png'",
        ),
        (
            {"path": ["a/x.png", *[f"photos/{p}" for p in PATHS[1:]]], "label": GIVEN},
            "no row for 1 of 4 images: 'train/ant/1.png'",
        ),
        (
            {"path": ["o/train/ant/1.png", *[f"p/{p}" for p in PATHS[1:]]], "label": GIVEN},
            "no row for 1 of 4 images: 'train/ant/1.png'",
        ),
        ({"index": "1234", "label": GIVEN}, "'4'; they seem to count from 1: subtract 1"),
        ({"index": "012", "label": GIVEN[1:]}, "no row for 1 of 4 images: 'train/cat/x/3.png'"),
        ({"index": ["0", "1", "2", "-1"], "label": GIVEN}, r"no index in \[0, 4\) .*: '-1'"),
        ({"index": ["0", "1", "2", "9"], "label": GIVEN}, r"no index in \[0, 4\) .*: '9'"),
        ({"index": ["0", "1", "2", "2.5"], "label": GIVEN}, r"no index in \[0, 4\) .*: '2.5'"),
        ({"index": ["0", "1", "2", ""], "label": GIVEN}, "1 rows name no image"),
        ({"label": GIVEN[1:]}, "has 3 labels, but there are 4"),
        (
            {"label": GIVEN, "handle": "abcd"},
            "'handle' of .* may name the images, but fits neither",
        ),
        ({"label": GIVEN, "number": "1234"}, "'number' of .* may name the images"),
        ({"label": GIVEN, "number": "1122"}, "'number' of .* may name the images"),
        ({"label": GIVEN, "handle": ["1", "1", "2", "x"]}, "no row for 3 of 4 images"),
    ],
)
def test_rows_that_do_not_join_are_named(tmp_path, columns, says):
    with pytest.raises(ValueError, match=says) as refused:
        join(tmp_path, table(columns))
    assert "\n" not in str(refused.value)


def test_files_with_numbers_for_names(tmp_path):
    paths = ("ant/10.png", "ant/2.png", "bee/1.png", "cat/0.png")
    samples = Samples(clean=CLEAN, num_classes=3, class_names=ANIMALS.class_names, paths=paths)
    # As an index 0 to 3 these rows would be other images.
    by_name = Samples(
        clean=CLEAN,
        num_classes=3,
        class_names=ANIMALS.class_names,
        paths=("ant/3.png", "ant/2.png", "bee/1.png", "cat/0.png"),
    )
    with pytest.raises(ValueError, match=r"may name files, such as 'ant/3.png', or count images"):
        join(tmp_path, named("id", "3210"), by_name)
    assert join(tmp_path, named("path", "3210"), by_name) == (NUMBERS, [])
    assert join(tmp_path, named("index", "0123"), by_name) == (NUMBERS, [])
    with pytest.raises(ValueError, match=r"may name files, such as 'ant/10.png', or count images"):
        join(tmp_path, named("id", ["10", "2", "1", "0"]), samples)
    assert join(tmp_path, named("image", ["10", "2", "1", "0"]), samples) == (NUMBERS, [])


def test_datasets_without_files(tmp_path):
    arrays = Samples(clean=CLEAN, num_classes=3, class_names=ANIMALS.class_names)
    with pytest.raises(ValueError, match=r"names files, but the images .* add a column index"):
        join(tmp_path, named("path", PATHS), arrays)
    given, notes = join(
        tmp_path, table({"path": PATHS, "index": "3210", "label": GIVEN[::-1]}), arrays
    )
    assert given == NUMBERS
    assert "found by their index" in notes[0]


TWELVE = Samples(
    clean=np.arange(12),
    num_classes=12,
    class_names=tuple(sorted(map(str, range(12)))),
    paths=tuple(f"{name}/{name}.png" for name in sorted(map(str, range(12)))),
)


@pytest.mark.parametrize("form", ["{}", "{}.0", "{}e0"])
def test_classes_called_by_numbers(tmp_path, form):
    names = [form.format(name) for name in TWELVE.class_names]
    numbers = [form.format(number) for number in range(12)]
    by_name, by_number = (
        {"path": TWELVE.paths, "label": words, "true_label": words} for words in (names, numbers)
    )
    for columns in (by_name, by_number):
        given, notes = join(tmp_path, table(columns), TWELVE)
        assert given == list(range(12))
        # The true labels decide.
        assert not any("--labels-as" in note for note in notes)
        del columns["true_label"]
    given, notes = join(tmp_path, table(by_name), TWELVE)
    assert given == list(range(12))
    assert "read as names 12 of 12 agree with the dataset's labels, as numbers 2;" in notes[0]
    given, notes = join(tmp_path, table(by_number), TWELVE)
    assert given == [TWELVE.class_names.index(str(number)) for number in range(12)]
    assert "as names 2 of 12 agree with the dataset's labels, as numbers 12; settle" in notes[0]
    assert join(tmp_path, table(by_number), TWELVE, "numbers") == (list(range(12)), [])
    given, notes = join(tmp_path, table(by_name), TWELVE, "names")
    assert (given, any("--labels-as" in note for note in notes)) == (list(range(12)), False)


THREE = Samples(
    clean=np.array([0, 1, 2, 2]), num_classes=3, class_names=("1", "2", "3"), paths=tuple("abcd")
)


@pytest.mark.parametrize(
    ("words", "labels_as", "given"),
    [
        ("1233", "auto", [0, 1, 2, 2]),
        ("1222", "auto", [0, 1, 1, 1]),
        ("1222", "numbers", [1, 2, 2, 2]),
        ("0122", "numbers", [0, 1, 2, 2]),
        (["1.0", "2.0", "3.0", " 3"], "auto", [0, 1, 2, 2]),
    ],
)
def test_classes_that_count_from_1(tmp_path, words, labels_as, given):
    columns = {"path": THREE.paths, "label": list(words)}
    assert join(tmp_path, table(columns), THREE, labels_as)[0] == given


@pytest.mark.parametrize(
    ("words", "labels_as", "says"),
    [
        ("0122", "auto", "mixes names of classes, such as '1', with other numbers, such as '0'"),
        ("1234", "auto", "'4'; its 3 classes are '1', '2', '3'"),
        ("1233", "numbers", r"in \[0, 3\), got 3 in data row 3, 4 .*seem to count from 1"),
        ("0122", "names", "1 labels .* no classes of the dataset: '0'"),
    ],
)
def test_numbers_that_are_no_names(tmp_path, words, labels_as, says):
    with pytest.raises(ValueError, match=says):
        join(tmp_path, table({"path": THREE.paths, "label": words}), THREE, labels_as)


def test_other_rows_say_what_numbers_mean(tmp_path):
    paths = [*"abcd", "other"]
    with pytest.raises(
        ValueError, match=r"no names of the dataset's 3 classes in rows of other .*7"
    ):
        join(tmp_path, table({"path": paths, "label": "12237"}), THREE)
    # Only as numbers all of them are classes.
    given, notes = join(tmp_path, table({"path": paths, "label": "12220"}), THREE)
    assert given == [1, 2, 2, 2]
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["ant", "", "cat", "cat"], "1 labels are missing in column 'label' of y.csv: data row 2"),
        (["ant", "nan", " ", "NA"], "3 labels are missing .*: data row 2, 3, 4"),
        (["ant", "None", "7", "cat"], "1 labels are missing"),
        (["ant", "bea", "cat", "bea"], "2 labels .* no classes .*: 'bea'; did you mean 'bee'"),
        (
            ["a", "b", "c", "d"],
            "4 labels .*: 'a', 'b', 'c', ...; its 3 classes are 'ant', 'bee', 'c",
        ),
        (
            ["0", "1", "2", "3"],
            r"in \[0, 3\), got 3 in data row 4 of .*3 classes, numbered from 0$",
        ),
        (["1", "2", "3", "3"], "they seem to count from 1"),
        (["1", "1", "2", "2"], "seems to number the classes from 1: 3 of 4 labels agree"),
        (["0", "1", "-1", "2"], r"in \[0, 3\), got -1 in data row 3"),
        (["ant", "1", "2", "0"], "3 labels .* no classes of the dataset: '1', '2', '0'"),
        (["0", "1.5", "2", "0"], "labels .* no classes"),
        (["ant", "\u0661", "cat", "cat"], "no classes"),
    ],
)
def test_words_that_are_no_classes_are_named(tmp_path, labels, says):
    with pytest.raises(ValueError, match=says) as refused:
        join(tmp_path, table({"path": PATHS, "label": labels}))
    assert "\n" not in str(refused.value)


def test_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "y.csv").write_bytes(
        table({"path": PATHS, "label": ["b\xe4r", *GIVEN[1:]]}).encode("latin1")
    )
    with pytest.raises(ValueError, match=r"'b.udce4r'; .*; the file is not UTF-8"):
        labels_from(read_labels(tmp_path / "y.csv"), ANIMALS)
    # Names of files are bytes; as the file system has them they are found.
    raw = tuple(path.replace("1.png", "\udce4.png") for path in PATHS)
    samples = Samples(clean=CLEAN, num_classes=3, class_names=ANIMALS.class_names, paths=raw)
    (tmp_path / "y.csv").write_bytes(named("path", raw).encode("utf-8", "surrogateescape"))
    joined = labels_from(read_labels(tmp_path / "y.csv"), samples)
    assert joined.labels.given.tolist() == NUMBERS
    joined.labels.save(tmp_path / "y.npz")
    assert labels_from(read_labels(tmp_path / "y.npz"), samples).labels.paths == raw


@pytest.mark.parametrize("words", [[" ant"], ["ANT"], ["Ant "]])
def test_names_written_otherwise_are_said(tmp_path, words):
    given, notes = join(tmp_path, table({"path": PATHS, "label": [*words, *GIVEN[1:]]}))
    assert given == [0, 0, 2, 2]
    assert notes == [
        f"column 'label' of y.csv writes names of classes otherwise than the dataset: "
        f"{words[0]!r} for 'ant'"
    ]


def test_names_that_differ_in_case_only_are_not_guessed(tmp_path):
    samples = Samples(
        clean=CLEAN, num_classes=3, class_names=("Ant", "ant", "caf\u00e9"), paths=PATHS
    )
    labels = ["ant", "Ant", "cafe\u0301", "CAF\u00c9"]
    assert join(tmp_path, table({"path": PATHS, "label": labels}), samples)[0] == [1, 0, 2, 2]
    labels[0] = "ANT"
    with pytest.raises(ValueError, match=r"no classes of the dataset: 'ANT'"):
        join(tmp_path, table({"path": PATHS, "label": labels}), samples)


def test_a_class_may_be_called_nan(tmp_path):
    samples = Samples(clean=CLEAN, num_classes=3, class_names=("None", "cat", "nan"), paths=PATHS)
    text = table({"path": PATHS, "label": ["nan", "None", "cat", "cat"]})
    assert join(tmp_path, text, samples) == ([2, 0, 1, 1], [])
    with pytest.raises(ValueError, match=r"2 labels are missing"):
        join(tmp_path, text.replace(",nan", ",NaN").replace("None", ""), samples)


@pytest.mark.parametrize("missing", ["ant", "bee", "cat"])
def test_a_class_that_is_missing_shifts_nothing(tmp_path, missing):
    labels = [
        "bee" if name == missing == "cat" else "cat" if name == missing else name for name in GIVEN
    ]
    given, _ = join(tmp_path, table({"path": PATHS, "label": labels}))
    assert given == [ANIMALS.class_names.index(label) for label in labels]
    numbers = [str(number) for number in given]
    assert join(tmp_path, table({"path": PATHS, "label": numbers}), labels_as="numbers")[0] == given


def test_true_labels_in_another_form_than_the_given_ones(tmp_path):
    true = ["ant", "ant", "bee", "cat"]
    text = table({"path": PATHS, "label": ["1", "0", "2", "2"], "true_label": true})
    assert join(tmp_path, text) == (NUMBERS, [])
    with pytest.raises(ValueError, match=r"true labels must be classes: 1 labels .*'horse'"):
        join(tmp_path, text.replace("bee\n", "horse\n"))
    assert join(tmp_path, text.replace("bee\n", "\n"))[0] == NUMBERS
    assert join(tmp_path, text, key="true_label")[0] == CLEAN.tolist()


def test_arrays_of_numbers(tmp_path):
    np.save(tmp_path / "y.npy", np.array(NUMBERS))
    joined = labels_from(read_labels(tmp_path / "y.npy"), ANIMALS)
    assert joined.labels.given.tolist() == NUMBERS
    assert "nothing in" in joined.notes[0]
    np.save(tmp_path / "y.npy", np.array([1, 2, 3, 3]))
    file = read_labels(tmp_path / "y.npy")
    # Names of classes, for want of a class 3.
    assert labels_from(file, THREE).labels.given.tolist() == [0, 1, 2, 2]
    with pytest.raises(ValueError, match=r"\[0, 3\), got 3 in data row 3, 4 of array of y.npy"):
        labels_from(file, ANIMALS)
    np.save(tmp_path / "y.npy", np.array([1, 0, 1, 2]))
    with pytest.raises(ValueError, match=r"mixes names of classes, such as '1'"):
        labels_from(read_labels(tmp_path / "y.npy"), THREE)
    np.save(tmp_path / "y.npy", np.arange(12))
    joined = labels_from(read_labels(tmp_path / "y.npy"), TWELVE)
    assert joined.labels.given.tolist() == list(range(12))
    assert "read as numbers 12 of 12 agree" in joined.notes[0]


def test_numbers_that_count_in_another_order_are_said(tmp_path):
    for words, notes in (("1102", 1), ("0002", 0), ("0112", 0)):
        said = join(tmp_path, table({"path": PATHS, "label": words}))[1]
        assert len(said) == notes
    given, notes = join(tmp_path, table({"path": PATHS, "label": "1102"}))
    assert given == [1, 1, 0, 2]
    assert notes == [
        "1 of 4 numbers in column 'label' of y.csv are the dataset's labels; if they count the "
        "classes otherwise than it does, write names: 0 'ant', 1 'bee', 2 'cat'"
    ]


def test_the_record_of_a_joined_file_says_whose_labels_it_holds(tmp_path):
    (tmp_path / "y.csv").write_text(named("path", PATHS))
    labels = labels_from(read_labels(tmp_path / "y.csv"), ANIMALS).labels
    assert (labels.class_names, labels.paths, labels.digests) == (ANIMALS.class_names, PATHS, None)
    assert (labels.noise_type, labels.rate) == ("file", 0.5)
    assert labels.convention == "column 'label' of y.csv"
