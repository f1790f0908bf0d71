"""Many processes train one model as one would, and survive each other's deaths."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from commands import TINY, call
from robustdiff.cli.app import main
from safetensors.torch import load_file

from robustdiff import parallel
from robustdiff.parallel import Workers
from robustdiff.runs import folder as runs
from robustdiff.shared_memory import can_share

WORDS = [
    "train", *TINY, "--noise=0.3", "--steps=50", "--precision=fp32", "--set=train.batch_size=129",
    "--set=curriculum.warmup=1", "--checkpoint-every=10", "--set=train.log_every=10",
]  # fmt: skip
# One curriculum of each kind that processes measure together.
MEASURED = ["pmi", pytest.param("dynamics-uncond", marks=pytest.mark.slow)]


# Runs in a process that knows nothing of the tests.
WORK = """
import os, torch
os.environ |= {env!r}
torch.set_num_threads(1)
from robustdiff.cli.app import main
main({words!r})
"""


def together(context, words, size, code=WORK):
    """Run a command as torchrun does, or other code; return the exit codes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    group = []
    for rank in map(str, range(size)):
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(size)}
        env |= {"LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        filled = code.format(env=env if size > 1 else {}, words=words)
        group.append(context.Process(target=exec, args=(filled, {})))
    for process in group:
        process.start()
    for process in group:
        process.join()
    return [process.exitcode for process in group]


def history(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def assert_agree(run, other):
    with np.load(run / "labels.npz") as one, np.load(other / "labels.npz") as two:
        np.testing.assert_array_equal(one["given"], two["given"])
    with np.load(run / "scores.npz") as one, np.load(other / "scores.npz") as two:
        spread = one["score"].std()
        np.testing.assert_allclose(two["score"], one["score"], atol=1e-3 * spread, rtol=0)
    np.testing.assert_allclose(history(other), history(run), rtol=1e-5)
    one, two = (load_file(folder / "model.safetensors") for folder in (run, other))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module", params=MEASURED)
def alone(request, processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    words = [*WORDS, f"--curriculum={request.param}"]
    assert together(processes, [*words, f"--out={folder / 'one'}"], 1) == [0]
    return folder / "one", words


def test_two_processes_agree_with_one(processes, alone, tmp_path):
    run, words = alone
    assert together(processes, [*words, f"--out={tmp_path / 'two'}"], 2) == [0, 0]
    assert_agree(run, tmp_path / "two")


@pytest.mark.parametrize(
    "plan",
    [
        [(2, True), (1, False)],
        pytest.param([(1, False), (2, True), (3, True)], marks=pytest.mark.slow),
        pytest.param([(2, False), (4, False), (1, False)], marks=pytest.mark.slow),
        pytest.param([(2, True), (4, True), (2, False)], marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_with_another_number_of_processes(processes, alone, tmp_path, plan):
    run, words = alone
    out = tmp_path / "run"
    lengths = [20, 40, 50][-len(plan) :]
    for number, ((size, shard), steps) in enumerate(zip(plan, lengths, strict=True)):
        start = ["train", f"--resume={out}"] if number else [*words, f"--out={out}"]
        command = [*start, f"--steps={steps}", *(["--shard"] if shard else [])]
        assert together(processes, command, size) == [0] * size
    with np.load(run / "scores.npz") as one, np.load(out / "scores.npz") as two:
        spread = one["score"].std()
        np.testing.assert_allclose(two["score"], one["score"], atol=1e-3 * spread, rtol=0)
    one, two = (load_file(folder / "model.safetensors") for folder in (run, out))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--curriculum=crossfit"], ["--objective=tdsm"]])
def test_classifiers_agree_as_well(processes, tmp_path, words):
    one, two = tmp_path / "one", tmp_path / "two"
    assert together(processes, [*WORDS, *words, f"--out={one}"], 1) == [0]
    assert together(processes, [*WORDS, *words, f"--out={two}"], 2) == [0, 0]
    for name, weight in load_file(one / "model.safetensors").items():
        again = load_file(two / "model.safetensors")[name]
        torch.testing.assert_close(again, weight, rtol=1e-3, atol=1e-4)


def test_metrics_of_two_processes_are_those_of_one(processes, alone):
    run, _ = alone
    found = []
    for size in (1, 2):
        assert together(processes, ["eval", str(run), "--num-samples=100"], size) == [0] * size
        found.append(json.loads((run / "metrics.json").read_text()))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        close = pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value
        assert found[1][name] == close, name


DYING = """
import os, signal, sys
import robustdiff.training.loop as module
from robustdiff.cli.app import main

step = module.train_step
def fatal(state, *rest, **named):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and state.step == 25 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(state, *rest, **named)
module.train_step = fatal
main(sys.argv[1:])
"""


def torchrun(size, *words):
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}",
         *words],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_a_dead_process_ends_the_job_and_a_restart_goes_on(processes, tmp_path, size):
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    words = [*WORDS, "--curriculum=pmi"]
    assert together(processes, [*words, f"--out={tmp_path / 'whole'}"], size) == [0] * size

    run = tmp_path / "dead"
    ended = torchrun(size, "--max-restarts=0", str(script), *words, f"--out={run}")
    assert ended.returncode == 1
    assert "Signal 9 (SIGKILL)" in ended.stderr
    assert (run / "checkpoints" / "step-00000020.pt").exists()

    run = tmp_path / "restarted"
    again = torchrun(size, "--max-restarts=1", str(script), *words, f"--out={run}")
    assert again.returncode == 0, again.stderr
    assert "resumed at step 20 of 50" in again.stderr
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    for name, weight in load_file(run / "model.safetensors").items():
        torch.testing.assert_close(weight, whole[name], rtol=0, atol=0)
    assert history(run) == history(tmp_path / "whole")


def test_a_mistake_met_by_the_leader_ends_all(processes, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    assert together(processes, [*WORDS, f"--out={tmp_path / 'full'}"], 2) == [2, 1]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("mistake", [ValueError, AssertionError])
def test_one_of_several_leaves_without_finalising_python(size, mistake, monkeypatch, capfd):
    """Threads of a group outlive it, and must not meet an interpreter that is being taken down."""

    def fail(path):
        raise mistake("what went wrong")

    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(runs, "open_run", fail)
    monkeypatch.setattr(parallel, "_member", False)
    for name, value in {"RANK": "0", "WORLD_SIZE": str(size)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(parallel, "rendezvous", lambda url: iter([(dist.HashStore(), 0, size)]))
    for name in ("init_process_group", "broadcast_object_list"):
        monkeypatch.setattr(dist, name, lambda *_, **__: None)

    expected = mistake if mistake is AssertionError and size == 1 else SystemExit
    with pytest.raises(expected):
        main(["train", "--resume=run"])
    code = 2 if mistake is ValueError else 1
    assert left == ([code] if size == 2 else [])
    said = capfd.readouterr().err
    if expected is SystemExit:
        assert "what went wrong" in said
        assert ("Traceback" in said) == (mistake is AssertionError)


SHARING = """
import os, pathlib, sys
os.environ |= {env!r}
import numpy as np
import torch.distributed as dist
from curricula import Trust
from curricula.sparse import keep_few, unknown
from robustdiff.errors import LeaderError
from robustdiff.parallel import joined
from robustdiff.labels.rows import merged_rows

def work():
    assert workers.rank == 0, "only the first of a host works"
    few = keep_few(np.arange(4000.0).reshape(1000, 4), np.zeros(1000, dtype=int), 2)
    return Trust(np.arange(1000.0), 0.5, few, few), "words"

def fail():
    raise ValueError("no")

with joined("cpu") as workers:
    found, words = workers.on_host(work)
    assert words == "words" and found.classes is found.image_classes
    if workers.rank == 1:
        found.right[0] = 7  # a copy of its own
    dist.barrier()
    assert found.right[0] == (7 if workers.rank == 1 else 0)
    assert (found.right[1:] == np.arange(1, 1000)).all()
    assert found.classes.shape == (1000, 4) and (found.classes.classes == [0, 3]).all()
    maps = pathlib.Path("/proc/self/maps").read_text()
    assert "memfd:robustdiff (deleted)" in maps
    assert not list(pathlib.Path("/dev/shm").glob("*robustdiff*"))
    part, mine = unknown(1000, 4, 2), slice(workers.rank, None, 2)
    for name in ("values", "classes", "rest"):
        getattr(part, name)[mine] = getattr(found.classes, name)[mine]
    merged = merged_rows(workers, part, chosen=True)
    assert (merged[:] == found.classes[:]).all() and merged.classes.dtype == np.int16
    part.classes[:] = merged.classes
    again = merged_rows(workers, part, chosen=False)
    assert (again[:] == merged[:]).all()
    try:
        workers.on_host(fail)
        sys.exit(3)
    except (ValueError, LeaderError) as error:
        assert isinstance(error, LeaderError) == (workers.rank == 1)
"""


@pytest.mark.skipif(not can_share(), reason="this system has no memory without a name")
def test_processes_of_a_host_share_one_copy_that_has_no_name(processes):
    assert together(processes, None, 2, code=SHARING) == [0, 0]


SCORES = """
import os, pathlib
os.environ |= {env!r}
folder, hosts = pathlib.Path({words!r}[0]), {words!r}[1]
if hosts == 2:  # each with a disk of its own
    os.environ |= dict(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    folder = folder / os.environ["RANK"]
import torch
from robustdiff.files.checkpoint import save_scores
from robustdiff.files.score_files import as_arrays, scores_everywhere, write_where_unseen
from robustdiff.parallel import joined

classes = torch.arange(1000).to(torch.int16)
mine = dict(right=torch.ones(1000), classes=classes, again=classes)

def read(file, value):
    sent = as_arrays(mine | dict(right=torch.full((1000,), value))) if workers.leader else None
    found = scores_everywhere(folder, file, sent, workers)
    assert found.keys() == mine.keys() and found["again"] is found["classes"]
    assert (found["classes"] == range(1000)).all()
    return found["right"]

with joined("cpu") as workers:
    assert workers.place == (0 if hosts == 2 else workers.rank)
    file = workers.from_leader(lambda: save_scores(folder, mine, 3, None))
    write_where_unseen(folder, file, mine, set([file.name]), workers)
    assert (folder / file.name).exists()
    own = 1 if hosts == 2 and workers.rank == 1 else 7
    assert (read(file, 7) == own).all()
    if own == 1:
        (folder / file.name).write_bytes(b"damaged")
    assert (read(file, 8) == 8).all()
    if own == 1:
        (folder / file.name).unlink()
    assert (read(file, 9) == 9).all()
    assert (read(None, 5) == 5).all()  # a checkpoint of an earlier version
"""


@pytest.mark.skipif(not can_share(), reason="this system has no memory without a name")
@pytest.mark.parametrize("hosts", [1, 2])
def test_a_host_reads_scores_where_it_sees_them_and_gets_the_others(processes, tmp_path, hosts):
    assert together(processes, [str(tmp_path), hosts], 2, code=SCORES) == [0, 0]


HIDDEN = """
import os
os.environ |= {env!r}
from robustdiff import parallel

def hidden(handle):
    raise PermissionError(handle.path)

if os.environ["RANK"] == "1":
    parallel.get = hidden
with parallel.joined("cpu") as workers:
    assert workers.place is None
    assert workers.on_host(lambda: workers.rank) == workers.rank
"""


@pytest.mark.skipif(not can_share(), reason="this system has no memory without a name")
def test_where_memory_cannot_be_mapped_every_process_has_its_own(processes):
    assert together(processes, None, 2, code=HIDDEN) == [0, 0]


def test_parts_are_disjoint_and_complete():
    parts = [Workers(rank, 3).share(torch.arange(10)) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("name", "value"), [("WORLD_SIZE", "x"), ("WORLD_SIZE", "0"), ("RANK", "-1"), ("RANK", "")]
)
def test_what_torchrun_sets_is_named_when_it_is_wrong(name, value, monkeypatch, capsys):
    monkeypatch.setattr(parallel, "_member", False)
    for variable, number in ({"RANK": "0", "WORLD_SIZE": "2"} | {name: value}).items():
        monkeypatch.setenv(variable, number)
    assert call("train", "--resume=run") == 2
    said = capsys.readouterr().err
    assert f"environment variable {name} must be a whole number" in said
    assert f"got {value!r}" in said


def test_sharding_needs_company(capsys):
    assert call("train", "--shard") == 2
    assert "--shard spreads a model over processes, got one" in capsys.readouterr().err


@pytest.mark.parametrize("command", [
    "sample", "sweep", "likelihood", "audit", "report", "review", "correct", "corrupt", "export",
    "compare",
])  # fmt: skip
def test_what_is_not_shared_out_takes_one_process(command, monkeypatch, capsys):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert call(command, "runs/none") == 2
    said = f"robustdiff: {command} takes one process, got 2; start it without torchrun\n"
    assert capsys.readouterr().err == said


def test_a_rank_alone_is_no_company(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert call("report", "runs/none") == 2
    assert "is not a run" in capsys.readouterr().err
