"""A published model makes the images of its run, without robustdiff, and is read as a run again."""

import ast
import json
import math
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call
from safetensors.torch import load_file, save_file

import robustdiff
from robustdiff.config.layers import resolve, to_plain
from robustdiff.data.arrays import Subject
from robustdiff.diffusion.schedules import SCHEDULES
from robustdiff.errors import DamagedError
from robustdiff.jobs import export as module
from robustdiff.jobs.dataset import load_run_data
from robustdiff.jobs.evaluate import evaluate_run
from robustdiff.jobs.export import Export, export_run
from robustdiff.progress import Report
from robustdiff.published.diffusers_folder import discrete_betas, scheduler_config
from robustdiff.published.flatten import flatten
from robustdiff.runs.folder import PublishedRun, Run

SHORT = {
    "train.steps": 2,
    "train.precision": "fp32",
    "model.channels": [8],
    "model.time_size": 8,
    "sample.steps": 3,
    "sample.guidance_weight": 1.5,
    "sample.guidance_interval": [0.2, 0.9],
    "sample.guidance_every": 2,
    "noise.rate": 0.3,
    "curriculum.name": "random",
}
CLASSES = [3, 5]
SUBJECT = Subject(name="digits", image_shape=(1, 8, 8), class_names=tuple("0123456789"))
WITHOUT_ROBUSTDIFF = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("robustdiff", "corruptions", "curricula"):
            raise ImportError(name)

sys.meta_path.insert(0, Refused())
"""
PIPELINE = """
import numpy as np, torch
from diffusers import (
    DDPMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler
)

torch.set_num_threads(1)
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
pipe.set_progress_bar_config(disable=True)
made = {"seed": pipe(class_labels=[3, "5", 3, 5], seed=7, output_type="np").images}
made["scale"] = pipe([3], guidance_scale=2.5, seed=7, output_type="pt").images.numpy()
made["number"] = pipe(np.int64(3), seed=7, output_type="np").images
drawn = [pipe([3], generator=torch.Generator().manual_seed(1)).images[0] for _ in range(2)]
made["drawn"] = np.stack([np.asarray(image) for image in drawn])
for wrong in ({"class_labels": ["x"]}, {"class_labels": 10}, {"output_type": "x"},
              {"guidance_weight": -1.0}, {"num_inference_steps": 0},
              {"guidance_weight": 1.0, "guidance_scale": 2.0}):
    try:
        pipe(**{"class_labels": 1, **wrong})
    except ValueError:
        continue
    raise AssertionError(wrong)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
made["other"] = pipe([3, 5], seed=7, num_inference_steps=3, output_type="np").images
for kind in (DDPMScheduler, EulerAncestralDiscreteScheduler):
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    for what, classes, seed in (("", [3, 5], 7), (" again", [3, 5], 7), (" alone", [3], 7),
                                (" of another seed", [3, 5], 8)):
        made[kind.__name__ + what] = pipe(
            classes, seed=seed, num_inference_steps=3, output_type="np"
        ).images
    made[kind.__name__ + " drawn"] = np.stack([
        pipe([3], generator=torch.Generator().manual_seed(1), num_inference_steps=3,
             output_type="np").images
        for _ in range(2)
    ])
assert not any(name.partition(".")[0] == "robustdiff" for name in sys.modules)
np.savez(sys.argv[2], **made)
"""


def pixels(images):
    """(M, H, W, C) in [0, 1] -> (M, C, H, W) levels."""
    return np.round(images.transpose(0, 3, 1, 2) * 255).astype(int)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose network is far from zero."""
    made = robustdiff.train("digits", SHORT, out=tmp_path_factory.mktemp("models") / "digit run")
    torch.manual_seed(0)
    tensors = load_file(made.weights_file)
    save_file({k: v + 0.1 * torch.randn_like(v) for k, v in tensors.items()}, made.weights_file)
    return made


