"""Text tables: encodings, delimiters, quotes, uneven rows, and which column is which."""

import numpy as np
import pytest

from corruptions import Samples, labels_from, read_labels, samples_from
from corruptions.columns import pick_columns
from corruptions.tables import Table, first_few, read_table, whole

ANIMALS = Samples(
    clean=np.array([0, 1, 2, 1]),
    num_classes=3,
    class_names=("ant", "bee", "cat"),
    paths=("ant/1.png", "bee/2.png", "cat/3.png", "bee/4.png"),
)
ROWS = [["ant/1.png", "bee"], ["bee/2.png", "bee"], ["cat/3.png", "cat"], ["bee/4.png", "ant"]]
TEXT = "path,label\n" + "".join(f"{path},{label}\n" for path, label in ROWS)


def read(tmp_path, content, name="y.csv", samples=ANIMALS, **how):
    """Given labels, and what is said about them."""
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    joined = labels_from(read_labels(tmp_path / name, how.pop("key", None)), samples, **how)
    return joined.labels.given.tolist(), joined.notes


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["y.csv", "y.tsv", "Y.CSV"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_any_delimiter_encoding_and_line_end(tmp_path, delimiter, name, coding, end):
    text = TEXT.replace(",", delimiter).replace("\n", end)
    assert read(tmp_path, text.encode(coding), name) == ([1, 1, 2, 0], ())


@pytest.mark.parametrize(
    "text",
    [
        TEXT + "\n\n",
        TEXT.replace("\n", "\n\n"),
        "\n" + TEXT,
        TEXT.replace(",bee", ',"bee"'),
        "label,path,\n" + "".join(f"{label},{path},\n" for path, label in ROWS),
        "path,label,\n" + "".join(f"{path},{label},\n" for path, label in ROWS),
        "Path ,LABEL\n" + "".join(f"{path},{label}\n" for path, label in ROWS),
        TEXT + ",\n",
    ],
)
def test_empty_lines_columns_and_quotes(tmp_path, text):
    assert read(tmp_path, text) == ([1, 1, 2, 0], ())


def test_delimiters_in_quoted_cells_are_text(tmp_path):
    (tmp_path / "y.csv").write_text('a;"b;c"\n"d,e";"f\ng"\n')
    assert read_table(tmp_path / "y.csv") == Table(
        tmp_path / "y.csv", ("a", "b;c"), [["d,e", "f\ng"]]
    )
    (tmp_path / "y.csv").write_text("label\ndog, big\ncat\n")
    assert read_table(tmp_path / "y.csv").rows == [["label"], ["dog, big"], ["cat"]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"path,label\na,b\nc,d,e\n", "too many columns in data row 2: 3, its first row has 2"),
        (b"path;label\na;b\nc\n", "too few columns in data row 2: 1"),
        (b"a;b,c\nd;e,f\n", "can be split into columns by comma and by semicolon"),
        (b'"a" b\nc\n', "tried comma, semicolon, tab, bar"),
        (b"\xff\xfea", "not a text file"),
        (b"\xff\xfe\0\0a\0\0\0", "not a text file"),
        (b"a\0b\n", "not a text file"),
        (b"\n\n", "is empty"),
        (b'"",""\n', "is empty"),
        (b"path,label,class\na,b,c\n", "several columns of labels, label, class; name the one"),
        (b"label,label\na,b\n", "several columns of labels, label, label"),
        (b"path,kind,sort\na,b,c\n", "needs a column 'given_label'; it has path, kind, sort"),
        (b"path,true_label\na,b\n", "needs a column 'given_label'; it has path, true_label"),
        (b'"a\nb",c\n1,2\n', "it has a b, c; name the one to read with --labels-key"),
    ],
)
def test_what_is_no_table_of_labels_is_refused_in_one_line(tmp_path, content, says):
    (tmp_path / "y.csv").write_bytes(content)
    with pytest.raises(ValueError, match=says) as refused:
        read_labels(tmp_path / "y.csv")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("header", "key", "label"),
    [
        ("path,given_label,label,class", None, 1),
        ("Given Label,label", None, 0),
        ("index,breed", None, 1),
        ("id,true_label,kind", None, 2),
        ("a,b,c", "b", 1),
        ("a,B ,c", "b", 1),
        ("label,Label", "Label", 1),
        ("path,true_label", "true_label", 1),
        ("path,label", "path", 0),
    ],
)
def test_the_column_of_labels(tmp_path, header, key, label):
    names = tuple(header.split(","))
    table = Table(tmp_path / "y.csv", names, [["1"] * len(names)])
    assert pick_columns(table, key).label == label


