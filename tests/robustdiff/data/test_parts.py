"""Names and contents of sub-folders: parts of a split, classes, or not certain and refused."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from robustdiff.data.parts import _TEST, _TRAIN, Content, find_parts, part_names

FLAT = Content(has_images=True, groups=frozenset())
EMPTY = Content(has_images=False, groups=frozenset())


def grouped(*names, has_images=False):
    return Content(has_images, frozenset(names or ("ant", "bee")))


@pytest.mark.parametrize(
    "name",
    [
        *("train", "TRAIN", "Training", "trn", "training_set", "TrainSet", "trainset", "train2017"),
        *("Test", "TESTING", "val", "VAL", "Valid", "validation", "eval", "Evaluation", "dev"),
        *("test_1", "held-out", "HoldOut", "hold_out", "testdata", "Test Images", "split-val"),
    ],
)
def test_usual_names_of_parts(name):
    assert list(part_names([name, "ant"])) == [name]


@pytest.mark.parametrize(
    "name", ["bullet train", "test tube", "trains", "Latest", "vale", "devil", "steam-train", "11"]
)
def test_names_that_only_contain_such_a_word(name):
    assert part_names([name, "ant"]) == {}


@pytest.mark.parametrize(
    ("train", "test"),
    [("photos-train", "photos-test"), ("seg_train", "seg_test"), ("cars train", "CARS_VAL")],
)
def test_names_that_differ_in_the_part_alone(train, test):
    assert set(part_names([train, test, "ant"])) == {train, test}
    assert part_names([train, "ant"]) == {}


@given(
    st.sampled_from([*_TRAIN, *_TEST]),
    st.sampled_from([str.lower, str.upper, str.title]),
    st.sampled_from(["{}", "{}_set", "{} images", "01_{}", "{}2017", "_{}_", "data-{}"]),
)
def test_every_word_in_any_case_and_dress(word, case, dress):
    assert part_names([dress.format(case(word))]) == {dress.format(case(word)): word}


@given(st.lists(st.text(max_size=12), max_size=6, unique=True))
@example(["train\udcff", "\udce9t\udce9"])
def test_any_names_can_be_asked_about(names):
    assert set(part_names(names)) <= set(names)


@pytest.mark.parametrize(
    ("contents", "parts"),
    [
        ({"ant": FLAT, "bee": FLAT}, []),
        ({"train": grouped()}, ["train"]),
        ({"Training": grouped(has_images=True)}, ["Training"]),
        ({"train": grouped(), "test": grouped()}, ["train", "test"]),
        ({"TRAIN": grouped(), "VAL": grouped()}, ["TRAIN", "VAL"]),
        ({"train": grouped(), "test": grouped(), "notes": EMPTY}, ["train", "test"]),
        ({"train": grouped(), "test": EMPTY}, ["train"]),
        # Other classes in both are a mistake within a split, which is refused later.
        ({"train": grouped("ant", "bee"), "test": grouped("cat")}, ["train", "test"]),
        ({"val": grouped(), "test": grouped(), "train": grouped()}, ["train", "test"]),
        ({"val": grouped(), "dev": grouped(), "train": grouped()}, ["train", "val"]),
        ({"train": grouped(), "valid": grouped(), "test": FLAT}, ["train", "valid"]),
        ({"train": grouped(), "test": grouped(), "extra": FLAT}, ["train", "test"]),
        ({"train": grouped(), "test": grouped(), "extra": grouped("x")}, ["train", "test"]),
        ({"train": grouped(), "test": grouped(), "all": grouped()}, ["train", "test"]),
        ({"ant": FLAT, "train": FLAT, "bus": FLAT}, []),
        ({"ant": FLAT, "train": FLAT, "bus": grouped("day", has_images=True)}, []),
    ],
)
def test_what_is_certain(contents, parts):
    assert find_parts(Path("d"), contents) == parts


@pytest.mark.parametrize(
    "contents",
    [
        {"train": FLAT},
        {"test": grouped()},
        {"train": FLAT, "test": FLAT},
        {"train": grouped(), "test": FLAT},
        {"train": FLAT, "test": grouped()},
        {"train": grouped(), "ant": FLAT},
        {"train": grouped(), "ant": grouped("day")},
        {"train": FLAT, "ant": grouped()},
        {"ant": FLAT, "bee": FLAT, "test": FLAT},
        {"ant": FLAT, "bee": FLAT, "eval": grouped()},
        {"train": FLAT, "test": FLAT, "ant": FLAT},
        {"train": grouped("ant", "bee"), "test": grouped("ant"), "extra": FLAT},
        {"train": grouped("day"), "test": grouped("day"), "bus": FLAT},
        {"train": grouped(), "Training": grouped()},
        {"trainA": FLAT, "trainB": FLAT, "testA": FLAT, "testB": FLAT},
    ],
)
def test_what_is_refused(contents):
    with pytest.raises(
        ValueError, match=r"^d holds .*not certain.*--split none.*--data-dir"
    ) as said:
        find_parts(Path("d"), contents)
    assert set(re.findall(r"(\w+)/ \(", str(said.value))) == set(contents)
    assert "\n" not in str(said.value)


CONTENTS = st.builds(
    Content, st.booleans(), st.frozensets(st.sampled_from(["ant", "bee", "day"]), max_size=3)
)
NAMES = st.sampled_from(["train", "Training", "TEST", "val", "eval", "ant", "bus", "bullet train"])


@given(st.dictionaries(NAMES, CONTENTS, max_size=5))
def test_a_held_out_folder_is_never_trained_on(contents):
    """Whatever lies beside it, a folder called test is held out, left out, or refused."""
    try:
        parts = find_parts(Path("d"), contents)
    except ValueError as error:
        told = str(error)
        assert "--split none" in told
        return
    held = {"TEST", "val", "eval"}
    full = {name for name, content in contents.items() if any(content)}
    if parts:
        assert parts[0] in {"train", "Training"}
        assert held.issuperset(parts[1:])
        assert len(parts) == 2 or full == {parts[0]}
    else:
        assert not full & held
        assert not any(contents[name].groups for name in full & {"train", "Training"})
