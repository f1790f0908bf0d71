import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TINY, call
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robustdiff.config.layers import resolve
from robustdiff.config.presets import DEFAULT_PRESETS, preset, presets
from robustdiff.metrics import evaluator
from robustdiff.runs.folder import Run
from robustdiff.runs.history import read_history, seconds_spent
from robustdiff.training import loop as module

SHORT = [
    *TINY,
    "--set=train.batch_size=64",
    "--set=train.log_every=2",
    "--set=train.checkpoint_every=4",
    "--set=curriculum.score_every=1",
    "--precision=fp32",
]


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(out, *words):
    return call("train", "--noise=0.3", "--steps=24", *SHORT, f"--out={out}", *words)


def test_train_eval_and_sample(capsys):
    assert train("runs/one", "--curriculum=dynamics-uncond") == 0
    run = Path("runs/one")
    made = {path.name for path in run.iterdir()}
    assert made >= {
        "config.json",
        "labels.npz",
        "metrics.jsonl",
        "scores.npz",
        "model.safetensors",
        "README.md",
        "checkpoints",
        "samples",
        "tb",
    }
    assert len(list((run / "checkpoints").glob("step-*.pt"))) == 2
    assert len(list((run / "checkpoints").glob("scores-*.pt"))) == 1
    with np.load(run / "labels.npz", allow_pickle=False) as labels:
        assert labels["flipped"].sum() == round(0.3 * 1347)
        assert (labels["flipped"] == (labels["clean"] != labels["given"])).all()
    with np.load(run / "scores.npz", allow_pickle=False) as scores:
        assert scores["score"].shape == (1347,)
        assert 0 < scores["label_score"].min() <= scores["label_score"].max() == 1
    for path in (run / "checkpoints").glob("*.pt"):
        torch.load(path, weights_only=True)

    capsys.readouterr()
    assert call("eval", "--num-samples=40", "--json") == 0
    printed = capsys.readouterr().out
    result = json.loads(printed)
    assert printed.count("\n") == 1
    assert set(result) >= {
        "run", "dataset", "noise", "curriculum", "seed", "num_samples", "fid", "fid_floor",
        "class_fid", "class_fid_floor", "kid", "inception_score", "inception_score_real", "nll",
        "nll_real", "nll_per_class", "label_accuracy", "density", "coverage", "detection",
        "evaluator_sha256", "evaluator_corrected", "weights_sha256", "evaluation_seed", "sample",
        "eval",
    }  # fmt: skip
    assert set(result["detection"]) == {
        "auroc", "average_precision", "precision_at_rate",
        "flag_precision", "flag_recall", "flag_f1",
    }  # fmt: skip
    assert result == json.loads((run / "metrics.json").read_text())

    assert call("eval", "runs/one", "--num-samples=40") == 0
    shown = capsys.readouterr().out
    assert "class-wise FID" in shown
    assert f"right on {result['label_accuracy_real']:.3f} of held-out real images" in shown
    assert call("sample", "--classes=3,5", "--per-class=2", "--out=pictures") == 0
    with np.load("pictures/samples.npz") as pictures:
        assert pictures["images"].shape == (4, 1, 8, 8)
        assert pictures["labels"].tolist() == [3, 5, 3, 5]
    assert Path("pictures/samples.png").read_bytes().startswith(b"\x89PNG")

    capsys.readouterr()
    for command in ("sample", "eval", "export"):
        assert call(command, "--eta=0.5") == 2
        said = capsys.readouterr().err
        assert "sample.eta goes with sampler ddim, got dpm-solver++; give --sampler ddim" in said
    assert call("train", "runs/one", "--preset=digits") == 2
    assert "runs/one is a run, whose settings would replace" in capsys.readouterr().err
    assert call("likelihood", "--num-images=20", "--levels=2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((run / "likelihood.json").read_text())
    assert set(result["bits_per_dim"]) == {"true label", "no label", "given label"}
    assert call("likelihood", "--num-images=20", "--levels=2") == 0
    assert "given label wrong" in capsys.readouterr().out

    assert call("sweep", "--num-samples=40", "--values=0,1") == 0
    assert "coverage" in capsys.readouterr().out
    assert (run / "sweep-guidance.csv").read_text().count("\n") == 3
    assert (run / "sweep-guidance.png").exists()


def test_tensorboard_tells_right_from_wrong_labels():
    assert train("runs/one", "--curriculum=pmi") == 0
    events = EventAccumulator("runs/one/tb", size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) >= {
        "train/loss",
        "train/images_per_second",
        "scores/auroc",
        "scores/average_precision",
        "scores_right/q50",
        "scores_wrong/q50",
    }
    assert set(tags["histograms"]) >= {"label_score/right", "label_score/wrong"}
    assert set(tags["images"]) >= {
        "samples/one_column_per_class",
        "trust/least_trusted",
        "trust/most_trusted",
    }
    logged = [json.loads(line) for line in Path("runs/one/metrics.jsonl").read_text().splitlines()]
    expected = [entry["auroc"] for entry in logged if "auroc" in entry]
    shown = [event.value for event in events.Scalars("scores/auroc")]
    np.testing.assert_allclose(shown, expected, rtol=1e-6)


def test_equal_commands_give_equal_weights_whatever_the_noise_does():
    assert train("runs/a", "--curriculum=pmi") == 0
    assert train("runs/b", "--curriculum=pmi") == 0
    a, b = (load_file(f"runs/{name}/model.safetensors") for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def start(*words):
    command = [sys.executable, "-m", "robustdiff", *words]
    # As many threads as the tests themselves: sums are bit-equal only for equal thread counts.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_stopped_run_resumes_to_the_same_weights(number, code):
    words = ("train", "--noise=0.3", "--curriculum=pmi", "--steps=60", *SHORT)
    process = start(*words, "--out=runs/stopped")
    while not Path("runs/stopped/metrics.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "--resume runs/stopped" in said
    assert call("train", "--resume=runs/stopped") == 0
    assert call(*words, "--out=runs/straight") == 0
    a, b = (load_file(f"runs/{name}/model.safetensors") for name in ("stopped", "straight"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    histories = [
        [
            {key: value for key, value in json.loads(line).items() if "second" not in key}
            for line in Path(f"runs/{name}/metrics.jsonl").read_text().splitlines()
        ]
        for name in ("stopped", "straight")
    ]
    rounds = [[entry for entry in history if "labels_used" in entry] for history in histories]
    assert rounds[0] == rounds[1]


def test_resume_may_change_the_length_and_little_else(capsys):
    assert train("runs/one") == 0
    assert call("train", "--resume=latest", "--steps=28", "--set=train.log_every=3") == 0
    assert Path("runs/one/checkpoints/step-00000028.pt").exists()
    before = Path("runs/one/config.json").read_text()

    def refusal(*words):
        capsys.readouterr()
        assert call("train", "--resume=runs/one", *words) == 2
        assert Path("runs/one/config.json").read_text() == before
        return capsys.readouterr().err

    said = refusal("--noise=0.1", "--cen=add", "--set=train.lr=1")
    assert 'got model.cen "add" (was "pyramid"), noise.rate 0.1 (was 0.3), train.lr 1' in said
    assert "data.dataset" in refusal("--preset=mnist-small")
    assert "without --out" in refusal("--out=runs/two")
    assert "without --out or --dry-run" in refusal("--dry-run")
    assert "not shorter than the 28 steps that are done, got 27" in refusal("--steps=27")
    # What is as it was, is no change.
    assert call("train", "--resume=runs/one", "--noise=0.3", "--seed=0") == 0


def test_a_configuration_edited_behind_our_back_is_refused(capsys):
    assert train("runs/one") == 0
    file = Path("runs/one/config.json")
    file.write_text(file.read_text().replace('"lr": 0.001', '"lr": 0.002'))
    assert call("train", "--resume=runs/one", "--steps=28") == 2
    assert "got train.lr 0.002 (was 0.001)" in capsys.readouterr().err.splitlines()[-1]


def test_a_length_by_flag_replaces_one_by_set(capsys):
    short = [word for word in SHORT if "steps" not in str(word)]
    assert call("train", "--dry-run", "--set=train.epochs=2", "--steps=3", *short) == 0
    assert " 3 steps" in capsys.readouterr().err


def test_dry_run_writes_nothing(capsys, tmp_path):
    assert call("train", "--dry-run", *SHORT) == 0
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", presets())
def test_presets_resolve_and_are_listed(name, capsys):
    assert resolve(preset(name)).data.dataset
    assert call("presets") == 0
    assert name in capsys.readouterr().out


def test_default_presets_exist():
    assert set(DEFAULT_PRESETS.values()) <= set(presets())


def test_precedence_is_default_preset_file_set_flag(tmp_path):
    (tmp_path / "my.toml").write_text("seed = 2\n[train]\nlr = 0.5\nbatch_size = 7\n")
    words = ("--preset=digits", "--config=my.toml", "--set=train.lr=0.25", "--seed=9")
    assert call("train", *words, "--noise=0.3", "--steps=1", "--out=runs/a",
                "--set=model.channels=[8]", "--set=sample.steps=1") == 0  # fmt: skip
    config = json.loads(Path("runs/a/config.json").read_text())
    train_section = config["train"]
    assert (config["seed"], train_section["lr"], train_section["batch_size"]) == (9, 0.25, 7)
    assert train_section["steps"] == 1
    assert config["sample"]["guidance_weight"] == 1.0  # from the preset
    assert config["diffusion"]["p_uncond"] == 0.2  # the default


def test_epochs_replace_the_presets_steps():
    config = resolve(preset("digits"), {"train": {"epochs": 3}})
    assert (config.train.steps, config.train.epochs) == (None, 3)


def test_plain_output_has_no_control_characters():
    process = start("train", "--steps=2", *SHORT, "--out=runs/plain")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "\x1b" not in said
    assert "\r" not in said


def test_bad_requests_of_a_good_run(capsys):
    assert train("runs/one") == 0
    for words, says in {
        ("eval", "--num-samples=5000"): "between 10 and 430",
        ("eval", "--guidance-weight=-1"): "guidance_weight must be at least 0",
        ("eval", "--guidance-interval", "0.7", "0.2"): "low <= high",
        ("sample", "--classes=12"): "; got '12'",
        ("sample", "--classes=two"): "classes 0 to 9, '0', '1', '2', ...; got 'two'",
        ("sample", "--guidance-outside=x"): "'given'",
        ("sample", "--guidance=auto"): "sample.weak, a run, goes with",
        ("sample", "--weak=nowhere"): "nowhere is not a run",
        ("likelihood", "--num-images=451"): "between 2 and 450",
        ("likelihood", "--levels=0"): "levels must be in [1, 10000], got 0",
        ("sample", "--per-class=10000000000000"): "in [1, 1000000], got 10000000000000",
        ("sample", "--out=runs/one/config.json"): "config.json is no folder; choose another",
        ("export", "--to=runs/one/config.json/a"): "config.json is no folder, so runs/one/c",
        ("sweep", "--values=one"): "--values takes comma-separated numbers, got 'one'",
        ("sweep", "--values=1,-2"): "guidance_weight must be at least 0, got -2",
        ("sweep", "--over=steps", "--values=2.5"): "must be whole, got 2.5",
        ("sweep", "--values="): "--values takes comma-separated numbers, got ''",
        ("sweep", "--samplers="): "unknown sampler ''",
        ("sweep", "--samplers=ddmi"): "did you mean 'ddim'?",
    }.items():
        capsys.readouterr()
        assert call(*words) == 2, words
        assert says in capsys.readouterr().err


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_damaged_files_are_named(capsys):
    assert train("runs/one") == 0
    run = Path("runs/one")
    newest, older = sorted((run / "checkpoints").glob("*.pt"), reverse=True)
    damage(newest)
    with pytest.warns(UserWarning, match=f"using {older.name} instead"):
        assert call("train", "--resume=runs/one", "--steps=26") == 0
    for path in (run / "checkpoints").glob("*.pt"):
        damage(path)
    assert call("train", "--resume=runs/one", "--steps=30") == 1
    assert "SHA-256" in capsys.readouterr().err
    (run / "model.safetensors").write_bytes(b"something else")
    assert call("sample", "runs/one") == 1
    assert "model.safetensors" in capsys.readouterr().err
    (run / "labels.npz").write_bytes(b"something else")
    assert call("eval", "runs/one") == 1
    assert "labels.npz" in capsys.readouterr().err
    (run / "config.json").write_text("{")
    assert call("eval", "runs/one") == 1
    assert "config.json" in capsys.readouterr().err


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_foreign_checkpoint_is_refused_without_running_it(capsys):
    from robustdiff.files.atomic import sha256

    assert train("runs/one") == 0
    folder = Path("runs/one/checkpoints")
    for path in folder.glob("*.pt"):
        torch.save({"format": Malicious()}, path)
        path.with_suffix(".json").write_text(json.dumps({"sha256": sha256(path)}))
    assert call("train", "--resume=runs/one", "--steps=30") == 1
    assert "cannot be read as tensors" in capsys.readouterr().err
    assert not Path("executed").exists()


def test_a_class_without_images_is_named():
    from robustdiff.data.arrays import Images

    pixels, labels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="none of class 'owl'"):
        Images(
            name="birds",
            train=pixels,
            train_labels=torch.tensor([0, 0]),
            test=pixels,
            test_labels=labels,
            class_names=("crow", "owl"),
        )


def test_study_then_compare(capsys):
    Path("grid.toml").write_text(
        """
        preset = "digits"
        [base]
        model = {channels = [8], time_size = 8}
        train = {steps = 24, precision = "fp32", batch_size = 64}
        sample.steps = 2
        eval.num_samples = 40
        curriculum = {warmup = 0, probes = 1}
        [noise.clean]
        methods = ["plain"]
        [noise.half]
        rate = 0.5
        [method.plain]
        [method.pmi.curriculum]
        name = "pmi"
        """
    )
    assert call("study", "grid.toml", "--dry-run") == 0
    assert capsys.readouterr().out.count("to do runs/grid/") == 3
    assert not Path("runs").exists()
    assert call("study", "grid.toml", "--part=2/2") == 0
    assert [path.parent.name for path in Path("runs/grid").rglob("metrics.json")] == ["s0"]
    assert call("study", "grid.toml") == 0
    assert sorted(path.name for path in Path("runs/grid").iterdir()) == [
        "clean",
        "evaluators",
        "half",
    ]
    capsys.readouterr()
    assert call("compare", "runs/grid", "--out=table") == 0
    printed = capsys.readouterr().out
    assert "symmetric 0.5" in printed
    assert "AUROC" in printed
    columns = json.loads(Path("table/compare.json").read_text())[0]["values"]
    assert f"all {len(columns)} columns: table/compare.csv" in printed
    assert {path.name for path in Path("table").iterdir()} == {
        f"compare.{kind}" for kind in ("html", "md", "csv", "json", "png")
    }
    study = Path("grid.toml").read_text()
    Path("grid.toml").write_text(study.replace("steps = 24", "steps = 26"))
    assert call("study", "grid.toml", "--part=1/3") == 0
    first = Run(Path("runs/grid/clean/plain/s0"))
    assert first.config().train.steps == read_history(first)[-1]["step"] == 26
    capsys.readouterr()
    assert call("study", "grid.toml", "--dry-run") == 0
    listed = capsys.readouterr().out
    assert [listed.count(state) for state in ("done runs/", "to resume runs/")] == [1, 2]
    Path("grid.toml").write_text(study)
    with first.locked():
        assert call("study", "grid.toml", "--part=2/3") == 0
        assert call("study", "grid.toml", "--part=1/3") == 1
    said = capsys.readouterr().err
    assert "made with other settings: 24 steps (was 26); delete it or use --out" in said
    assert call("study", "grid.toml", "--part=3/2") == 2
    assert "--part takes I/N" in capsys.readouterr().err
    assert call("compare", "runs/grid/evaluators") == 2
    assert "holds no evaluated run" in capsys.readouterr().err


def test_audit_of_any_run(capsys, monkeypatch):
    monkeypatch.setattr("robustdiff.labels.crossfit._LEAST_SEEN", 2000)
    assert train("runs/pmi", "--curriculum=pmi") == 0
    assert {"audit.html", "label_issues.csv"} <= {p.name for p in Path("runs/pmi").iterdir()}
    assert train("runs/plain") == 0
    assert not Path("runs/plain/audit.html").exists()
    capsys.readouterr()
    assert call("audit", "runs/pmi") == 0
    assert "judged by: curriculum pmi" in capsys.readouterr().out
    for words in (["runs/plain"], ["runs/pmi", "--by=crossfit"]):
        assert call("audit", *words) == 0
        assert "judged by: 4 classifiers in 2 rounds" in capsys.readouterr().out
    assert call("audit", "runs/none") == 2
    assert "runs/none is not a run" in capsys.readouterr().err


def test_training_on_a_mixture_of_classes(capsys, monkeypatch):
    monkeypatch.setattr("robustdiff.labels.crossfit._LEAST_SEEN", 2000)
    assert train("runs/tdsm", "--objective=tdsm") == 0
    assert "objective tdsm" in "".join(capsys.readouterr())
    assert train("runs/class", "--objective=tdsm-class", "--set=objective.matrix=nominal") == 0
    assert train("runs/bad", "--objective=tdsm", "--curriculum=pmi") == 2
    assert "goes with curriculum 'uniform' alone" in capsys.readouterr().err
    np.save("small.npy", np.eye(3))
    assert train("runs/bad", "--objective=tdsm", "--set=objective.matrix=small.npy") == 2
    assert "objective.matrix small.npy is 3 x 3" in capsys.readouterr().err
    assert not Path("runs/bad").exists()


def test_preparation_is_no_training_time(monkeypatch):
    monkeypatch.setattr("robustdiff.labels.crossfit._LEAST_SEEN", 2000)
    monkeypatch.setattr(evaluator, "_SEEN", {False: 2000, True: 2000})
    clock, passed, make = time.perf_counter, [0.0], module.make_mixture

    def slow(task):
        passed[0] += 1e6
        return make(task)

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + passed[0])
    monkeypatch.setattr(module, "make_mixture", slow)
    assert train("runs/tdsm", "--objective=tdsm-class") == 0
    run = Run(Path("runs/tdsm"))
    assert [entry["step"] for entry in read_history(run)][:2] == [0, 2]
    training, scoring, preparing = seconds_spent(run, 64)
    assert training < 1e6 < preparing
    assert scoring == 0
    assert "(100% of all)" in (run.path / "README.md").read_text()
    assert call("eval", "runs/tdsm", "--num-samples=40") == 0
    figures = json.loads(run.metrics_file.read_text())
    assert figures["training_seconds"] == training
    assert figures["preparing_seconds"] == preparing
    assert call("train", "--resume=runs/tdsm", "--steps=26") == 0
    assert [entry["step"] for entry in read_history(run)].count(0) == 1


def test_the_temperature_of_the_posterior_and_the_time_of_scoring_are_kept(capsys, monkeypatch):
    monkeypatch.setattr(evaluator, "_SEEN", {False: 2000, True: 2000})
    assert train("runs/margin", "--curriculum=margin") == 0
    said = " ".join(capsys.readouterr().err.split())
    run = Run(Path("runs/margin"))
    assert call("eval", "runs/margin", "--num-samples=40") == 0
    figures = json.loads(run.metrics_file.read_text())
    last = read_history(run)[-1]
    assert figures["temperature"] == last["temperature"] > 0
    spent = (
        f"training {figures['training_seconds']:.1f} s, scoring {figures['scoring_seconds']:.1f} s"
    )
    assert spent in said
    assert f"estimated noise {last['estimated_noise']:.1%}: runs/margin/audit.html" in said
    card = (run.path / "README.md").read_text()
    assert f"- time: {spent}" in card
    assert f"estimated by the scores {last['estimated_noise']:.2%}" in card


def test_the_truth_about_a_folder_is_not_known():
    rng = np.random.default_rng(0)
    for number in range(40):
        path = Path(f"photos/kind {number % 2}/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (8, 8, 3)) + 127 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    words = ["--dataset=folder", "--data-dir=photos", "--image-size=8", "--curriculum=pmi"]
    short = [*SHORT, "--set=train.batch_size=8", "--steps=8", "--set=model.patch_size=2"]
    for name, rate, known in (("as it is", 0, False), ("worse", 0.25, True)):
        run = Run(Path("runs") / name)
        assert call("train", *words, *short, f"--noise={rate}", f"--out={run.path}") == 0
        events = EventAccumulator(str(run.tensorboard)).Reload().Tags()["scalars"]
        assert "noise/estimated" in events
        assert ("noise/injected" in events) == known
        card = (run.path / "README.md").read_text()
        assert ("as they are, how many are wrong is not known; estimated" in card) != known
