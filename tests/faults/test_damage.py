"""Every file of a run damaged at every place: recovered, or one line; never silently wrong."""

import json
import os
import shutil
import warnings

import numpy as np
import pytest
from commands import TINY, call

from robustdiff.errors import DamagedError
from robustdiff.files.checkpoint import load_checkpoint
from robustdiff.runs.folder import Run
from robustdiff.runs.history import seconds_spent
from robustdiff.runs.scores import load_scores
from robustdiff.training.task import build_network

# Where damage differs in kind: beginning, headers, data, directory, last byte.
OFFSETS = [0, 1, 5, 9, 33, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, -60, -23, -2, -1]
# A command that reads the file.
READERS = {
    "labels.npz": ["audit", "RUN"],
    "scores.npz": ["audit", "RUN"],
    "model.safetensors": ["sample", "RUN", "--per-class=1"],
    "config.json": ["compare", "RUN"],
    "metrics.jsonl": ["train", "--resume=RUN"],
    "metrics.json": ["compare", "RUN"],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run and its evaluation."""
    folder = tmp_path_factory.mktemp("whole")
    words = [*TINY, "--noise=0.3", "--curriculum=pmi", "--steps=8", "--precision=fp32"]
    words += ["--set=sample.steps=1", "--set=train.log_every=2"]
    assert call("train", *words, "--checkpoint-every=4", f"--out={folder / 'run'}") == 0
    assert call("eval", folder / "run", "--num-samples=40") == 0
    return folder / "run"


def contents(run):
    """All that is read of a run, as plain data; says that it is damaged, or tells."""
    config, labels = run.config(), run.labels()
    network = build_network(config.model, (1, 8, 8), 10, config.seed)
    run.load_weights(network)
    scores, trust = load_scores(run)
    return {
        "config": config,
        "labels": labels.sha256,
        "scores": scores.tolist(),
        "right": trust.right.tolist(),
        "noise": str(trust.noise),  # NaN without an estimate
        "weights": [value.tolist() for value in network.state_dict().values()],
        "seconds": seconds_spent(run, 128),
    }


def damaged_copies(whole, tmp_path, name, places=OFFSETS):
    """Yield the run with one file flipped, then cut, at every kind of place."""
    content = (whole / name).read_bytes()
    for place in places:
        where = int(place * len(content)) if isinstance(place, float) else place % len(content)
        flipped = bytearray(content)
        flipped[where] ^= 1 << (where % 7)
        for kind, damaged in (("flipped", bytes(flipped)), ("cut", content[:where])):
            copy = tmp_path / "run"
            shutil.copytree(whole, copy)
            (copy / name).write_bytes(damaged)
            yield kind, where, copy
            shutil.rmtree(copy)


@pytest.mark.parametrize("name", ["labels.npz", "scores.npz", "model.safetensors"])
def test_damage_to_arrays_is_seen_or_harmless(whole, tmp_path, name):
    expected, seen = contents(Run(whole)), 0
    for kind, where, copy in damaged_copies(whole, tmp_path, name):
        try:
            found = contents(Run(copy))
        except DamagedError:
            seen += 1
            continue
        assert found == expected, (kind, where)  # such as the date of a file in the archive
        assert kind == "flipped"
    assert seen >= len(OFFSETS)


@pytest.mark.parametrize(
    "places", [OFFSETS[::7], pytest.param(OFFSETS, marks=pytest.mark.slow)], ids=["few", "all"]
)
@pytest.mark.parametrize("name", READERS)
def test_no_damage_ends_in_a_traceback(whole, tmp_path, name, places, capsys):
    for kind, where, copy in damaged_copies(whole, tmp_path, name, places):
        capsys.readouterr()
        code = call(*(word.replace("RUN", str(copy)) for word in READERS[name]))
        said = capsys.readouterr().err.splitlines()
        assert code in (0, 1, 2), (kind, where)
        assert code == 0 or said[-1].startswith("robustdiff: "), (kind, where)


def test_a_changed_configuration_is_seen_when_the_run_goes_on(whole, tmp_path, capsys):
    """Nothing verifies config.json but what its checkpoint remembers of it."""
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    file = copy / "config.json"
    text = file.read_text()
    file.write_text(text.replace('"rate": 0.3', '"rate": 0.7'))
    assert call("train", f"--resume={copy}") == 2
    assert "noise.rate 0.7 (was 0.3)" in capsys.readouterr().err
    file.write_text(text)
    assert call("train", f"--resume={copy}") == 0


@pytest.mark.parametrize("content", ["", "[]", "{", '{"detection": 3}', "[" * 100_000, "null"])
def test_damaged_figures_are_named(whole, tmp_path, content, capsys):
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    (copy / "metrics.json").write_text(content)
    assert call("compare", copy) == 2
    assert "metrics.json" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["pt", "json"])
def test_damaged_checkpoints_fall_back_at_every_kind_of_place(whole, tmp_path, suffix):
    name, fell_back = f"checkpoints/step-00000008.{suffix}", 0
    for kind, where, copy in damaged_copies(whole, tmp_path, name):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step = load_checkpoint(copy / "checkpoints").state["step"]
        assert (step, len(said)) in ((4, 1), (8, 0)), (kind, where)
        fell_back += step == 4
    # White space in the digest's file may change, or go.
    assert fell_back >= 2 * len(OFFSETS) - (3 if suffix == "json" else 0)


# Tests may run as root, who may write anywhere: a file in the place of a folder refuses everybody.
@pytest.mark.parametrize(
    ("command", "blocked"),
    [
        (["train", "--steps=2", "--out=blocked/run"], "blocked"),
        (["corrupt", "y.npy", "--noise=0.1", "--out=blocked/labels"], "blocked"),
        (["eval", "run", "--num-samples=40"], "run/samples"),
        (["sample", "run", "--per-class=1", "--out=blocked/samples"], "blocked"),
        (["audit", "run"], "run/audit.html"),
        (["compare", "run", "--out=blocked/table"], "blocked"),
        (["study", "grid.toml", "--out=blocked/study"], "blocked"),
    ],
)
def test_where_nothing_can_be_written_one_line_says_so(
    whole, tmp_path, monkeypatch, capsys, command, blocked
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "run")
    shutil.copytree(whole.parent / "evaluators", "evaluators")
    np.save("y.npy", np.arange(20) % 2)
    with open("grid.toml", "w") as file:
        file.write('preset = "digits"\n[noise.a]\n[method.b]\n')
    if os.path.isdir(blocked):
        shutil.rmtree(blocked)
        open(blocked, "w").close()
    elif os.path.exists(blocked):
        os.unlink(blocked)
        os.mkdir(blocked)
    else:
        open(blocked, "w").close()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    capsys.readouterr()
    # What is seen before the work is a mistake in what was asked.
    before = ("train", "corrupt", "sample", "compare", "study")
    assert call(*command) == (2 if command[0] in before else 1)
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("robustdiff: ")
    assert sum(line.startswith("robustdiff: ") for line in said) == 1
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    assert not [path for path in tmp_path.rglob("*.tmp")]
