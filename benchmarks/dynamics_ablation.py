"""What do dynamics scores know about wrong labels, and which part of them knows it?

Plain training on noisy labels. Every few passes the averaged weights are compared with those of the
comparison before, on equal probes ("redrawn": on the probes of their own rounds). With r = eps - f,
g = f(y) - f(null) and D the change of a prediction,

    S  = <r(y), D f(null)>               dynamics-uncond, the paper's proposal; S = S1 - S2
    S1 = <r(null), D f(null)>            blind to the label
    S2 = <g, D f(null)>                  dynamics-guidance
    R2 = <r(y), D f(y) - D f(null)>      dynamics-label, dynamics-cond less dynamics-uncond

and their cosines. Prints AUROC of each score against the truth in the last round, of the mean of
rounds (that of their sum), and smoothed as curricula are, with 95 % intervals over seeds; draws
AUROC against the number of rounds. What lies in --out is not measured again.

    python benchmarks/dynamics_ablation.py --preset digits --data-dir DIR [--noise symmetric-40]
"""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from torch import Tensor

from curricula.scores import inner, squared_error
from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset
from robustdiff.data.registry import load_images
from robustdiff.diffusion.model import Model
from robustdiff.jobs.assemble import make_task
from robustdiff.labels.given import prepare_labels
from robustdiff.labels.scoring import Probe, Probing, make_probe
from robustdiff.progress import Report
from robustdiff.reports.figures import figure_png
from robustdiff.reports.intervals import cell
from robustdiff.training.loop import StepDone, train
from robustdiff.training.state import new_state
from robustdiff.training.task import Task, steps_per_pass

NOISE = {
    "symmetric-30": {"rate": 0.3},
    "symmetric-40": {"rate": 0.4},
    "symmetric-70": {"rate": 0.7},
    "asymmetric-40": {"type": "asymmetric", "rate": 0.4},
    "pairflip-30": {"type": "pairflip", "rate": 0.3},
    "instance-40": {"type": "instance-dependent-unit", "rate": 0.4},
}
# Images in one forward, and the most that are scored.
BATCH, MOST = 128, 1500
DRAWN = {"S": "tab:red", "S1": "tab:gray", "S2": "tab:orange", "R2": "tab:green", "pmi": "tab:blue"}


