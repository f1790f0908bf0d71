"""The card of a published model: README.md as model hubs have it, with YAML front matter."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from corruptions import NoisyLabels
from curricula import TREATMENTS, Trust
from curricula.scores import treatment_of
from robustdiff import __version__
from robustdiff.config.images import dataset_in_words
from robustdiff.config.sections import Config, SampleConfig
from robustdiff.data.arrays import Subject
from robustdiff.metrics.catalogue import (
    FURTHER,
    METRICS,
    copies_in_words,
    evaluator_in_words,
    figure_in_words,
)
from robustdiff.reports.card import noise_in_words
from robustdiff.reports.markdown import plain_text
from robustdiff.runs.evaluations import Metrics

GRID = "samples.png"
# Datasets under their names on the hub of huggingface.co.
_HUB_DATASETS = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
}
_TASK = "unconditional-image-generation"
_CLASSES_SHOWN = 100
_CORRECTED = {
    "none": "none; every label was trained on as given",
    "select": "images whose labels look right were preferred; no label was changed",
    "reweight": "labels weigh by how likely they are right; none was changed",
    "null": "{} of {} labels were left out: their images were trained on without a class",
    "relabel": "{} of {} labels were replaced by the likeliest class",
    "soft": "labels were drawn anew at every step by how likely each class is",
}


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a card tells.

    Attributes:
        title: Name of the model.
        config: Configuration of its run; section `sample` as exported.
        subject: What it makes images of.
        labels: Labels that the run was given.
        trust: What its final scores say about them; None if there are none.
        detected: Detection metrics of those scores; None where they are not known.
        metrics: The newest evaluation of its weights; None if there is none.
        licence: Identifier of the licence; None if none was stated.
        formats: What the folder holds besides the card: "diffusers", "torch", "onnx".
        length: How long the weights were trained, in words.
    """

    title: str
    config: Config
    subject: Subject
    labels: NoisyLabels
    trust: Trust | None
    detected: dict[str, float] | None
    metrics: Metrics | None
    licence: str | None
    formats: Sequence[str]
    length: str


def model_card(model: Described) -> str:
    """Return the card."""
    parts = [
        _front_matter(model),
        _about(model),
        _sampling(model),
        _labels(model),
        _figures(model),
        _licence(model.licence),
    ]
    return "\n".join(line for part in parts for line in [*part, ""])


def _front_matter(model: Described) -> list[str]:
    """Return the metadata; JSON values are YAML values."""
    dataset = _HUB_DATASETS.get(model.subject.name)
    entries: dict[str, Any] = {"license": model.licence} if model.licence else {}
    if "diffusers" in model.formats:
        entries["library_name"] = "diffusers"
    entries["pipeline_tag"] = _TASK
    entries["tags"] = ["robustdiff", "diffusion", "class-conditional", "label-noise"]
    if dataset is not None:
        entries["datasets"] = [dataset]
    figures = [
        {"type": metric.key, "name": metric.title, "value": round(model.metrics[metric.key], 6)}
        for metric in METRICS
        if model.metrics is not None and model.metrics.get(metric.key) is not None
    ]
    if figures:
        about = {"name": model.subject.name, "type": dataset or model.subject.name}
        result = {"task": {"type": _TASK}, "dataset": about, "metrics": figures}
        entries["model-index"] = [{"name": model.title, "results": [result]}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items()]
    return ["---", *lines, "---"]


def _about(model: Described) -> list[str]:
    subject, config = model.subject, model.config
    channels, height, width = subject.image_shape
    names = [f"{k} {plain_text(name)}" for k, name in enumerate(subject.class_names)]
    what = plain_text(dataset_in_words(subject.name))
    shown = ", ".join(names[:_CLASSES_SHOWN]) + (", ..." if len(names) > _CLASSES_SHOWN else "")
    return [
        f"# {plain_text(model.title)}",
        "",
        f"A class-conditional diffusion model of {what}: images of {height} x "
        f"{width} pixels with {channels} channel{'s' if channels > 1 else ''}, "
        f"{subject.num_classes} classes. It was trained by robustdiff {__version__}, and the "
        "weights are averaged over training.",
        "",
        f"![Samples, one column for each class]({GRID})",
        "",
        f"- classes: {shown}",
        f"- noise schedule {config.diffusion.schedule}, the network predicts "
        f"{config.diffusion.prediction}",
        f"- class embedding {plain_text(config.model.cen)}, channels {list(config.model.channels)}",
        f"- trained on {len(model.labels.given)} images, {model.length} of "
        f"{config.train.batch_size} images a step, seed {config.seed}",
    ]


