import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustdiff.config.sections import (
    RESUMABLE,
    check_resumable,
    flat,
    read_layer,
    resolve,
    to_plain,
)

UNIT = st.floats(0, 1, exclude_max=True)
POSITIVE = st.integers(1, 10**6)


def layers():
    """Nested settings, each within its range."""
    return st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**40),
            "data": st.fixed_dictionaries(
                {}, optional={"image_size": POSITIVE, "data_dir": st.text(max_size=20)}
            ),
            "noise": st.fixed_dictionaries({}, optional={"rate": UNIT}),
            "model": st.fixed_dictionaries(
                {}, optional={"channels": st.lists(POSITIVE, min_size=1), "heads": POSITIVE}
            ),
            "train": st.one_of(
                st.fixed_dictionaries({"steps": POSITIVE}, optional={"ema": UNIT}),
                st.fixed_dictionaries({"epochs": POSITIVE}),
            ),
            "curriculum": st.fixed_dictionaries(
                {}, optional={"smoothing": UNIT, "rivals": st.none() | POSITIVE, "probes": POSITIVE}
            ),
            "sample": st.fixed_dictionaries(
                {}, optional={"v": UNIT, "steps": st.integers(1, 10_000)}
            ),
        },
    )


@settings(deadline=None)
@given(layers())
def test_a_configuration_survives_its_file(layer):
    config = resolve(layer)
    assert resolve(json.loads(json.dumps(to_plain(config)))) == config


@settings(deadline=None)
@given(layers(), layers())
def test_a_layer_over_itself_changes_nothing_and_the_last_one_wins(first, second):
    assert resolve(first, first) == resolve(first)
    assert resolve(first, second, second) == resolve(first, second)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["train", "steps", "seed", "noise", "x"]), inner)
    ),
    max_leaves=8,
)


def refusal(call, *arguments):
    """What a call says about its arguments; nothing if it takes them."""
    try:
        call(*arguments)
    except ValueError as error:
        return str(error)
    return None


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["train", "noise", "seed", "model", "y"]), JSON))
def test_wrong_settings_are_refused_by_one_line_or_taken(layer):
    said = refusal(resolve, layer)
    assert said is None or (said and "\n" not in said)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60), suffix=st.sampled_from(["toml", "json"]))
def test_any_bytes_are_a_layer_or_refused(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"fuzz.{suffix}"
    path.write_bytes(content)
    said = refusal(read_layer, path)
    assert said is None or f"fuzz.{suffix}" in said


ENTRIES = flat(to_plain(resolve()))


@pytest.mark.parametrize("key", ENTRIES)
def test_every_changed_entry_is_refused_by_name_when_a_run_is_resumed(key):
    before, now = to_plain(resolve()), to_plain(resolve())
    section, _, name = key.rpartition(".")
    (now[section] if section else now)[name] = "changed"
    if key in RESUMABLE or section in RESUMABLE:
        check_resumable(before, now)
    else:
        with pytest.raises(ValueError, match=rf'got {key} "changed" \(was'):
            check_resumable(before, now)


def test_what_may_change_exists():
    assert set(RESUMABLE) <= ENTRIES.keys() | {key.partition(".")[0] for key in ENTRIES}


def test_deep_nesting_is_refused(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json"):
        read_layer(path)