def test_columns_that_name_images(tmp_path):
    names = ("id", "image", "Row", "true_label", "label", "path", "note", "score", "handle")
    rows = [[str(n), "x", "1", "a", "b", "y", "same", f"{n}.5", f"f{n}"] for n in range(4)]
    columns = pick_columns(Table(tmp_path / "y.csv", names, rows), None)
    assert columns.paths == (5, 1)
    assert columns.indices == (2, 0)
    assert columns.either == (0,)
    assert columns.truths == (3,)
    assert columns.others == (8,)
    named = Table(tmp_path / "y.csv", ("id", "label"), [["a7", "b"], ["a8", "b"]])
    assert pick_columns(named, None).paths == (0,)


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("3", 3), (" 3 ", 3), ("3.0", 3), ("3.", 3), ("-1", -1), ("+2", 2), ("007", 7),
        ("1.200000000000000000e+01", 12), ("5e0", 5), ("3.5", None), ("1.5e0", None),
        ("9" * 18, 10**18 - 1), ("9" * 19, None), ("1e99", None), ("", None), ("nan", None),
        ("inf", None), ("1_0", None), ("\u0663", None), ("\u00b2", None), ("0x1", None),
        ("9.99999999999999999999e0", None),
    ],
)  # fmt: skip
def test_whole_numbers(word, number):
    assert whole(word) == number


def test_of_many_three_are_named():
    assert first_few([]) == ""
    assert first_few(["a", "b\n", "c"]) == "'a', 'b\\n', 'c'"
    assert first_few(iter(range(9))) == "0, 1, 2, ..."


NO_PATHS = Samples(clean=ANIMALS.clean, num_classes=3, class_names=ANIMALS.class_names)


@pytest.mark.parametrize(
    ("text", "given", "guesses"),
    [
        ("ant\nbee\ncat\nant\n", [0, 1, 2, 0], 0),
        ("label\nant\nbee\ncat\nant\n", [0, 1, 2, 0], 0),
        ("kind\nant\nbee\ncat\nant\n", [0, 1, 2, 0], 1),
        ("0\n1\n2\n0\n", [0, 1, 2, 0], 0),
        ("labels\n0\n1\n2\n0\n", [0, 1, 2, 0], 0),
        ("0.0\n1.0\n2.0\n0.0\n", [0, 1, 2, 0], 0),
    ],
)
def test_a_column_with_or_without_a_header(tmp_path, text, given, guesses):
    labels, notes = read(tmp_path, text, samples=NO_PATHS)
    assert labels == given
    assert [("taken as a header" in note) for note in notes].count(True) == guesses
    assert "nothing in" in notes[-1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ant\nbee\n\nant\n", "1 labels are missing .* data row 3"),
        ("ant\nbee\ncat\nant\n\n\n", None),
        ("ant\nbee\ncat\nbee\nant\n", "has 5 labels, but there are 4"),
        ("antt\nbee\ncat\nant\n", "has 3 labels, but there are 4"),
    ],
)
def test_one_column_is_never_shifted(tmp_path, text, says):
    if says is None:
        assert read(tmp_path, text, samples=NO_PATHS)[0] == [0, 1, 2, 0]
    else:
        with pytest.raises(ValueError, match=says):
            read(tmp_path, text, samples=NO_PATHS)


