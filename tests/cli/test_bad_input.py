"""Bad input: one line that names the thing, the right exit code, no traceback, nothing written."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TINY, call
from PIL import Image


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture(autouse=True)
def _material(tmp_path, monkeypatch):
    """Files that are wrong in one way each, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("bad.csv").write_text("\n".join(["0.09," * 9 + "0.09"] * 10))
    Path("words.csv").write_text("a,b\nc,d\n")
    Path("broken.toml").write_text("[train\n")
    Path("list.json").write_text("[1, 2]")
    Path("taken").mkdir()
    Path("taken/file").touch()
    Path("empty").mkdir()
    Path("unlike").mkdir()
    Path("unlike/config.json").write_text('{"data": 5}')
    for name in ("cat", "dog"):
        Path(f"damaged/{name}").mkdir(parents=True)
        for number in range(6):
            Image.new("L", (8, 8)).save(f"damaged/{name}/{number}.png")
    Path("damaged/cat/0.png").write_bytes(b"no image")
    Path("alone/cat").mkdir(parents=True)
    np.save("short.npy", np.zeros(5, dtype=np.int64))
    np.save("wide.npy", np.full(1347, 12))
    np.save("small.npy", np.eye(3))
    np.save("floats.npy", np.linspace(0, 1, 1347))
    np.save("objects.npy", np.array([Malicious()]), allow_pickle=True)
    torch.save({"clean_label": Malicious()}, "evil.pt")
    Path("grid.toml").write_text("[noise.a]\n[method.b]\ncurriculum = 3\n")
    Path("keys.toml").write_text("seedz = [1]\n[noise.a]\n[method.b]\n")
    Path("none-of-it.toml").write_text("[noise.a]\n")


