"""Hostile files and names: nothing executed, nothing written elsewhere, nothing steered."""

import ast
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call
from robustdiff.cli.console import plain, printable

from corruptions import NoisyLabels, corrupt, read_labels
from robustdiff.classifiers.noisy_image import TimeClassifier
from robustdiff.config.layers import resolve
from robustdiff.data.registry import load_images
from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256
from robustdiff.files.checkpoint import load_checkpoint, save_checkpoint
from robustdiff.files.score_files import ScoreFile
from robustdiff.jobs import model as models
from robustdiff.progress import Report
from robustdiff.reports.card import write_card
from robustdiff.reports.compare import ABOVE, COLUMNS, GAP, Row, markdown
from robustdiff.reports.markdown import plain_text
from robustdiff.runs.folder import Run
from robustdiff.runs.making import create_run
from robustdiff.runs.scores import load_scores
from robustdiff.training.task import build_network

ROOT = Path(__file__).parents[2]
HOSTILE = '<img src=x onerror="alert(1)">|[red]`$(id)`\x1b[31m\n# [x](http://e.vil)'


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run():
    """A run that was never trained, with every file that commands read."""
    labels = corrupt(np.arange(1347) % 10, num_classes=10, rate=0.2)
    run = create_run(Path("run"), resolve({"model": {"channels": [8], "time_size": 8}}), labels)
    run.checkpoints.mkdir()
    run.metrics_file.write_text("{}")
    run.history_file.write_text("{}")
    return run


def as_pickle(path):
    path.write_bytes(pickle.dumps(Malicious(), 2))


def as_torch(path):
    torch.save({"state": Malicious()}, path)


def as_array(path):
    with path.open("wb") as file:
        np.save(file, np.array([Malicious()]), allow_pickle=True)


def as_archive(path):
    with path.open("wb") as file:
        objects = np.array([Malicious()])
        names = ("score", "label_right", "estimated_noise", "clean", "given", "matrix")
        np.savez(file, description=objects, **dict.fromkeys(names, objects))


