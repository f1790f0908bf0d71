from itertools import islice

import numpy as np
import pytest
from tasks import SMALL, run, same, small_task

from curricula import CURRICULA
from robustdiff.training.loop import StepDone, train
from robustdiff.training.rounds import RoundDone
from robustdiff.training.state import new_state

pytestmark = pytest.mark.usefixtures("quick_classifiers")
COMBINATIONS = [
    *((name, None) for name in CURRICULA),
    ("crossfit", "soft"),
    ("margin", "relabel"),
    ("margin", "select"),
    ("small-loss", "reweight"),
    ("dynamics-uncond", "null"),
]
ROTATED = [
    {"curriculum": {"name": name, "rotate": 2}}
    for name in ("pmi", "margin", "aum", "forgetting", "dynamics-cond")
]
LAYERS = [
    *({"curriculum": {"name": name, "treatment": how}} for name, how in COMBINATIONS),
    *ROTATED,
    # Rounds come due within epochs, which are shorter than passes.
    {"curriculum": {"name": "dynamics-uncond", "k": 0.8}, "train": {"steps": 18}},
    {"objective": {"name": "tdsm"}},
    {"objective": {"name": "tdsm-class", "gradient": "given", "matrix": "nominal"}},
]


# "margin" tries all classes in its first round, which takes seconds each time.
SLOW = [
    *({"curriculum": {"name": "margin", "treatment": how}} for how in ("relabel", "select")),
    {"curriculum": {"name": "margin", "rotate": 2}},
]


@pytest.mark.parametrize(
    "layer",
    [pytest.param(x, marks=pytest.mark.slow if x in SLOW else ()) for x in LAYERS],
    ids=str,
)
def test_stopped_and_resumed_equals_uninterrupted(layer):
    task = small_task(**layer)
    straight, events = run(task)
    for stop in range(1, len(events), 3):
        first = new_state(task)
        done = list(islice(train(first, task), stop))
        second = new_state(task)
        second.load_state_dict(first.state_dict())
        rest = run(task, second)[1]
        assert same(second.ema, straight.ema)
        assert same(second.model, straight.model)
        for a, b in zip(done + rest, events, strict=True):
            assert type(a) is type(b)
            if isinstance(a, StepDone):
                assert a == b
            elif isinstance(a, RoundDone):
                np.testing.assert_array_equal(a.scores, b.scores)
                np.testing.assert_array_equal(a.trust.right, b.trust.right)
                np.testing.assert_array_equal(a.label_used, b.label_used)


def test_a_grown_run_equals_a_long_one():
    short = small_task(curriculum={"name": "pmi"}, train={"steps": 5})
    state, _ = run(short)
    long = small_task(curriculum={"name": "pmi"})
    run(long, state)
    assert same(state.ema, run(long)[0].ema)


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr("robustdiff.device.shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="and there is none"):
        new_state(small_task(train=SMALL["train"] | {"compile": True}))
