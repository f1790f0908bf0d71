"""What do dynamics scores know about wrong labels? {paired, redrawn} x {cond, uncond, dropout}.

Plain training on noisy labels; after every pass the new weights are compared with those of the pass
before, by every score, on one image in eight. Beside them: the mutual information (pmi), and its
dynamics, pmi of the new weights less that of the old ones on equal probes, whose sum over the
rounds is pmi itself. Prints AUROC of each score against the truth, as a mean of rounds and summed
over all rounds, with 95 % intervals over seeds.

    python benchmarks/dynamics_ablation.py --data-dir DIR [--noise-type asymmetric] [--seeds 3]
"""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from curricula import CURRICULA
from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset
from robustdiff.data.registry import load_images
from robustdiff.diffusion.model import Model
from robustdiff.jobs.assemble import make_task
from robustdiff.labels.given import prepare_labels
from robustdiff.labels.scoring import Probing, prediction_scores
from robustdiff.progress import Report
from robustdiff.reports.intervals import cell
from robustdiff.training.loop import StepDone, train
from robustdiff.training.state import new_state
from robustdiff.training.task import steps_per_pass

DYNAMICS = ("dynamics-cond", "dynamics-uncond", "dynamics-dropout")


def one_seed(noise: dict, seed: int, data_dir: str, probes: int, every: int) -> dict:
    """Return name -> (mean AUROC of single rounds, AUROC of the sum over rounds)."""
    layer = {"seed": seed, "noise": noise, "data": {"data_dir": data_dir}}
    config = resolve(preset("mnist-14"), layer)
    images = load_images(config.data, Report())
    labels = prepare_labels(config, images, Report())
    task = make_task(config, images, labels, Report())
    state = new_state(task)
    rows = torch.arange(0, len(task.data), every)
    right = ~labels.flipped[rows.numpy()]
    singles: dict[str, list[float]] = {}
    sums: dict[str, np.ndarray] = {}
    old, number = None, 0

    def score(
        name: str, model: Model, old_model: Model | None, pairing: str = "paired"
    ) -> np.ndarray:
        p_uncond, redrawn = config.diffusion.p_uncond, pairing == "redrawn"
        probing = Probing(seed=seed, p_uncond=p_uncond, probes=probes, redrawn=redrawn)
        found = prediction_scores(
            CURRICULA[name], probing, task.data, model, old_model, rows, number
        )
        return found[rows.numpy()]

    def keep(name: str, scores: np.ndarray) -> None:
        singles.setdefault(name, []).append(roc_auc_score(right, scores))
        sums[name] = sums.get(name, 0) + scores

    for event in train(state, task):
        assert isinstance(event, StepDone)
        if event.step % steps_per_pass(config, len(task.data)):
            continue
        model, number = task.bind(state.ema), number + 1
        if old is not None:
            for pairing in ("paired", "redrawn"):
                for name in DYNAMICS:
                    keep(f"{name}, {pairing}", score(name, model, old, pairing))
            now = score("pmi", model, None)
            keep("pmi", now)
            keep("dynamics of pmi, paired", now - score("pmi", old, None))
            keep("small-loss", score("small-loss", model, None))
        old = task.bind(copy.deepcopy(state.ema))
    return {n: (float(np.mean(singles[n])), float(roc_auc_score(right, sums[n]))) for n in singles}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--noise-type", default="symmetric")
    parser.add_argument("--noise", type=float, default=0.4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--every", type=int, default=8, help="score one image in so many")
    parser.add_argument("--out", type=Path, help="also write the figures here, JSON")
    given = parser.parse_args()
    noise = {"type": given.noise_type, "rate": given.noise}
    results = []
    for seed in range(given.seeds):
        results.append(one_seed(noise, seed, given.data_dir, given.probes, given.every))
        print(f"seed {seed} done", flush=True)
        if given.out is not None:
            given.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"{given.noise_type} {given.noise:g}, {given.seeds} seeds, {given.probes} probes\n")
    print("| score | AUROC of one round | of the sum over rounds |\n|---|---|---|")
    for name in results[0]:
        single, total = (cell([result[name][part] for result in results]) for part in (0, 1))
        print(f"| {name} | {single} | {total} |")


if __name__ == "__main__":
    main()
