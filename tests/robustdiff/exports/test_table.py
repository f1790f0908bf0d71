"""The table of corrected labels is read back as it was written, whatever its names are."""

import numpy as np
import pytest
from correcting import NAMES, corrected_at_random, given_labels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corruptions import Samples, labels_from, read_labels
from corruptions.labels import CORRECTED
from robustdiff.exports.table import write_table

# Names of folders: anything but "/" and NUL; no leading dot, and not what trims to nothing.
words = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)),
    min_size=1,
    max_size=9,
).filter(lambda word: word.strip() == word and not word.startswith("."))


def read(path, before):
    samples = Samples(
        clean=before.clean, num_classes=len(before.nominal), class_names=before.class_names,
        paths=before.paths,
    )  # fmt: skip
    return labels_from(read_labels(path), samples).labels


def hostile():
    return given_labels([f"{name}/{i}.png" for name in NAMES for i in range(5)])


@pytest.mark.parametrize("truth_known", [True, False])
def test_a_table_comes_back(tmp_path, truth_known):
    corrected = corrected_at_random(hostile())
    write_table(tmp_path / "c.csv", corrected, truth_known=truth_known)
    found = read(tmp_path / "c.csv", corrected.before)
    assert found.given.tolist() == corrected.labels.tolist()
    assert found.decided_by == corrected.decided_by
    assert (found.noise_type == CORRECTED) != truth_known


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(words, min_size=2, max_size=5, unique_by=str.casefold), st.integers(0, 9))
def test_a_table_of_any_names_comes_back(tmp_path, names, seed):
    before = given_labels([f"{name}/{i}.png" for name in names for i in range(3)], tuple(names))
    corrected = corrected_at_random(before, seed)
    write_table(tmp_path / "c.csv", corrected, truth_known=False)
    found = read(tmp_path / "c.csv", before)
    assert found.given.tolist() == corrected.labels.tolist()
    assert found.decided_by == corrected.decided_by


@pytest.mark.parametrize("name", ["cr\rx", "a\r\nb", "a\r\r\nb"])
def test_a_carriage_return_in_a_name_comes_back(tmp_path, name):
    before = given_labels(
        [f"{one}/{i}\r.png" for one in (name, "b") for i in range(3)], (name, "b")
    )
    corrected = corrected_at_random(before)
    write_table(tmp_path / "c.csv", corrected, truth_known=False)
    found = read(tmp_path / "c.csv", before)
    assert found.given.tolist() == corrected.labels.tolist()
    assert found.decided_by == corrected.decided_by


def test_a_word_that_nobody_decides_by_is_refused(tmp_path):
    corrected = corrected_at_random(hostile())
    write_table(tmp_path / "c.csv", corrected, truth_known=False)
    text = (tmp_path / "c.csv").read_text().replace(",judge,", ",oracle,")
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(ValueError, match="must hold given, judge, person, removed, got 'oracle'"):
        read(tmp_path / "c.csv", corrected.before)


def test_labels_are_the_same_as_those_of_the_record(tmp_path):
    corrected = corrected_at_random(hostile())
    corrected.record(truth_known=False).save(tmp_path / "c.npz")
    write_table(tmp_path / "c.csv", corrected, truth_known=False)
    one, other = (read(tmp_path / f"c.{kind}", corrected.before) for kind in ("npz", "csv"))
    np.testing.assert_array_equal(one.given, other.given)
    assert one.decided_by == other.decided_by