TRAIN = {
    "noise above 1": (["--noise=1.5"], 2, "noise.rate must be in [0, 1], got 1.5"),
    "noise below 0": (["--noise=-0.1"], 2, "got -0.1"),
    "noise in words": (["--noise=much"], 2, "'--noise': Input should be a valid number"),
    "noise in words, what came": (["--noise=much"], 2, "got 'much'"),
    "a noise type without noise": (["--noise-type=pairflip"], 2, "got none; give --noise"),
    "digits of another size": (["--image-size=16"], 2, "data.image_size goes with a dataset in"),
    "digits in a folder": (["--data-dir=damaged"], 2, "digits come with the package; give images"),
    "a run with a damaged configuration": (["unlike"], 1, "config key data is a section, got 5"),
    "a dry run over something": (["--dry-run", "--out=taken"], 2, "taken already exists"),
    "steps in words": (["--steps=abc"], 2, "'--steps': Input should be a valid integer"),
    "half a step": (["--steps=2.5"], 2, "got '2.5'"),
    "steps of two lines": (["--steps=a\nb"], 2, r"got 'a\nb'"),
    "a flag without its value": (["--noise"], 2, "Option '--noise' requires an argument"),
    "a value for a switch": (["--dry-run=yes"], 2, "Option '--dry-run' does not take a value"),
    "a word too many": (["digits", "runs"], 2, "unexpected extra argument(s) (runs)"),
    "a name that would steer the terminal": (["--config=\x1b[2J"], 2, r"config file \x1b[2J"),
    "unknown noise type": (["--noise=0.1", "--noise-type=sym"], 2, "unknown noise type 'sym'"),
    "matrix rows": (["--noise-matrix=bad.csv"], 2, "sum to 1, got 0.9 in row 0"),
    "matrix in words": (["--noise-matrix=words.csv"], 2, "words.csv"),
    "matrix of another size": (["--noise-matrix=small.npy"], 2, "(10, 10), got (3, 3)"),
    "missing matrix": (["--noise-matrix=none.csv"], 2, "none.csv"),
    "no matrix": (["--noise=0.1", "--noise-type=matrix"], 2, "noise.matrix goes with"),
    "class map of other noise": (["--noise=0.1", "--class-map=mnist"], 2, "noise.class_map goes"),
    "missing class map": (
        ["--noise=0.1", "--noise-type=asymmetric", "--class-map=none.json"], 2, "none.json"
    ),
    "missing labels": (["--labels=none.npy"], 2, "none.npy"),
    "too few labels": (["--labels=short.npy"], 2, "1347"),
    "labels out of range": (["--labels=wide.npy"], 2, "12"),
    "labels that are no integers": (["--labels=floats.npy"], 2, "floats.npy"),
    "pickled labels": (["--labels=objects.npy"], 2, "objects.npy"),
    "malicious labels": (["--labels=evil.pt"], 2, "evil.pt"),
    "labels and noise": (["--labels=short.npy", "--noise=0.1"], 2, "takes the place"),
    "key of no labels": (["--labels-key=a"], 2, "noise.labels_key goes with"),
    "unknown curriculum": (["--curriculum=pmy"], 2, "pmi"),
    "impossible treatment": (["--treatment=select"], 2, "has none"),
    "treatment without classes": (
        ["--curriculum=small-loss", "--treatment=relabel"], 2, "knows the classes"
    ),
    "unknown objective": (["--objective=tdms"], 2, "tdsm"),
    "objective and curriculum": (
        ["--objective=tdsm", "--curriculum=pmi"], 2, "goes with curriculum 'uniform' alone"
    ),
    "matrix of the plain objective": (
        ["--set=objective.matrix=small.npy"], 2, "objective.matrix goes with"
    ),
    "objective's matrix of another size": (
        ["--objective=tdsm", "--set=objective.matrix=small.npy"], 2, "small.npy is 3 x 3"
    ),
    "unknown preset": (["--preset=digit"], 2, "did you mean 'digits'?"),
    "unknown key": (["--set=train.stepz=3"], 2, "did you mean 'train.steps'?"),
    "unknown section": (["--set=trian.steps=3"], 2, "did you mean 'train"),
    "section as value": (["--set=train=3"], 2, "train is a section, got 3"),
    "value of a wrong type": (["--set=train.lr=fast"], 2, "train.lr"),
    "no value": (["--set=train.lr"], 2, "section.key=value, got 'train.lr'"),
    "no key": (["--set==3"], 2, "section.key=value, got '=3'"),
    "missing config": (["--config=none.toml"], 2, "cannot read config file none.toml"),
    "broken config": (["--config=broken.toml"], 2, "broken.toml is not valid"),
    "config of another form": (["--config=list.json"], 2, "must hold sections, got list"),
    "config that is a folder": (["--config=empty"], 2, "cannot read config file empty"),
    "config that is no text": (["--config=evil.pt"], 2, "evil.pt is not valid"),
    "unknown dataset": (["--dataset=digitz"], 2, "digits"),
    "missing dataset": (["--dataset=mnist", "--data-dir=nowhere"], 2, "--download"),
    "missing folder": (["--dataset=folder", "--data-dir=nowhere"], 2, "nowhere"),
    "empty folder": (["--dataset=folder", "--data-dir=empty"], 2, "at least 2, got 0"),
    "one class": (["--dataset=folder", "--data-dir=alone"], 2, "at least 2, got 1"),
    "damaged image": (["--dataset=folder", "--data-dir=damaged"], 2, "cat/0.png"),
    "images of no pixels": (["--image-size=0"], 2, "data.image_size must be at least 1"),
    "no training images": (["--set=data.train_size=0"], 2, "data.train_size must be at least 1"),
    "unknown class embedding": (["--cen=pyramidal"], 2, "got 'pyramidal'"),
    "no hidden units": (["--set=model.cen_hidden=0"], 2, "model.cen_hidden must be at least 1"),
    "hidden units in words": (["--set=model.cen_hidden=wide"], 2, "model.cen_hidden"),
    "unknown activation": (["--set=model.cen_activation=tanh"], 2, "'silu' or 'relu'"),
    "no channels": (["--set=model.channels=[]"], 2, "one or more positive widths, got []"),
    "channels of width 0": (["--set=model.channels=[8,0]"], 2, "positive widths, got [8, 0]"),
    "no heads": (["--set=model.heads=0"], 2, "model.heads must be at least 1"),
    "network too deep": (["--set=model.channels=[8,8,8,8,8]"], 2, "at least"),
    "unknown schedule": (["--set=diffusion.schedule=sine"], 2, "diffusion.schedule"),
    "dropout above 1": (["--set=diffusion.p_uncond=2"], 2, "p_uncond must be in [0, 1]"),
    "unknown sampling of times": (["--set=diffusion.time_sampling=edm"], 2, "time_sampling"),
    "unknown loss weight": (["--set=diffusion.loss_weight=snr"], 2, "'min-snr'"),
    "no signal to noise": (["--set=diffusion.min_snr=0"], 2, "min_snr must be positive, got 0"),
    "noise levels in the wrong order": (
        ["--set=diffusion.log_snr_range=[5,-5]"], 2, "low < 0 < high <= 50, got [5.0, -5.0]"
    ),
    "steps below 1": (["--steps=0"], 2, "train.steps must be at least 1, got 0"),
    "steps and epochs": (["--steps=3", "--epochs=1"], 2, "exactly one"),
    "a section that is a number": (["--set=train=3", "--steps=5"], 2, "train is a section, got 3"),
    "a judge that is a number": (["--set=judge=3", "--judge-effort=quick"], 2, "is a section"),
    "empty batches": (["--set=train.batch_size=0"], 2, "train.batch_size must be at least 1"),
    "no learning": (["--set=train.lr=0"], 2, "train.lr must be positive, got 0"),
    "endless average": (["--set=train.ema=1"], 2, "train.ema must be in [0, 1), got 1"),
    "checkpoints all the time": (["--checkpoint-minutes=0"], 2, "checkpoint_minutes must be"),
    "times in the wrong order": (
        ["--set=curriculum.probe_times=[0.9,0.3]"], 2, "0 < low <= high <= 1, got [0.9, 0.3]"
    ),
    "no new scores": (["--set=curriculum.smoothing=1"], 2, "curriculum.smoothing must be in"),
    "no rivals": (["--set=curriculum.rivals=0"], 2, "curriculum.rivals must be at least 1"),
    "nothing selected": (["--set=curriculum.mk=0"], 2, "0 < mk <= k <= 1"),
    "no sampling steps": (["--set=sample.steps=0"], 2, "sample.steps must be in [1, 10000], got 0"),
    "more than random": (["--set=sample.eta=1.5"], 2, "sample.eta must be in [0, 1], got 1.5"),
    "negative churn": (["--set=sample.churn=-1"], 2, "sample.churn must be at least 0, got -1"),
    "spacing below 1": (["--set=sample.rho=0.5"], 2, "sample.rho must be at least 1, got 0.5"),
    "unknown spacing": (["--set=sample.spacing=odd"], 2, "sample.spacing"),
    "unknown guidance": (["--set=sample.guidance=cfg"], 2, "'classifier-free'"),
    "rescaling above 1": (["--set=sample.guidance_rescale=2"], 2, "guidance_rescale must be in"),
    "no weaker run": (["--set=sample.guidance=auto"], 2, "sample.weak, a run, goes with"),
    "weaker run of no use": (["--set=sample.weak=runs/a"], 2, "got guidance 'classifier-free'"),
    "noise undone twice": (
        ["--set=sample.undo_label_noise=true", "--curriculum=pmi"], 2, "got 'plain' and 'pmi'"
    ),
    "steps for ever": (["--set=sample.steps=100000000"], 2, "in [1, 10000], got 100000000"),
    "endless learning": (["--set=train.lr=inf"], 2, "train.lr must be finite, got inf"),
    "endless spacing": (["--set=sample.rho=inf"], 2, "sample.rho must be finite, got inf"),
    "endless spacing in words": (['--set=sample.rho="inf"'], 2, "sample.rho must be finite"),
    "endless guidance": (["--set=sample.guidance_weight=inf"], 2, "guidance_weight must be finite"),
    "endless temperature": (
        ["--set=curriculum.temperature=inf"], 2, "curriculum.temperature must be finite, got inf"
    ),
    "bias that is no number": (["--set=diffusion.sigmoid_bias=nan"], 2, "must be finite, got nan"),
    "interval that is no number": (["--set=sample.guidance_interval=[nan,1]"], 2, "got [nan, 1.0]"),
    "endless minutes": (["--checkpoint-minutes=inf"], 2, "checkpoint_minutes must be finite"),
    "negative seed": (["--seed=-1"], 2, "seed must be at least 0, got -1"),
    "absent device": (["--device=cuda"], 2, "available: cpu"),
    "unknown device": (["--device=tpu"], 2, "'cuda'"),
    "unknown flag": (["--nois=0.3"], 2, "--nois (Possible options: --noise"),
    "unlike any flag": (["--zzz"], 2, "No such option: --zzz; see robustdiff train --help"),
    "missing run to resume": (["--resume=runs/none"], 2, "is not a run"),
    "nothing to resume": (["--resume=latest"], 2, "there is no run"),
    "run exists": (["--out=taken"], 2, "already exists"),
    "run in a file": (["--out=taken/file"], 2, "is no folder; choose another place"),
    "diverging loss": (["--set=train.lr=1e15", "--steps=40", "--noise=0.3"], 1, "the loss is"),
}  # fmt: skip