def _sampling(model: Described) -> list[str]:
    sample, lines = model.config.sample, ["## How to sample", ""]
    if "diffusers" in model.formats:
        lines += [
            "With diffusers; the code of the pipeline lies in this folder:",
            "",
            "```python",
            "from diffusers import DiffusionPipeline",
            "",
            'pipe = DiffusionPipeline.from_pretrained("PATH OR NAME OF THIS FOLDER", '
            "trust_remote_code=True)",
            f"images = pipe(class_labels=[0, {model.subject.num_classes - 1}], seed=0).images",
            "```",
            "",
            "Image k is a function of the seed, k and its class, the same as of "
            "`robustdiff sample` in float32. `guidance_weight`, `num_inference_steps` and "
            "`generator` are further arguments; a class may be given by its name.",
            "",
        ]
    for name, package in (("torch", "torch"), ("onnx", "onnxruntime")):
        if name in model.formats:
            file = "step.pt2" if name == "torch" else "step.onnx"
            lines += [
                f"With numpy, pillow and {package} alone, by the guided step in `{file}`:",
                "",
                "```",
                f"python sample.py --step {file} --classes 0 --per-class 10 --out samples",
                "```",
                "",
            ]
    return [*lines, f"Settings: {_settings(sample)}."]


def _settings(sample: SampleConfig) -> str:
    every = sample.guidance_every
    return (
        f"sampler {sample.sampler}, {sample.steps} steps, guidance weight w "
        f"{sample.guidance_weight:g} ((1 + w) times the estimate under the class minus w times the "
        "one without)" + (f", in full every {every} steps" if every > 1 else "")
    )


def _labels(model: Described) -> list[str]:
    """Return the noise that was found in the labels, and what was done about it."""
    config, labels, trust = model.config, model.labels, model.trust
    noise = None if trust is None else trust.noise
    lines = [
        "## Labels",
        "",
        f"- labels: {plain_text(noise_in_words(config, labels, noise))}",
        f"- curriculum: {config.curriculum.name}, objective: {config.objective.name}",
        f"- corrected: {_correction(config, labels, trust)}",
    ]
    if labels.decided_by is not None:
        by = {word: labels.decided_by.count(word) for word in ("person", "judge", "removed")}
        lines.append(
            f"- corrected before training: by a person {by['person']}, by a judge {by['judge']}, "
            f"removed {by['removed']}"
        )
    if model.detected is not None:
        lines.append(
            f"- wrong labels found by the score: AUROC {model.detected['auroc']:.3f}, precision at "
            f"the true rate {model.detected['precision_at_rate']:.3f}"
        )
    names = model.subject.class_names
    doubts = () if trust is None else trust.doubts
    return lines + [f"- in doubt: {plain_text(doubt.format(*names))}" for doubt in doubts]


def _correction(config: Config, labels: NoisyLabels, trust: Trust | None) -> str:
    treatment = treatment_of(config.curriculum.name, config.curriculum.treatment)
    if trust is None:
        return _CORRECTED["none"]
    used = TREATMENTS[treatment](trust, labels.given, len(labels.nominal))
    changed = int(np.count_nonzero(used.labels != labels.given))
    return _CORRECTED[treatment].format(changed, len(labels.given))


def _figures(model: Described) -> list[str]:
    lines, metrics = ["## Evaluation", ""], model.metrics
    if metrics is None:
        return [*lines, "These weights have not been evaluated."]
    lines += [
        f"By {metrics['num_samples']} images with {_settings(SampleConfig(**_used(metrics)))}, "
        "beside what as many held-out real images get: the floor of a distance, the ceiling of a "
        "score. Where there are two ends, they are those of a 95 % interval.",
        "",
        "| metric | generated images | which is good |",
        "| --- | --- | --- |",
    ]
    for metric in (*METRICS, *FURTHER):
        words = figure_in_words(metrics, metric)
        if words is not None:
            lines.append(f"| {metric.title} | {words} | {metric.ideal} |")
    copied = copies_in_words(metrics)
    lines += [
        "",
        evaluator_in_words(metrics["label_accuracy_real"], metrics["evaluator_corrected"]),
    ]
    return lines if copied is None else [*lines, "", copied]


def _used(metrics: Metrics) -> dict[str, Any]:
    used = dict(metrics["sample"])
    return {**used, "guidance_interval": tuple(used["guidance_interval"])}


def _licence(licence: str | None) -> list[str]:
    stated = (
        f"The weights are under the licence `{licence}`."
        if licence
        else "No licence of the weights was stated; ask whoever published them before you use them."
    )
    return ["## Licence", "", f"{stated} The code in this folder is robustdiff's, under MIT."]
