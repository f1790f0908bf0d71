"""Checkpoints of a run: killed at any point of writing one, or written by an earlier version."""

import pytest
import torch
from safetensors.torch import load_file
from tasks import same, small_task

from robustdiff.files import score_files
from robustdiff.files.checkpoint import load_checkpoint, save_checkpoint
from robustdiff.jobs import checkpoints
from robustdiff.jobs.checkpoints import resumed, write_checkpoint
from robustdiff.jobs.recorder import Recorder
from robustdiff.runs.folder import Run
from robustdiff.training.loop import StepDone, train
from robustdiff.training.state import new_state


def make_task(name="pmi", steps=16):
    """Four steps a pass, a scoring round after every pass."""
    sizes = {"steps": steps, "batch_size": 16, "precision": "fp32", "warmup_steps": 2}
    return small_task(
        curriculum={"name": name, "warmup": 1, "probes": 1, "mk": 1.0, "k": 1.0}, train=sizes
    )


def go(folder, task):
    """Start or resume a run with a checkpoint after every second step; return its folder."""
    folder.mkdir(exist_ok=True)
    run, state = Run(folder), new_state(task)
    saved, held = resumed(run, task)
    if saved is not None:
        state.load_state_dict(saved)
    for event in train(state, task):
        if isinstance(event, StepDone) and event.step % 2 == 0:
            held = write_checkpoint(run, task, state, Recorder(), held)
    return run


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run."""
    return go(tmp_path_factory.mktemp("straight") / "run", make_task())


def assert_equal(one, other):
    weights, again = load_file(one.weights_file), load_file(other.weights_file)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    found, expected = load_checkpoint(one.checkpoints), load_checkpoint(other.checkpoints)
    assert found.scores == expected.scores is not None
    assert found.arrays.keys() == expected.arrays.keys() >= {"evidence", "trust.right"}
    assert all((found.arrays[name] == expected.arrays[name]).all() for name in found.arrays)


def test_two_checkpoints_of_a_round_share_a_score_file_and_the_round_before_is_kept(straight):
    folder = straight.checkpoints
    assert sorted(path.stem for path in folder.glob("*.pt")) == [
        "scores-00000002", "scores-00000003", "step-00000012", "step-00000014", "step-00000016",
    ]  # fmt: skip
    assert load_checkpoint(folder).scores.name == "scores-00000003.pt"


class Killed(BaseException):
    """The end of a process at some place."""


def killed(folder, monkeypatch, owner, name, call):
    """Start a run that ends where a function is called for the so-manyth time."""
    real, calls = getattr(owner, name), []

    def fatal(*rest, **named):
        calls.append(name)
        if len(calls) == call:
            raise Killed
        return real(*rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fatal)
        with pytest.raises(Killed):
            go(folder, make_task())
    return Run(folder)


# The fifth checkpoint is the first one of the second scoring round.
PLACES = [
    (checkpoints, "save_checkpoint", 5),
    (score_files, "sha256", 2),
    (Run, "save_weights", 5),
]
MORE = [
    *((checkpoints, "save_scores", call) for call in (1, 3, 4, 5)),
    *((checkpoints, "save_checkpoint", call) for call in (1, 2, 3, 4, 6, 7, 8)),
    *((score_files, "sha256", call) for call in (1, 3)),
    *((Run, "save_weights", call) for call in (1, 3, 6)),
]


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [*PLACES, *(pytest.param(*place, marks=pytest.mark.slow) for place in MORE)],
)
def test_a_kill_while_a_checkpoint_is_written_changes_nothing(
    straight, tmp_path, monkeypatch, owner, name, call
):
    run = killed(tmp_path / "run", monkeypatch, owner, name, call)
    assert_equal(go(run.path, make_task()), straight)


def test_scores_of_a_repeated_round_that_lie_there_are_not_taken(straight, tmp_path, monkeypatch):
    """A process killed between scores and checkpoint, on a machine that rounds otherwise."""
    run = killed(tmp_path / "run", monkeypatch, checkpoints, "save_checkpoint", 5)
    newest = max(run.checkpoints.glob("scores-*.pt"))
    assert newest.name not in (run.checkpoints / "step-00000008.json").read_text()
    content = torch.load(newest, weights_only=True)
    torch.save({name: value + 1 for name, value in content.items()}, newest)
    assert_equal(go(run.path, make_task()), straight)


def test_a_run_whose_score_file_is_damaged_goes_back_a_round(straight, tmp_path):
    run = go(tmp_path / "run", make_task(steps=12))
    newest = max(run.checkpoints.glob("scores-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    task = make_task()
    with pytest.warns(UserWarning, match="its scores.* are damaged.*; using step-00000008.pt"):
        saved, held = resumed(run, task)
    assert (saved["step"], held.round) == (8, 1)
    with pytest.warns(UserWarning, match="are damaged"):
        assert_equal(go(run.path, task), straight)


@pytest.mark.parametrize(
    "name",
    [
        "pmi",
        pytest.param("forgetting", marks=pytest.mark.slow),
        pytest.param("dynamics-uncond", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path, name):
    straight = go(tmp_path / "straight", make_task(name))
    run = go(tmp_path / "run", make_task(name, steps=10))
    content, _, arrays = load_checkpoint(run.checkpoints)
    inside = {place: torch.from_numpy(array) for place, array in arrays.items()}
    score_files.join(content["curriculum"], inside)
    for path in run.checkpoints.iterdir():
        path.unlink()
    save_checkpoint(run.checkpoints, content, 10)
    assert len(list(run.checkpoints.iterdir())) == 2
    assert_equal(go(run.path, make_task(name)), straight)


def test_without_scores_a_checkpoint_stands_alone(tmp_path):
    run = go(tmp_path / "run", make_task("uniform", steps=2))
    assert not list(run.checkpoints.glob("scores-*"))
    task = make_task("uniform", steps=2)
    state = new_state(task)
    state.load_state_dict(resumed(run, task)[0])
    again = new_state(task)
    again.load_state_dict(load_checkpoint(run.checkpoints).state)
    assert same(state.model, again.model)
    assert resumed(Run(tmp_path / "none"), task) == (None, None)