FORMS = [as_pickle, as_torch, as_array, as_archive]
READ = {
    "labels.npz": ["audit", "run"],
    "scores.npz": ["audit", "run"],
    "model.safetensors": ["sample", "run"],
    "config.json": ["sample", "run"],
    "metrics.json": ["compare", "run"],
    "checkpoints/step-00000004.pt": ["train", "--resume=run"],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", READ)
def test_a_pickle_in_the_place_of_a_file_of_a_run_is_refused(run, name, form, capsys):
    path = run.path / name
    form(path)
    if path.suffix == ".pt":
        digest = {"sha256": sha256(path)}  # whoever can write one can write both
        path.with_suffix(".json").write_text(json.dumps(digest))
    if name == "scores.npz":
        with pytest.raises(DamagedError):
            load_scores(run)
    else:
        assert call(*READ[name]) in (1, 2)
        assert capsys.readouterr().err.splitlines()[-1].startswith("robustdiff: ")
    assert not Path("executed").exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", ["npz", "npy", "pt", "csv", "json", "toml"])
def test_a_pickle_in_the_place_of_a_users_file_is_refused(form, suffix, capsys):
    form(Path(f"evil.{suffix}"))
    np.save("y.npy", np.arange(20) % 2)
    asked = {
        "json": [["train", "--config=evil.json"], ["train", "--noise=0.1",
                 "--noise-type=asymmetric", "--class-map=evil.json"]],
        "toml": [["train", "--config=evil.toml"], ["study", "evil.toml"]],
    }.get(suffix, [["train", f"--labels=evil.{suffix}"],
                   ["corrupt", f"evil.{suffix}", "--out=o"]])  # fmt: skip
    if suffix in ("npy", "csv"):
        asked.append(["train", f"--noise-matrix=evil.{suffix}"])
    if suffix == "npy":
        asked.append(["corrupt", "y.npy", "--out=o", "--features=evil.npy",
                      "--noise-type=instance-dependent-unit"])  # fmt: skip
    for words in asked:
        assert call(*words) == 2
        assert f"evil.{suffix}" in capsys.readouterr().err
    assert not Path("executed").exists()
    assert not Path("o").exists()


@pytest.mark.parametrize("form", FORMS)
def test_pickles_in_caches_are_refused(form, tmp_path, monkeypatch):
    from robustdiff.data.image_cache import read_cache

    index = '{"fingerprint": "f", "digests": ["d"], "bad": [], "dim": []}'
    for name in (None, "c.json", "c-f.npy"):
        (tmp_path / "c.json").write_text(index)
        np.save(tmp_path / "c-f.npy", np.zeros((1, 1, 8, 8), dtype=np.uint8))
        if name is not None:
            form(tmp_path / name)
        assert (read_cache(tmp_path / "c", "f") is None) == (name is not None)
    assert not Path("executed").exists()


def test_the_pickles_of_these_tests_would_have_worked():
    pickle.loads(pickle.dumps(Malicious()))  # noqa: S301 the test's own
    assert Path("executed").exists()


# What can execute a file's content, or a shell: each is used here, in this way, and nowhere else.
LOADERS = {
    "torch.load": {("weights_only", True)},
    "np.load": {("allow_pickle", False)},
}
FORBIDDEN = {
    "eval", "exec", "os.system", "os.popen", "subprocess.run", "subprocess.Popen", "pickle.load",
    "pickle.loads", "joblib.load", "yaml.load", "np.fromfile", "tempfile.mktemp", "torch.jit.load",
    "zipfile.extractall", "shutil.unpack_archive", "torch.hub.load",
}  # fmt: skip


def test_no_code_loads_pickles_or_starts_a_shell():
    for package in ("robustdiff", "cli", "curricula", "corruptions"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func)
                    given = {(k.arg, getattr(k.value, "value", None)) for k in node.keywords}
                    assert name not in FORBIDDEN, (path, name)
                    assert not name.endswith((".extract", ".extractall")), (path, name)
                    assert LOADERS.get(name, set()) <= given, (path, name)
                    assert ("shell", True) not in given, (path, name)


def test_our_docs_bind_tensorboard_to_this_machine():
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for line in path.read_text().splitlines():
            if "tensorboard --logdir" in line:
                assert "--host localhost" in line, path


def test_members_of_archives_are_never_written(tmp_path):
    labels = corrupt(np.arange(20) % 2, num_classes=2, rate=0.2)
    labels.save(tmp_path / "labels.npz")
    with zipfile.ZipFile(tmp_path / "labels.npz", "a") as archive:
        archive.writestr("../../escaped.npy", b"x")
        archive.writestr("/tmp/escaped-robustdiff.npy", b"x")
    assert NoisyLabels.load(tmp_path / "labels.npz").sha256 == labels.sha256
    with zipfile.ZipFile("evil.pt", "w") as archive:
        content = {"worse_label": labels.given}
        archive.writestr("../../escaped/data.pkl", pickle.dumps(content, 2))
    assert len(read_labels(Path("evil.pt")).given) == 20
    assert not list(tmp_path.parent.glob("escaped*"))
    assert not Path("/tmp/escaped-robustdiff.npy").exists()


def test_paths_in_label_files_are_words(tmp_path):
    Path("y.csv").write_text("path,given_label\n../../etc/passwd,0\n/etc/passwd,1\n../x,0\n")
    before = sorted(tmp_path.parent.rglob("*"))
    assert call("corrupt", "y.csv", "--noise=0.5", "--out=o") == 0
    made = {path for path in tmp_path.parent.rglob("*")} - set(before)
    assert made
    assert all(path.is_relative_to(tmp_path / "o") for path in made)


@pytest.mark.parametrize("name", ["../x", "/x", "..", ".", ".x", "a/b", "a\\b", "", " ", "a\nb"])
@pytest.mark.parametrize("place", ["noise", "method"])
def test_names_in_a_study_stay_in_its_folder(name, place, capsys):
    other = "method" if place == "noise" else "noise"
    Path("grid.toml").write_text(f"[{place}.{json.dumps(name)}]\n[{other}.a]\n")
    assert call("study", "grid.toml", "--dry-run") == 2
    assert "names in a study become folders" in capsys.readouterr().err


def test_the_default_name_of_a_run_is_one_folder_under_runs():
    for key in ("../../x", "a/b"):
        layer = {"noise": {"labels": key, "labels_key": key}}
        path = create_run(None, resolve(layer), corrupt(np.arange(4) % 2, num_classes=2)).path
        assert path.parent == Path("runs")


def test_what_steers_a_terminal_or_rich_is_spelt_out():
    assert printable("a\x1b[31m\x07b\x9bc\nd") == "a\\x1b[31m\\x07b\\x9bc\nd"
    assert plain("[red]x[/red]\x1b") == "\\[red]x\\[/red]\\x1b"


def test_names_in_markdown_are_text():
    shown = plain_text(HOSTILE)
    for mark in ("<", "|", "`", "[", "]", ":"):
        assert shown.count(mark) == shown.count("\\" + mark) > 0
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert plain_text("dynamics-uncond mk=0.5") == "dynamics-uncond mk=0.5"


def test_hostile_names_in_cards_and_comparisons(tmp_path):
    labels = corrupt(np.arange(20) % 2, num_classes=2, rate=0.2)
    named = NoisyLabels(**(vars(labels) | {"convention": HOSTILE, "noise_type": HOSTILE}))
    folder = tmp_path / "a|b <i> `x`"
    folder.mkdir()
    write_card(Run(folder), resolve(), named, detected=None, estimated=0.3, step=3)
    card = (folder / "README.md").read_text()
    columns = (*COLUMNS, GAP, ABOVE)
    table = markdown([Row(HOSTILE, HOSTILE, [0], {name: [] for name in columns})])
    for text in (card, table):
        assert text.replace("\\<", "").count("<") == 0
        assert "[x](" not in text
        assert "\x1b" not in text
    cells = [line for line in table.splitlines() if line.startswith("| \\<img")]
    assert len(cells) == 1
    assert cells[0].replace("\\|", "").count("|") == 12


@pytest.mark.filterwarnings("ignore:Glyph")
def test_hostile_class_names_on_the_terminal(capsys):
    Path("y.csv").write_text("given_label\n[red]a\x1b[31m\nb[/red]\n[red]a\x1b[31m\nb[/red]\n")
    assert call("corrupt", "y.csv", "--noise=0.5", "--out=$(touch executed)") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "--labels '$(touch executed)/labels.npz'" in said
    assert not Path("executed").exists()


def test_hostile_names_of_runs_in_the_table_of_an_evaluation(capsys):
    from robustdiff.cli.eval import _print_table

    from robustdiff.metrics.catalogue import METRICS

    figures = {key: 1.0 for metric in METRICS for key in (metric.key, metric.real)}
    sample = {"sampler": "ddim", "steps": 1, "guidance_weight": 1.0}
    _print_table(figures | {
        "run": "[red]x[/red]\x1b[2J", "num_samples": 1, "sample": sample, "detection": None,
        "evaluator_corrected": None,
    })  # fmt: skip
    said = capsys.readouterr().out
    assert said.count("[red]x[/red]") == 2
    assert "\x1b" not in said


def test_hostile_names_of_runs_in_the_table_of_a_likelihood(capsys):
    from robustdiff.cli.likelihood import _print_table

    figures = {"bits_per_dim": {"no label": {"mean": 1.0, "standard_error": 0.1}}}
    named = {"run": "[red]x[/red]\x1b[2J", "num_images": 1, "label_gain_bits": {}}
    _print_table(figures | named)
    said = capsys.readouterr().out
    assert said.count("[red]x[/red]") == 2
    assert "\x1b" not in said


def test_a_damaged_classifier_for_guidance_is_trained_again(run, monkeypatch):
    trained = []

    def train(data, num_classes, **rest):
        trained.append(num_classes)
        return TimeClassifier(1, num_classes)

    monkeypatch.setattr(models, "train_time_classifier", train)
    config = resolve({"sample": {"guidance": "classifier"}})
    images = load_images(config.data, Report())
    file = run.path / "time_classifier.safetensors"
    models.make_guide(run, config, images, Report())
    models.make_guide(run, config, images, Report())
    assert len(trained) == 1
    content = bytearray(file.read_bytes())
    content[-20] ^= 1  # within a weight, which the format does not notice
    file.write_bytes(content)
    models.make_guide(run, config, images, Report())
    assert len(trained) == 2


def test_damaged_weights_are_refused_and_the_network_stays(run):
    network = build_network(run.config().model, (1, 8, 8), 10, 0)
    run.save_weights(network)
    content = bytearray(run.weights_file.read_bytes())
    content[-20] ^= 1  # within a weight, which the format does not notice
    run.weights_file.write_bytes(content)
    with pytest.raises(DamagedError, match="SHA-256"):
        run.load_weights(network)


@pytest.mark.parametrize("form", FORMS)
def test_score_files_hold_nothing_but_tensors(form, tmp_path):
    form(tmp_path / "scores-00000001.pt")
    file = ScoreFile(1, sha256(tmp_path / "scores-00000001.pt"))
    save_checkpoint(tmp_path, {"step": 1}, 1, scores=file)
    with pytest.raises(DamagedError, match="cannot be read as tensors"):
        load_checkpoint(tmp_path)
    assert not Path("executed").exists()


def test_checkpoints_hold_nothing_but_tensors_and_plain_data(tmp_path):
    buffer = io.BytesIO()
    torch.save({"format": "robustdiff-checkpoint-1", "state": {"a": Malicious()}}, buffer)
    path = tmp_path / "step-00000001.pt"
    path.write_bytes(buffer.getvalue())
    path.with_suffix(".json").write_text(json.dumps({"sha256": sha256(path)}))
    with pytest.raises(DamagedError, match="cannot be read as tensors"):
        load_checkpoint(tmp_path)
    assert not Path("executed").exists()