@pytest.fixture(scope="module")
def published(run, tmp_path_factory):
    target = tmp_path_factory.mktemp("exports") / "digit model"
    return export_run(run, run.config(), Report(), Export(to=target, licence="cc-by-4.0"))


@pytest.fixture(scope="module")
def images(run):
    return robustdiff.sample(run, classes=CLASSES, per_class=2, seed=7).images.numpy().astype(int)


@pytest.fixture(scope="module")
def made(published, tmp_path_factory):
    """What diffusers makes of a published model in a process without robustdiff."""
    place = tmp_path_factory.mktemp("made")
    script = place / "make.py"
    script.write_text(WITHOUT_ROBUSTDIFF + PIPELINE)
    words = [sys.executable, "-I", script, published, place / "made.npz"]
    done = subprocess.run(
        words, cwd=place, env={"HF_HOME": str(place / "hf")}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return np.load(place / "made.npz")


def test_diffusers_makes_the_same_images_without_robustdiff(made, images):
    assert np.abs(pixels(made["seed"]) - images).max() <= 1
    assert np.abs(made["scale"][0] * 255 - images[0]).max() <= 1
    assert np.abs(pixels(made["number"])[0] - images[0]).max() <= 1
    assert np.array_equal(*made["drawn"])
    # With few steps a scheduler of diffusers takes other times; it is the same model still.
    other = pixels(made["other"])
    assert np.corrcoef(other.ravel(), images[:2].ravel())[0, 1] > 0.5


@pytest.mark.parametrize("kind", ["DDPMScheduler", "EulerAncestralDiscreteScheduler"])
def test_schedulers_of_diffusers_that_draw_noise_draw_it_by_seed_or_generator(made, kind):
    first = pixels(made[kind])
    assert np.array_equal(first, pixels(made[f"{kind} again"]))
    assert np.abs(first[:1] - pixels(made[f"{kind} alone"])).max() <= 1
    assert np.abs(first - pixels(made[f"{kind} of another seed"])).mean() > 10
    assert np.array_equal(*made[f"{kind} drawn"])


def test_the_published_code_imports_no_robustdiff(published):
    for path in published.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert not any((name or "").startswith(("robustdiff", "curricula")) for name in names), path


def sampled_by_script(folder, tmp_path, monkeypatch):
    words = ["--classes=3,5", "--per-class=2", "--seed=7", f"--out={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", ["sample.py", *words])
    runpy.run_path(str(folder / "sample.py"), run_name="__main__")
    made = np.load(tmp_path / "out" / "samples.npz")
    assert made["labels"].tolist() == [3, 5, 3, 5]
    assert (tmp_path / "out" / "samples.png").exists()
    return made["images"].astype(int)


def test_the_step_of_torch_makes_the_same_images(run, tmp_path, monkeypatch):
    in_full = {"sample.guidance_every": 1}
    made = robustdiff.sample(run, in_full, classes=CLASSES, per_class=2, seed=7)
    images = made.images.numpy().astype(int)
    export = Export(to=tmp_path / "step", formats=("torch",))
    with pytest.raises(ValueError, match=r"format torch guides every step in full, got .* = 2; "):
        export_run(run, run.config(), Report(), export)
    config = resolve(to_plain(run.config()), {"sample": {"guidance_every": 1}})
    folder = export_run(run, config, Report(), export)
    assert np.abs(sampled_by_script(folder, tmp_path, monkeypatch) - images).max() <= 1
    assert "python sample.py" in (folder / "README.md").read_text()
    assert not (folder / "model_index.json").exists()
    alone = ["sample.py", "--classes=3", "--per-class=1", "--seed=7", f"--out={tmp_path / 'one'}"]
    monkeypatch.setattr(sys, "argv", alone)
    runpy.run_path(str(folder / "sample.py"), run_name="__main__")
    single = np.load(tmp_path / "one" / "samples.npz")["images"].astype(int)
    assert np.abs(single - images[:1]).max() <= 1
    monkeypatch.setattr(sys, "argv", ["sample.py", "--classes=3,x"])
    with pytest.raises(SystemExit, match="--classes takes numbers from 0 to 9 or names"):
        runpy.run_path(str(folder / "sample.py"), run_name="__main__")


@pytest.mark.slow
def test_the_step_of_onnx_makes_the_same_images(run, images, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    changes = {"guidance_rescale": 0.5, "guidance_every": 1, "sampler": "ddim", "steps": 4}
    config = resolve(to_plain(run.config()), {"sample": changes})
    images = robustdiff.sample(
        run,
        {f"sample.{name}": value for name, value in changes.items()},
        classes=CLASSES,
        per_class=2,
        seed=7,
    ).images.numpy()
    export = Export(to=tmp_path / "step", formats=("onnx",))
    folder = export_run(run, config, Report(), export)
    assert np.abs(sampled_by_script(folder, tmp_path, monkeypatch) - images).max() <= 1


def test_a_published_model_is_read_as_a_run(run, published, images):
    found = robustdiff.load_run(published)
    assert isinstance(found, PublishedRun)
    samples = robustdiff.sample(found, classes=CLASSES, per_class=2, seed=7)
    assert np.array_equal(samples.images.numpy(), images)
    assert samples.class_names == tuple("0123456789")
    assert found.config().model == run.config().model
    with pytest.raises(ValueError, match="is a published model"):
        found.labels()
    with pytest.raises(ValueError, match="is a published model"):
        robustdiff.audit(found)
    with pytest.raises(ValueError, match="is a published model"):
        robustdiff.resume(found)


def test_a_published_model_is_evaluated_on_the_labels_as_published(
    published, tmp_path, monkeypatch
):
    here = Path(shutil.copytree(published, tmp_path / "model"))
    card = (here / "README.md").read_text()
    found = robustdiff.load_run(here)
    seen = []

    def stop(run, config, data, *_, **__):
        seen.append(data)
        raise KeyboardInterrupt

    monkeypatch.setattr("robustdiff.jobs.evaluate.load_reference", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(found, found.config(), Report(), seed=0)
    assert not seen[0].labels.flipped.any()
    assert (here / "README.md").read_text() == card
    facts = json.loads(found.config_file.read_text())
    shards = resolve(facts["config"], {"data": {"dataset": "webdataset"}})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"does not say where its images are, .* --data-dir"):
        load_run_data(found, shards, Report(), published=True)
    found.config_file.write_text(json.dumps({**facts, "class_names": ["cat", "dog"]}))
    with pytest.raises(ValueError, match=r"makes images with the classes \['cat', 'dog'\]"):
        load_run_data(found, found.config(), Report(), published=True)


def test_no_path_of_the_machine_is_published(run, published, tmp_path):
    changes = {
        "data": {
            "dataset": "manifest",
            "data_dir": "/home/me/photos/labels.csv",
            "image_root": "/home/me/photos",
            "class_names": "/home/me/names.txt",
        },
        "judge": {"probabilities": "/home/me/p.npy"},
    }
    config = resolve(to_plain(run.config()), changes)
    subject = PublishedRun(published).subject()
    facts = module._facts(run, config, subject)
    assert "/home/me" not in json.dumps(facts)
    assert facts["config"]["data"]["class_names"] == ",".join(subject.class_names)
    texts = [path for path in published.rglob("*") if path.suffix in (".json", ".md", ".py")]
    assert not any(str(run.path.parent) in path.read_text() for path in texts)


def test_the_card_has_the_metadata_of_the_hub(run, published):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(published / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "diffusers"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert "label-noise" in card.data.tags
    for text in (
        "# digit run",
        "% wrong, symmetric",
        "curriculum: random",
        "not been evaluated",
        "cc-by-4.0",
    ):
        assert text in card.text
    assert (published / "samples.png").exists()


def test_the_card_has_the_figures_of_these_weights_with_their_floors(run, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    metrics = {
        "weights_sha256": module.sha256(run.weights_file),
        "num_samples": 10,
        "fid": 1.25,
        "fid_floor": 0.5,
        "label_accuracy": 0.75,
        "label_accuracy_real": 0.95,
        "evaluator_corrected": None,
        "sample": to_plain(run.config())["sample"],
    }
    run.metrics_file.write_text(json.dumps(metrics))
    try:
        described = module._described(run, run.config(), SUBJECT, Export())
        text = module.model_card(described)
        run.metrics_file.write_text(json.dumps({**metrics, "weights_sha256": "of others"}))
        assert module._metrics(run) is None
        guided = {**metrics, "sample": {**metrics["sample"], "guidance": "classifier"}}
        run.metrics_file.write_text(json.dumps(guided))
        assert module._metrics(run) is None
    finally:
        run.metrics_file.unlink()
    assert "| FID | 1.250, real images 0.500 | lower is better |" in text
    assert "No licence of the weights was stated" in text
    (result, accuracy) = hub.ModelCard(text).data.eval_results
    assert (result.metric_type, result.metric_value) == ("fid", 1.25)
    assert accuracy.metric_value == 0.75


@pytest.mark.parametrize(
    ("export", "changes", "message"),
    [
        (Export(formats=("x",)), {}, "format must be one or more of diffusers, torch, onnx, got x"),
        (Export(licence="My own"), {}, "licence must be an identifier"),
        (Export(), {"guidance": "classifier"}, "give --guidance classifier-free"),
        (Export(formats=("torch",)), {"sampler": "heun"}, "samples by dpm-solver"),
        (Export(formats=("torch",)), {"sampler": "ddim", "eta": 0.5}, "with eta 0.5"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_work(
    run, export, changes, message, tmp_path
):
    config = resolve(to_plain(run.config()), {"sample": changes})
    with pytest.raises(ValueError, match=message):
        export_run(run, config, Report(), export)
    assert not (run.path / "export").exists()


def test_onnx_names_the_packages_that_are_missing(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'robustdiff\[onnx\]'"):
        export_run(run, run.config(), Report(), Export(formats=("onnx",)))


def test_an_export_is_whole_or_absent(run, published, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="already exists; choose another --to"):
        export_run(run, run.config(), Report(), Export(to=published))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_pipeline", full)
    with pytest.raises(OSError, match="No space left"):
        export_run(run, run.config(), Report(), Export(to=tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_betas_of_the_scheduler_are_those_of_the_schedule(schedule):
    config = resolve({"diffusion": {"schedule": schedule, "prediction": "eps"}})
    about = scheduler_config(config)
    assert about["prediction_type"] == "epsilon"
    times = torch.arange(1, 1001, dtype=torch.float64) / 1000
    alpha, _ = SCHEDULES[schedule](times)
    products = torch.cumprod(1 - torch.tensor(discrete_betas(schedule), dtype=torch.float64), 0)
    assert torch.allclose(products[:-1], alpha[:-1] ** 2, rtol=1e-9)
    assert about["trained_betas"] == discrete_betas(schedule)


def two_points(kind, steps):
    """Samples of data that are -1.5 or, three times in ten, 1.5, by the exact denoiser."""
    scheduler = kind.from_config(scheduler_config(resolve({"diffusion": {"prediction": "v"}})))
    scheduler.set_timesteps(steps)
    quantiles = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    x_t = torch.special.ndtri(quantiles) * scheduler.init_noise_sigma
    for step in scheduler.timesteps:
        alpha, sigma = SCHEDULES["cosine"]((step.double() + 1) / 1000)
        x = scheduler.scale_model_input(x_t, step)
        x_0 = 1.5 * torch.tanh(math.log(3 / 7) / 2 + 1.5 * alpha * x / sigma**2)
        v = alpha * (x - alpha * x_0) / sigma - sigma * x_0
        x_t = scheduler.step(v, step, x_t).prev_sample
    return x_t


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers
@pytest.mark.parametrize("kind", ["DDIM", "EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep"])
def test_schedulers_of_diffusers_keep_the_shares_of_two_kinds_of_images(kind):
    diffusers = pytest.importorskip("diffusers")
    made = two_points(getattr(diffusers, f"{kind}Scheduler"), 40)
    assert abs(float((made > 0).double().mean()) - 0.3) < 0.02
    # A step with unclipped noise and a clipped image would leave neither.
    assert float((made.abs() - 1.5).abs().mean()) < 0.1


def test_flatten_refuses_two_definitions_of_one_name_and_imported_modules(tmp_path, monkeypatch):
    place = tmp_path / "robustdiff_flat"
    place.mkdir()
    for name, text in {
        "__init__": "",
        "one": "def f(): return 1\n",
        "two": "from robustdiff_flat.one import f\ndef g(): return f()\n",
        "three": "from robustdiff_flat.two import g\ndef f(): return g()\n",
        "four": "from robustdiff_flat import one\ndef h(): return one.f()\n",
    }.items():
        (place / f"{name}.py").write_text(f'"""Text."""\n{text}')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("robustdiff.published.flatten._OWN", "robustdiff_flat")
    made = flatten("robustdiff_flat.two")
    assert made.index("def f()") < made.index("def g()")
    assert "import" not in made
    with pytest.raises(ValueError, match="both define f"):
        flatten("robustdiff_flat.three")
    with pytest.raises(ValueError, match="import names, not modules"):
        flatten("robustdiff_flat.four")


def test_a_damaged_published_model_is_named(published, tmp_path):
    here = Path(shutil.copytree(published, tmp_path / "model"))
    (here / "robustdiff.json").write_text("{}")
    with pytest.raises(DamagedError, match=r"robustdiff\.json is damaged"):
        PublishedRun(here).config()


def test_the_command_writes_a_model_that_other_commands_read_or_refuse(run, tmp_path, capsys):
    target = tmp_path / "model"
    assert call("export", run.path, "--to", target, "--steps=2", "-w", 0, "--license=mit") == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert PublishedRun(target).config().sample.steps == 2
    assert call("sample", target, "--out", tmp_path / "out", "--per-class=1", "--classes=3") == 0
    assert (tmp_path / "out" / "samples.npz").exists()
    for words, said in (
        (("export", run.path, "--format=x", "--to", tmp_path / "no"), "format must be one or more"),
        (("export", target, "--to", tmp_path / "no"), "is a published model"),
        (("audit", target), "is a published model"),
        (("train", "--resume", target), "is a published model"),
        (("likelihood", target), "is a published model"),
        (("sample", target, "--guidance=classifier"), "choose another --guidance"),
    ):
        capsys.readouterr()
        assert call(*words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "no").exists()


def test_an_exported_model_keeps_the_noise_of_its_labels(run, tmp_path, capsys):
    plain = Path(shutil.copytree(run.path, tmp_path / "plain"))
    layer = {"curriculum": {"name": "uniform"}}
    config = resolve(to_plain(run.config()), layer)
    Run(plain).save_config(config)
    with pytest.raises(ValueError, match="which an exported model leaves behind"):
        robustdiff.export(plain, {"sample.undo_label_noise": True}, to=tmp_path / "model")
    assert call("export", plain, "--to", tmp_path / "model") == 0
    assert call("sample", tmp_path / "model", "--undo-label-noise") == 2
    assert "is a published model without any" in capsys.readouterr().err


def test_a_run_guided_by_a_weaker_one_is_exported_without_it(run, tmp_path):
    guided = Path(shutil.copytree(run.path, tmp_path / "guided"))
    config = resolve(to_plain(run.config()), {"sample": {"guidance": "auto", "weak": "runs/weak"}})
    Run(guided).save_config(config)
    assert call("export", guided, "--to", tmp_path / "model") == 2
    assert call("export", guided, "--to", tmp_path / "model", "--guidance=classifier-free") == 0
    assert PublishedRun(tmp_path / "model").config().sample.weak is None
