"""Guidance in a part of the sampling only: metrics against the time of the switch.

Section 4.3 of the paper guides early and samples unconditionally later. Limited-interval guidance
(Kynkaanniemi et al. 2024) keeps the label where it does not guide. Time 1 is noise, 0 the image.

    python benchmarks/switching.py RUN --out FOLDER [-w 1] [--num-samples 1000]

FOLDER gets switching.csv and switching.png.
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from robustdiff.config.sections import SampleConfig
from robustdiff.data.registry import load_images
from robustdiff.diffusion.generate import class_labels
from robustdiff.jobs.evaluate import sample_run
from robustdiff.metrics.evaluator import load_or_train
from robustdiff.metrics.report import evaluate
from robustdiff.progress import Report
from robustdiff.reports.figures import write_figure
from robustdiff.runs.folder import open_run

TIMES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MODES: dict[str, Callable[[SampleConfig, float], SampleConfig]] = {
    "guided, then unconditional (the paper)": lambda setting, t: replace(
        setting, guidance_interval=(t, 1.0), guidance_outside="null"
    ),
    "guided, then label alone": lambda setting, t: replace(
        setting, guidance_interval=(t, 1.0), guidance_outside="given"
    ),
}
# Metric -> what real held-out images get.
METRICS = {
    "label_accuracy": "label_accuracy_real",
    "nll": "nll_real",
    "inception_score": "inception_score_real",
    "fid": "fid_floor",
    "class_fid": "class_fid_floor",
    "coverage": "coverage_real",
}
_LOGARITHMIC = ("nll", "fid", "class_fid")


def switching_figure(rows: list[dict[str, Any]], title: str) -> Figure:
    """Draw one panel a metric, one line a mode, real images dotted."""
    figure = Figure(figsize=(12, 6.5), dpi=110, layout="constrained")
    for axes, (metric, real) in zip(figure.subplots(2, 3).flat, METRICS.items(), strict=True):
        for mode in dict.fromkeys(row["mode"] for row in rows):
            mine = [row for row in rows if row["mode"] == mode]
            axes.plot([r["t"] for r in mine], [r[metric] for r in mine], "o-", ms=3, label=mode)
        axes.axhline(rows[0][real], color="grey", ls=":", label="real, held out")
        axes.set_yscale("log" if metric in _LOGARITHMIC else "linear")
        axes.set_title(metric.replace("_", " "))
        axes.set_xlabel("time of the switch")
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def main() -> None:
    """Sample, measure, and write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("-w", "--guidance-weight", type=float, help="the run's if left out")
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--times", type=float, nargs="+", default=TIMES)
    parser.add_argument("--data-dir")
    parser.add_argument("--evaluators", type=Path, help="folder; beside the run if left out")
    given = parser.parse_args()
    run = open_run(given.run)
    config = run.config()
    if given.data_dir is not None:
        config = replace(config, data=replace(config.data, data_dir=given.data_dir))
    setting = config.sample
    if given.guidance_weight is not None:
        setting = replace(setting, guidance_weight=given.guidance_weight)
    images = load_images(config.data, Report())
    k = images.num_classes
    judge, _ = load_or_train(
        given.evaluators or run.path.resolve().parent / "evaluators",
        images,
        images.train_labels,
        seed=0,
    )
    labels = class_labels(given.num_samples, k)
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with (given.out / "switching.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["mode", "t", *METRICS, *METRICS.values()])
        for mode, change in MODES.items():
            for t in given.times:
                chosen = replace(config, sample=change(setting, t))
                found = evaluate(
                    real=images.train,
                    real_labels=images.train_labels,
                    heldout=images.test,
                    heldout_labels=images.test_labels,
                    generated=sample_run(run, chosen, images, labels, 0, Report()),
                    generated_labels=labels,
                    evaluator=judge,
                    seed=0,
                )
                rows.append({"mode": mode, "t": t, **found})
                names = [*METRICS, *METRICS.values()]
                table.writerow([mode, t, *(found[name] for name in names)])
                file.flush()
                shown = ", ".join(f"{name} {found[name]:.3f}" for name in METRICS)
                print(f"{mode}, t = {t:g}: {shown}", flush=True)
    title = f"{config.data.dataset}, {config.model.cen}, w = {setting.guidance_weight:g}"
    write_figure(switching_figure(rows, title), given.out / "switching.png")


if __name__ == "__main__":
    main()