def predictions(model: Model, probe: Probe, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the predictions given the label, without it, and with it dropped as in training."""
    tried = torch.stack([given, torch.full_like(given, model.null_class), probe.kept], dim=1)
    with_label, without, dropped = model.eps_under(probe.x_t, probe.t, tried).unbind(1)
    return with_label, without, dropped


def parts(
    eps: Tensor, new: tuple[Tensor, Tensor, Tensor], old: tuple[Tensor, Tensor, Tensor]
) -> dict[str, Tensor]:
    """Return every score of a batch on equal probes, each (B,), and their cosines."""
    (y, null, dropped), (old_y, old_null, old_dropped) = new, old
    moved = null - old_null
    pairs = {
        "S": (eps - y, moved),
        "S1": (eps - null, moved),
        "S2": (y - null, moved),
        "R2": (eps - y, y - old_y - moved),
        "dynamics-cond": (eps - y, y - old_y),
        "dynamics-dropout": (eps - dropped, dropped - old_dropped),
    }
    found = {name: inner(*pair) for name, pair in pairs.items()}
    for name in ("S", "S1", "S2", "R2"):
        one, other = pairs[name]
        lengths = inner(one, one) * inner(other, other)
        found[f"cosine of {name}"] = found[name] / lengths.sqrt().clamp_min(1e-12)
    found["pmi"] = squared_error(eps, null) - squared_error(eps, y)
    before = squared_error(eps, old_null) - squared_error(eps, old_y)
    found["dynamics of pmi"] = found["pmi"] - before
    found["small-loss"] = -squared_error(eps, y)
    return found


@torch.inference_mode()
def measured(
    task: Task, model: Model, old: Model, rows: Tensor, number: int, probes: int
) -> dict[str, np.ndarray]:
    """Return name -> (M,) scores of some images, means over probes."""
    probing = Probing(seed=task.config.seed, p_uncond=task.config.diffusion.p_uncond, probes=probes)
    found: dict[str, list[Tensor]] = {}
    for where in torch.split(rows, BATCH):
        batch, totals = task.data[where], {}
        for k in range(probes):
            probe, earlier = (make_probe(model, probing, batch, n, k) for n in (number, number - 1))
            new = predictions(model, probe, batch[1])
            scores = parts(probe.eps, new, predictions(old, probe, batch[1]))
            redrawn = parts(probe.eps, new, predictions(old, earlier, batch[1]))
            for name in ("dynamics-cond", "S", "dynamics-dropout"):
                scores[f"{name}, redrawn"] = redrawn[name]
            for name, values in scores.items():
                totals[name] = totals.get(name, 0) + values.double().cpu() / probes
        for name, values in totals.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values).numpy() for name, values in found.items()}


def one_seed(noise: dict, seed: int, given: argparse.Namespace) -> dict[str, dict[str, list]]:
    """Return name -> "single", "mean" and "smoothed" -> AUROC after each round."""
    layer = {"seed": seed, "noise": noise, "data": {"data_dir": given.data_dir}}
    config = resolve(preset(given.preset), layer)
    images = load_images(config.data, Report())
    labels = prepare_labels(config, images, Report())
    task = make_task(config, images, labels, Report())
    state, smoothing = new_state(task), config.curriculum.smoothing
    rows = torch.arange(0, len(task.data), max(1, len(task.data) // MOST))
    right = ~labels.flipped[rows.numpy()]
    between = steps_per_pass(config, len(task.data)) * config.curriculum.score_every
    aurocs: dict[str, dict[str, list]] = {}
    means: dict[str, np.ndarray] = {}
    smoothed: dict[str, np.ndarray] = {}
    old, number = None, 0
    for event in train(state, task):
        if not isinstance(event, StepDone) or event.step % between:
            continue
        model, number = task.bind(state.ema), number + 1
        if old is not None:
            for name, new in measured(task, model, old, rows, number, given.probes).items():
                means[name] = means.get(name, 0) + new
                last = smoothed.get(name, new)
                smoothed[name] = smoothing * last + (1 - smoothing) * new
                found = {"single": new, "mean": means[name], "smoothed": smoothed[name]}
                for how, scores in found.items():
                    figures = aurocs.setdefault(name, {}).setdefault(how, [])
                    figures.append(float(roc_auc_score(right, scores)))
        old = task.bind(copy.deepcopy(state.ema))
    return aurocs


def table(results: dict[str, dict[str, dict]], how: str) -> str:
    """Return the table of AUROC after the last round, a line a score, a column a kind of noise."""
    lines = ["| score | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for name in next(iter(next(iter(results.values())).values())):
        cells = [
            cell([seed[name][how][-1] for seed in seeds.values()]) for seeds in results.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curves(results: dict[str, dict[str, dict]], title: str) -> Figure:
    """Draw AUROC against the number of rounds: of their mean, smoothed, and of one alone."""
    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.9 * rows + 0.4), dpi=110, layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for unused in panels.flat[len(results) :]:
        unused.remove()
    styles = {"mean": "-", "smoothed": "--", "single": ":"}
    for axes, (kind, seeds) in zip(panels.flat, results.items(), strict=False):
        for name, colour in DRAWN.items():
            for how, style in styles.items():
                mean = np.mean([seed[name][how] for seed in seeds.values()], axis=0)
                label = name if how == "mean" else None
                rounds = range(1, len(mean) + 1)
                axes.plot(rounds, mean, style, color=colour, label=label, marker=".")
        axes.axhline(0.5, color="black", linewidth=0.5)
        axes.set_title(kind, fontsize=10)
        axes.set_xlabel("rounds")
    for first in panels[:, 0]:
        first.set_ylabel("AUROC")
    panels[0, 0].legend(fontsize=8)
    how = "mean of rounds (line), smoothed (dashes), one round (dots)"
    figure.suptitle(f"{title}\n{how}", fontsize=9)
    return figure


def main() -> None:
    """Measure what is missing, print the tables, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=("digits", "mnist-14"), default="digits")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--noise", nargs="*", choices=NOISE, default=list(NOISE))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("dynamics.json"))
    parser.add_argument("--figure", type=Path, help="PNG of the curves")
    given = parser.parse_args()
    stored = json.loads(given.out.read_text()) if given.out.exists() else {}
    results = stored.setdefault(given.preset, {})
    for kind in given.noise:
        for seed in range(given.seeds):
            seeds = results.setdefault(kind, {})
            if str(seed) not in seeds:
                seeds[str(seed)] = one_seed(NOISE[kind], seed, given)
                given.out.write_text(json.dumps(stored) + "\n")
                print(f"{given.preset}, {kind}, seed {seed} done", flush=True)
    wanted = {kind: results[kind] for kind in given.noise}
    for how in ("single", "mean", "smoothed"):
        print(f"\n{given.preset}, {how} of the rounds, {given.seeds} seeds\n\n{table(wanted, how)}")
    if given.figure is not None:
        given.figure.write_bytes(figure_png(curves(wanted, given.preset)))


if __name__ == "__main__":
    main()
