"""Runs made longer, runs that lose their terminal, and what is checked before the first step."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from commands import TINY, call
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robustdiff.classifiers import noisy_image
from robustdiff.config.layers import resolve
from robustdiff.jobs.audit import audit_run
from robustdiff.jobs.train import resume_run, start_run
from robustdiff.labels import crossfit
from robustdiff.metrics import evaluator
from robustdiff.progress import Report
from robustdiff.runs.folder import Run

SMALL = {
    "model": {"channels": [8], "time_size": 8},
    "train": {"steps": 8, "decay_steps": 3, "batch_size": 32, "precision": "fp32"},
    "sample": {"steps": 1},
    "noise": {"rate": 0.3},
    "curriculum": {"name": "pmi", "warmup": 0, "probes": 1, "score_every": 1},
}


def trained(folder, steps, **more):
    config = resolve(SMALL, {"train": {"steps": steps, **more}})
    return start_run(config, folder, Report()), config


def stopped(folder, config, step):
    """A run that was killed at a step."""

    class Stops(Report):
        def progress(self, task, done, total, note=""):
            if task == "training" and done == step:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_run(config, folder, Stops())
    return Run(folder)


def outcome(run):
    scores = np.load(run.scores_file)
    return load_file(run.weights_file), {name: scores[name] for name in scores}


def equal(one, other):
    weights = all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    scores = (np.array_equal(a, other[1][name], a.dtype.kind == "f") for name, a in one[1].items())
    return weights and all(scores)  # where there is no estimate both are NaN


@pytest.mark.parametrize("grown", [[12], [11, 14]])
def test_a_run_whose_rate_fell_grows_into_one_that_was_long_from_the_start(grown, tmp_path):
    run, _ = trained(tmp_path / "short", 8, checkpoint_every=2, sample_every=4)
    for steps in grown:
        resume_run(
            run, resolve(SMALL, {"train": {"steps": steps, "checkpoint_every": 2}}), Report()
        )
    long, _ = trained(tmp_path / "long", grown[-1])
    assert equal(outcome(run), outcome(long))
    steps = [json.loads(line)["step"] for line in run.history_file.read_text().splitlines()]
    assert steps == sorted(steps)
    # Grids of weights that were given up are gone.
    drawn = sorted(file.name for file in run.samples.glob("step-*.png"))
    assert drawn == ["step-00000004.png", f"step-{grown[-1]:08d}.png"]


def test_tensorboard_that_is_named_late_has_its_layout(tmp_path):
    run, _ = trained(tmp_path / "run", 4, log=["csv"])
    resume_run(run, resolve(SMALL, {"train": {"steps": 8}}), Report())
    read = EventAccumulator(str(run.tensorboard), size_guidance={"tensors": 0}).Reload()
    assert "custom_scalars__config__" in read.Tags()["tensors"]


def test_a_growth_that_was_interrupted_does_not_go_on_from_the_fallen_rate(tmp_path):
    run, _ = trained(tmp_path / "short", 8, checkpoint_every=2)
    longer = resolve(SMALL, {"train": {"steps": 12}})
    run.save_config(longer)  # what a process killed at once leaves
    resume_run(run, longer, Report())
    long, _ = trained(tmp_path / "long", 12)
    assert equal(outcome(run), outcome(long))


def test_a_run_that_becomes_shorter_than_planned_is_one_that_was_short_from_the_start(tmp_path):
    longer = resolve(SMALL, {"train": {"steps": 12, "checkpoint_every": 2}})
    run = stopped(tmp_path / "run", longer, 7)
    resume_run(run, resolve(SMALL), Report())
    short, _ = trained(tmp_path / "short", 8)
    assert equal(outcome(run), outcome(short))
    again = stopped(tmp_path / "again", longer, 7)
    (again.checkpoints / "step-00000004.pt").unlink()
    with pytest.raises(ValueError, match="a run of its length or of 8 steps"):
        resume_run(again, resolve(SMALL), Report())


def test_a_run_that_makes_no_step_keeps_what_an_audit_found(tmp_path):
    run, config = trained(tmp_path / "run", 8)
    audit_run(run, config, Report(), by="crossfit")
    before = run.judged_file.read_bytes()
    page = (run.path / "audit.html").read_bytes()
    resume_run(run, config, Report())
    assert run.judged_file.read_bytes() == before
    assert (run.path / "audit.html").read_bytes() == page
    resume_run(run, resolve(SMALL, {"train": {"steps": 10}}), Report())
    assert not run.judged_file.exists()


def test_without_a_checkpoint_from_before_the_fall_growing_is_refused(tmp_path):
    run, _ = trained(tmp_path / "short", 8)
    (run.checkpoints / "step-00000005.pt").unlink()
    with pytest.raises(ValueError, match="no checkpoint from before the learning rate falls"):
        resume_run(run, resolve(SMALL, {"train": {"steps": 12}}), Report())
    resume_run(run, resolve(SMALL), Report())  # as it was


@pytest.fixture(autouse=True)
def _short_classifiers(monkeypatch):
    monkeypatch.setattr(evaluator, "_SEEN", {False: 500, True: 500})
    monkeypatch.setattr(crossfit, "_SMALL_LEAST", 500)
    monkeypatch.setattr(noisy_image, "_LEAST_SEEN", 500)


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def photos(root, counts, side=8):
    for label, count in enumerate(counts):
        for i in range(count):
            path = root / f"class{label:03d}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(1000 * label + i).integers(0, 256, (side, side))
            Image.fromarray(pixels.astype(np.uint8)).save(path)


WORDS = ("train", "--dataset=folder", "--data-dir=photos", "--image-size=8", "--steps=2", *TINY)


@pytest.mark.parametrize(
    "more", ["--curriculum=margin", "--curriculum=crossfit", "--objective=tdsm"]
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_class_that_nobody_was_given_is_named_before_the_work(more, dry, in_folder, capsys):
    photos(in_folder / "photos", [10, 10, 10])
    np.save("y.npy", np.zeros(24, dtype=np.int64))
    np.save("y.npy", np.repeat([0, 1, 1], 8))
    words = (*WORDS, more, "--labels=y.npy", *([] if dry else ["--out=run"]), *dry)
    assert call(*words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "needs labels of each, but 1 of 3 are given to no image, the first is 'class002'" in said
    assert not (in_folder / "run").exists()
    assert call(*WORDS, "--curriculum=pmi", "--labels=y.npy", "--out=run") == 0


@pytest.mark.parametrize(
    ("counts", "missing"),
    [([10, 10], ["density", "coverage"]), ([5, 30], ["density", "coverage"])],
)
def test_a_small_folder_is_evaluated_as_far_as_it_goes(counts, missing, in_folder, capsys):
    photos(in_folder / "photos", counts)
    assert call(*WORDS, "--out=run") == 0
    assert f"too few images are held out for {', '.join(missing)}" in capsys.readouterr().err
    assert call("eval", "run") == 0
    assert "too few images" in capsys.readouterr().out
    metrics = json.loads(Run(in_folder / "run").metrics_file.read_text())
    assert all(metrics[name] is None for name in missing)
    assert metrics["fid"] >= 0
    assert call("compare", "run") == 0


def test_one_held_out_image_of_a_class_leaves_out_the_class_wise_distance(in_folder, capsys):
    for part, counts in (("train", [8, 8, 2]), ("test", [9, 9, 1])):
        photos(in_folder / "photos" / part, counts)
    assert call(*WORDS, "--out=run") == 0
    assert "too few images are held out for class-wise FID" in capsys.readouterr().err
    assert call("eval", "run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["class_fid"] is None
    assert call("eval", "run", "--num-samples=6") == 2
    assert "between 3 and 3" in capsys.readouterr().err
    assert call(*WORDS, "--set=eval.num_samples=6", "--out=other") == 2
    assert "between 3 and 3" in capsys.readouterr().err
    assert not (in_folder / "other").exists()


def test_tiny_images_are_trained_on_and_evaluated(in_folder):
    photos(in_folder / "photos", [30, 30], side=4)
    words = [word for word in WORDS if "image-size" not in word]
    assert call(*words, "--image-size=4", "--curriculum=crossfit", "--out=run") == 0
    assert call("eval", "run") == 0


def test_images_that_say_nothing_about_their_labels_accuse_nobody(in_folder, capsys):
    for name in ("a", "b"):
        for i in range(20):
            path = in_folder / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(path)
    assert call(*WORDS, "--curriculum=crossfit", "--out=run") == 0
    said = capsys.readouterr().err
    assert "0 of 32 labels look wrong, no evidence about the share of wrong labels" in said
    assert "no evidence" in (in_folder / "run" / "audit.html").read_text()
    assert "the scores have no evidence" in (in_folder / "run" / "README.md").read_text()


COMMAND = [sys.executable, "-m", "robustdiff"]
DIGITS = ("train", "--steps=100000", *TINY, "--set=train.log_every=5", "--out=run")


def start(**more):
    """Train in another process that writes what it says to the file "said"."""
    with open("said", "w") as said:
        return subprocess.Popen([*COMMAND, *DIGITS], stderr=said, **more)


def until_it_trains(lines=1):
    """Wait until progress has been shown so often."""
    for _ in range(1200):
        with open("said") as said:
            if said.read().count("\ntraining ") >= lines:
                return
        time.sleep(0.05)
    raise AssertionError("it did not train")


def test_a_terminal_that_is_gone_saves_the_run(in_folder):
    def heed():  # tests started by nohup would hand on that they ignore it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    process = start(preexec_fn=heed)
    until_it_trains()
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert list((in_folder / "run" / "checkpoints").glob("step-*.pt"))


def test_nohup_trains_on(in_folder):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start(preexec_fn=ignore)
    until_it_trains()
    process.send_signal(signal.SIGHUP)
    until_it_trains(2)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM


def test_training_outlives_a_reader_of_its_progress(in_folder):
    words = [word.replace("100000", "12") for word in DIGITS]
    with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE) as process:
        process.stderr.readline()
        process.stderr.close()
        assert process.wait(120) == 0
    assert (in_folder / "run" / "model.safetensors").exists()


def test_an_ascii_terminal_shows_what_it_can(in_folder):
    (in_folder / "y.csv").write_text("label\nKätzchen\nHund\nKätzchen\nHund\n", encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [*COMMAND, "corrupt", "y.csv", "--noise=0.5", "--out=n"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "K\\xe4tzchen" in done.stdout


@pytest.mark.parametrize("seed", [2**64, 10**30])
def test_seeds_have_any_size(seed, in_folder):
    assert call(*(w.replace("100000", "2") for w in DIGITS), f"--seed={seed}") == 0
    assert call("eval", "run", f"--seed={seed}", "--num-samples=20") == 0
    assert call("sample", "run", f"--seed={seed}", "--per-class=1") == 0


def test_bytes_that_are_no_utf8_work_end_to_end(in_folder, capsys):
    photos(in_folder / "photos", [12, 12])
    root = os.fsencode(in_folder / "photos")
    os.rename(root + b"/class001", root + b"/caf\xe9")
    os.rename(root + b"/class000/3.png", root + b"/class000/\xff\xfe.png")
    words = (*WORDS, "--curriculum=crossfit")
    assert call(*words, f"--out={os.fsdecode(b'run-' + bytes([233]))}") == 2
    assert "must have a UTF-8 name, got run-" in capsys.readouterr().err
    assert call(*words, "--out=run") == 0
    for command in ("eval", "audit", "sample"):
        assert call(command, "run") == 0
    assert call("compare", "run") == 0
    assert b"caf\xe9/" in (in_folder / "run" / "label_issues.csv").read_bytes()
    (in_folder / "run" / "audit.html").read_text()
    assert call("corrupt", "photos", f"--out={os.fsdecode(b'labels-' + bytes([233]))}") == 0
    record = os.fsdecode(b"labels-" + bytes([233])) + "/labels"
    for form in ("csv", "npz"):
        assert call(*WORDS, f"--labels={record}.{form}", f"--out=again-{form}") == 0
    given = [Run(in_folder / f"again-{form}").labels().given.tolist() for form in ("csv", "npz")]
    assert given[0] == given[1]


def test_a_picture_of_many_classes_shows_some_of_them(in_folder):
    photos(in_folder / "photos", [6] * 60)
    assert call(*WORDS, "--out=run") == 0
    assert call("sample", "run", "--per-class=1") == 0
    assert call("eval", "run") == 0
    for path in (in_folder / "run" / "samples").glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width == 40 * 50 + 2
    assert len(list((in_folder / "run" / "samples" / "images").iterdir())) == 60