def test_a_class_that_is_called_label(tmp_path):
    samples = Samples(clean=np.array([0, 1, 0]), num_classes=2, class_names=("label", "x"))
    for text in ("label\nx\nlabel\n", "label\nlabel\nx\nlabel\n", "Label\nx\nx\n"):
        with pytest.raises(ValueError, match="may be a header or the label of the first image"):
            read(tmp_path, text, samples=samples)
    assert read(tmp_path, "kind\nlabel\nx\nlabel\n", samples=samples)[0] == [0, 1, 0]
    assert read(tmp_path, "label\nlabel\nx\nlabel\n", samples=samples, key="label")[0] == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "labels", "names", "notes"),
    [
        ("eel\ncat\neel\n", [1, 0, 1], ("cat", "eel"), 0),
        ("label\ncat\neel\n", [0, 1], ("cat", "eel"), 0),
        ("cat\neel\neel\n", [0, 0], ("eel",), 1),
        ("1\n0\n", [1, 0], None, 0),
        ("kind\n1\n0\n", [1, 0], None, 1),
        ("index,label\n2,a\n0,b\n1,c\n", [1, 2, 0], ("a", "b", "c"), 0),
        ("index,path,label\n2,x,a\n0,y,b\n1,z,c\n", [1, 2, 0], ("a", "b", "c"), 0),
        ("id,label\nx1,a\nx0,b\n", [0, 1], ("a", "b"), 0),
        ("handle,label\nx1,a\nx0,b\n", [0, 1], ("a", "b"), 1),
        ("label,path\n1.0,a\n0e0,b\n", [1, 0], None, 0),
    ],
)
def test_a_file_as_a_dataset_of_its_own(tmp_path, text, labels, names, notes):
    (tmp_path / "y.csv").write_text(text)
    samples, said = samples_from(read_labels(tmp_path / "y.csv"))
    assert samples.clean.tolist() == labels
    assert samples.class_names == names
    assert len(said) == notes


@pytest.mark.parametrize(
    ("text", "how", "says"),
    [
        ("label\na\n\nb\n", {}, "1 labels are missing in column 'label' of y.csv: data row 2"),
        ("path,label\nx,a\ny,nan\n", {}, "1 labels are missing"),
        ("path,label\nx,a\nx,b\n", {}, "1 of .* have several rows: 'x'"),
        ("index,label\n1,a\n2,b\n", {}, r"must number the 2 rows from 0 to 1, each once, got '2'"),
        ("index,label\n1,a\n1,b\n", {}, "each once, got some twice"),
        ("label\na\nb\n", {"num_classes": 3}, "have 2 names, 'a', 'b', so that there are no 3"),
        ("label\na\n1\n", {"labels_as": "numbers"}, "are not all numbers: 'a'"),
        ("path,label\n", {}, "holds no labels"),
        ("label\n0\n5\n10\n", {}, "has 3 numbers up to 10, but no 1: give --labels-as names"),
        ("label\n1\n2\n", {}, "has 2 numbers up to 2, but no 0: give --labels-as names"),
        ("label\n0\n7\n", {"labels_as": "numbers"}, "or --classes if they count"),
        ("label\n0\n30000\n", {"num_classes": 30001}, "at most 10000 classes .* up to 30000"),
    ],
)
def test_a_file_that_is_no_dataset_is_refused(tmp_path, text, how, says):
    (tmp_path / "y.csv").write_text(text)
    with pytest.raises(ValueError, match=says):
        samples_from(read_labels(tmp_path / "y.csv"), **how)


def test_numbers_as_names_and_more_classes_than_labels(tmp_path):
    (tmp_path / "y.csv").write_text("label\n1\n3\n1\n")
    file = read_labels(tmp_path / "y.csv")
    assert samples_from(file, labels_as="names")[0].class_names == ("1", "3")
    samples, notes = samples_from(file, num_classes=7)
    assert (samples.num_classes, samples.class_names, notes) == (7, None, ())
    np.save(tmp_path / "y.npy", [1, 3, 1])
    samples, notes = samples_from(read_labels(tmp_path / "y.npy"))
    assert samples.num_classes == 4
    assert "holds no label 0, 2 of 4 classes that count from 0" in notes[0]
    with pytest.raises(ValueError, match="needs no --labels-as"):
        samples_from(read_labels(tmp_path / "y.npy"), labels_as="names")