OTHERS = {
    "unknown command": (["tran"], 2, "No such command 'tran'. Did you mean 'train'?"),
    "unlike any command": (["zzz"], 2, "choose from train, eval, sample"),
    "no labels to corrupt": (["corrupt", "--out=o"], 2, "Missing argument 'labels'"),
    "no place for labels": (["corrupt", "short.npy"], 2, "Missing option '--out'"),
    "unknown mode": (
        ["corrupt", "short.npy", "--out=o", "--noise-mode=some"],
        2,
        "'some' is not one of 'exact'",
    ),
    "no study": (["study"], 2, "Missing argument 'file'"),
    "no runs": (["compare"], 2, "Missing argument 'runs'"),
    "no images of a class": (["sample", "--per-class=0"], 2, "equal to 1, got '0'"),
    "half an interval": (["eval", "--guidance-interval", "1"], 2, "requires 2 arguments"),
    "interval in words": (["eval", "--guidance-interval", "1", "b"], 2, "valid number, unable"),
    "negative seed of samples": (["sample", "--seed=-1"], 2, "equal to 0, got '-1'"),
    "features of no kind": (["eval", "--features=x"], 2, "'x' is not one of 'classifier'"),
    "no run to evaluate": (["eval"], 2, "there is no run"),
    "missing run to evaluate": (["eval", "runs/none"], 2, "is not a run"),
    "missing run to sample": (["sample", "runs/none"], 2, "is not a run"),
    "missing run to audit": (["audit", "runs/none"], 2, "is not a run"),
    "missing run to sweep": (["sweep", "runs/none"], 2, "is not a run"),
    "unknown thing to sweep": (["sweep", "--over=time"], 2, "'guidance'"),
    "sweep over guidance at one weight": (["sweep", "-w", "3"], 2, "got --guidance-weight 3.0"),
    "sweep over steps at one number": (
        ["sweep", "--over=steps", "--steps=5"],
        2,
        "takes its values from --values, got --steps 5",
    ),
    "missing run to judge likelihood of": (["likelihood", "runs/none"], 2, "is not a run"),
    "unknown judge": (["audit", "--by=me"], 2, "'crossfit'"),
    "missing labels to corrupt": (["corrupt", "none.npy", "--noise=0.1", "--out=o"], 2, "none.npy"),
    "malicious labels to corrupt": (["corrupt", "evil.pt", "--noise=0.1", "--out=o"], 2, "evil.pt"),
    "missing study": (["study", "none.toml"], 2, "cannot read config file none.toml"),
    "broken study": (["study", "broken.toml"], 2, "broken.toml is not valid"),
    "unknown key of a study": (["study", "keys.toml"], 2, "did you mean 'seeds'?"),
    "incomplete study": (["study", "none-of-it.toml"], 2, "method"),
    "wrong method of a study": (["study", "grid.toml"], 2, "curriculum is a section, got 3"),
    "part 0": (["study", "grid.toml", "--part=0/2"], 2, "--part takes I/N"),
    "part in words": (["study", "grid.toml", "--part=all"], 2, "got 'all'"),
    "nothing to compare": (["compare", "empty"], 2, "empty holds no evaluated run"),
    "comparison in a file": (["compare", "empty", "--out=short.npy"], 2, "short.npy is no folder"),
    "comparison below a file": (["compare", "empty", "--out=short.npy/a"], 2, "is no folder, so"),
    "report in a folder": (["report", "runs/none", "--out=empty"], 2, "empty is a folder, and a"),
    "study in a file": (["study", "keys.toml", "--out=short.npy"], 2, "short.npy is no folder"),
    "audit below a file": (
        ["audit", "--dataset=digits", "--out=short.npy/a"],
        2,
        "short.npy is no folder, so short",
    ),
    "missing folder to compare": (["compare", "nowhere"], 2, "nowhere holds no evaluated run"),
}
CASES = {name: (["train", *words], *rest) for name, (words, *rest) in TRAIN.items()} | OTHERS


# What takes long says how far it is.
SPEAKS_BEFORE = {"damaged image", "diverging loss"}


def test_there_are_many_cases():
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(case, capsys, tmp_path):
    if torch.cuda.is_available() and case == "absent device":
        pytest.skip("this machine has a CUDA device")
    words, code, says = CASES[case]
    if words[0] == "train" and not any(w.startswith("--resume") for w in words):
        length = [] if any(w.startswith("--steps") for w in words) else ["--steps=2"]
        # Small enough that a case which is wrongly accepted ends soon.
        words = ["train", *TINY, *length, *words[1:]]
    before = sorted(tmp_path.rglob("*"))
    assert call(*words) == code
    said = capsys.readouterr().err
    *progress, last = said.splitlines()
    assert last.startswith("robustdiff: ")
    assert says in last
    assert progress == [] or case in SPEAKS_BEFORE, said
    assert not Path("executed").exists()
    if code == 2:
        assert sorted(tmp_path.rglob("*")) == before
