import json
import math
import typing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import MODES
from corruptions.words import READINGS
from curricula import CURRICULA, TREATMENTS
from robustdiff.config import names, roles
from robustdiff.config.bounds import Within
from robustdiff.config.layers import flat, read_layer, resolve, to_plain
from robustdiff.config.roles import check_resumable, distinguishing, keys_of, role_of
from robustdiff.config.sections import TrainConfig
from robustdiff.data import registry
from robustdiff.diffusion import schedules
from robustdiff.diffusion.noise_levels import LOG_SNR_DISTRIBUTIONS
from robustdiff.diffusion.process import PREDICTIONS
from robustdiff.diffusion.samplers import SAMPLERS
from robustdiff.jobs.model import GUIDES
from robustdiff.labels.crossfit import EFFORTS
from robustdiff.reports.logs import LOGS

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
            "judge": st.fixed_dictionaries(
                {},
                optional={
                    "effort": st.sampled_from(["quick", "default", "thorough"]),
                    "folds": st.none() | st.integers(2, 5),
                    "rounds": st.none() | st.integers(1, 4),
                    "flip": st.none() | st.booleans(),
                },
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


def test_a_layer_that_says_nothing_of_the_length_leaves_the_default():
    default = resolve().train
    assert resolve({"train": {"device": "cpu"}}).train == replace(default, device="cpu")
    assert resolve({"train": {"epochs": 3}}).train == replace(default, steps=None, epochs=3)
    assert "exactly one" in (refusal(resolve, {"train": {"steps": 2, "epochs": 3}}) or "")


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
    if role_of(key) in ("length", "evaluation", "place", "logging", "speed"):
        check_resumable(before, now)
    else:
        with pytest.raises(ValueError, match=rf'got {key} "changed" \(was'):
            check_resumable(before, now)


def test_every_role_is_that_of_a_setting_or_of_a_section():
    assert set(roles._ROLES) <= ENTRIES.keys() | {key.partition(".")[0] for key in ENTRIES}
    everything = keys_of(*typing.get_args(roles.Role))
    assert everything == list(ENTRIES)


def test_what_sets_runs_apart_is_what_changes_a_result():
    apart = distinguishing(ENTRIES)
    assert {"train.lr", "noise.rate", "sample.eta", "eval.num_samples", "train.steps"} <= set(apart)
    assert not {"seed", "data.data_dir", "train.device", "train.log_every", "sample.compile"} & set(
        apart
    )


def test_deep_nesting_is_refused(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json"):
        read_layer(path)


@pytest.mark.parametrize(
    ("name", "text"), [("c.toml", "[noise]\nrate = 0.5\n"), ("c.json", '{"noise": {"rate": 0.5}}')]
)
def test_a_byte_order_mark_is_no_text(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read_layer(tmp_path / name) == {"noise": {"rate": 0.5}}


REGISTRIES = {
    "DatasetName": registry.DATASETS,
    "JudgeEffort": EFFORTS,
    "CurriculumName": CURRICULA,
    "TreatmentName": TREATMENTS,
    "NoiseMode": MODES,
    "LabelsAsName": {"auto", *READINGS},
    "ScheduleName": schedules.SCHEDULES,
    "SpacingName": schedules.SPACINGS,
    "PredictionName": PREDICTIONS,
    "TimeSamplingName": {"uniform", *LOG_SNR_DISTRIBUTIONS},
    "SamplerName": SAMPLERS,
    "GuidanceName": GUIDES,
    "LogName": LOGS,
}


@pytest.mark.parametrize("name", REGISTRIES)
def test_the_names_of_a_setting_are_the_keys_of_its_registry(name):
    assert set(typing.get_args(getattr(names, name))) == set(REGISTRIES[name])


def test_names_without_a_registry_are_few():
    literals = {name for name, value in vars(names).items() if typing.get_args(value)}
    # Two branches each, in one function that raises nothing else.
    branches = {"BadImage", "ObjectiveName", "LossWeightName", "FeaturesName", "SplitName"}
    assert literals - REGISTRIES.keys() == branches


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "said"),
    [
        (Within(1), [1, 2.5, math.inf], [0, 0.99, math.nan], "at least 1"),
        (Within(0, without="low"), [1e-9, 3], [0, -1], "positive"),
        (Within(2, without="low"), [3], [2], "above 2"),
        (Within(high=2), [2, -math.inf], [2.1], "at most 2"),
        (Within(high=2, without="high"), [1.9], [2], "below 2"),
        (Within(0, 1), [0, 1], [-0.1, 1.1], "in [0, 1]"),
        (Within(0, 1, without="high"), [0], [1], "in [0, 1)"),
        (Within(0, 1, without="low"), [1], [0], "in (0, 1]"),
    ],
)
def test_bounds_say_what_they_allow(bounds, inside, outside, said):
    assert all(number in bounds for number in inside)
    assert not any(number in bounds for number in outside)
    assert str(bounds) == said


def test_bounds_hold_however_a_section_is_made():
    for make in (lambda: TrainConfig(steps=0), lambda: resolve({"train": {"steps": 0}})):
        with pytest.raises(ValueError, match=r"^train\.steps must be at least 1, got 0$"):
            make()


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ({"folds": 1}, "judge.folds must be in [2, 5], got 1"),
        ({"folds": 6}, "judge.folds must be in [2, 5], got 6"),
        ({"rounds": 0}, "judge.rounds must be in [1, 4], got 0"),
        ({"effort": "most"}, "judge.effort: Input should be 'quick', 'default' or 'thorough'"),
        (
            {"probabilities": "p.npy", "features": "f.npy"},
            "at most one of judge.probabilities and judge.features, got 'p.npy' and 'f.npy'",
        ),
    ],
)
def test_the_judge_is_given_what_it_can_do(judge, said):
    assert said in refusal(resolve, {"judge": judge})


def test_a_configuration_from_before_the_judge_had_settings_has_its_defaults():
    old = to_plain(resolve({"curriculum": {"name": "crossfit"}}))
    del old["judge"]
    assert resolve(old) == resolve({"curriculum": {"name": "crossfit"}})
    assert role_of("judge.folds") == "training"
