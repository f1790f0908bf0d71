"""How well does the judge find wrong labels, on what data, in what time?

Judges the labels of every row of a table as `robustdiff audit` does, and compares them with the
truth: AUROC, F1 of the flag, the share of wrong labels before and after relabelling and as it is
estimated, the calibration error, right labels that were relabelled. Beside it the area under the
margin of the classifiers' own training, and its mean rank with the judge's. Results are appended to
`--out`; what lies there is not measured again, and an interrupted judge goes on.

    python benchmarks/judge.py --data-dir DIR [--cifar DIR --human FILE] [--effort quick] ROW ...
"""

import argparse
import json
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.metrics import f1_score, roc_auc_score

from corruptions import NoisyLabels, corrupt
from corruptions.readers import read_labels
from robustdiff.config.judging import JudgeConfig
from robustdiff.config.layers import resolve
from robustdiff.data.arrays import Images
from robustdiff.data.registry import load_images
from robustdiff.device import set_precision
from robustdiff.labels.crossfit import Crossfitted, crossfit, make_plan
from robustdiff.labels.given import prepare_labels
from robustdiff.metrics.detection import calibration_error
from robustdiff.progress import Report
from robustdiff.reports.intervals import cell

FIGURES = {
    "wrong": "wrong",
    "auroc": "AUROC",
    "f1": "F1",
    "after": "wrong after",
    "harmed": "right, relabelled",
    "share": "estimated",
    "calibration": "calibration error",
    "aum": "AUROC of AUM",
    "both": "of both",
    "seconds": "seconds",
}


def load(row: dict, seed: int, given: argparse.Namespace) -> tuple[Images, NoisyLabels]:
    """Return images and labels of a row."""
    data = {key: row[key] for key in ("dataset", "image_size", "train_size") if key in row}
    data["data_dir"] = str(given.data_dir)
    if row["dataset"] == "cifar10":
        data |= {"dataset": "folder", "data_dir": str(given.cifar)}
    config = resolve({"seed": seed, "data": data, "noise": row.get("noise", {})})
    images = load_images(config.data, Report())
    if "human" not in row:
        return images, prepare_labels(config, images, Report())
    assert images.paths is not None
    everyone = read_labels(given.human, row["human"]).given
    assert everyone is not None
    numbers = [int(Path(path).stem) for path in images.paths]
    labels = corrupt(images.train_labels.numpy(), num_classes=10, noise_type="symmetric", rate=0)
    return images, replace(labels, given=everyone[numbers])


def figures(found: Crossfitted, labels: NoisyLabels) -> dict[str, float]:
    """Compare what was found with the truth."""
    decision, right, clean = found.decision, labels.given == labels.clean, labels.clean
    flagged = decision.right < 0.5
    result = {
        "wrong": float((~right).mean()),
        "after": float((decision.corrected != clean).mean()),
        "harmed": float((decision.corrected != clean)[right].mean()),
        "share": decision.share,
        "low": decision.low,
        "high": decision.high,
        "calibration": calibration_error(decision.right, right),
        "accuracy": float((found.probabilities.argmax(1) == clean).mean()),
    }
    if right.all():
        return result
    both = rankdata(decision.right) + rankdata(found.margins)
    return result | {
        "auroc": float(roc_auc_score(right, decision.right)),
        "f1": float(f1_score(~right, flagged)),
        "aum": float(roc_auc_score(right, found.margins)),
        "both": float(roc_auc_score(right, both)),
    }


def one_row(name: str, row: dict, seed: int, given: argparse.Namespace) -> dict:
    """Judge the labels of one row and return its figures."""
    images, labels = load(row, seed, given)
    dtype = set_precision("auto", images.train.device)
    settings = JudgeConfig(effort=given.effort, folds=given.folds, rounds=given.rounds)
    shape, count = tuple(images.train.shape[1:]), len(images.train)
    plan = make_plan(settings, shape, count, seed=seed, dtype=dtype)
    started, shown = time.monotonic(), [0.0]

    def progress(done: int, total: int) -> None:
        if time.monotonic() - shown[0] > 30:
            shown[0] = time.monotonic()
            print(f"  {name}: {done / total:.0%}", end="\r", flush=True)

    folder = given.out.with_suffix(".unfinished") / f"{name}-{given.effort}-{seed}"
    found = crossfit(
        images.train,
        torch.from_numpy(labels.given),
        images.num_classes,
        plan,
        progress=progress,
        folder=folder,
    )
    seconds = time.monotonic() - started
    if given.save is not None:
        given.save.mkdir(exist_ok=True)
        path = given.save / f"{name}-{given.effort}-{seed}.npz"
        np.savez(path, p=found.probabilities, given=labels.given, clean=labels.clean)
    about = {"row": name, "seed": seed, "effort": given.effort, "kind": found.decision.kind}
    return about | figures(found, labels) | {"seconds": seconds}


def table(results: list[dict]) -> str:
    """Return the table of all results, a line for each row and effort, means over seeds."""
    lines = ["| data | effort | " + " | ".join(FIGURES.values()) + " |"]
    lines.append("|---" * (len(FIGURES) + 2) + "|")
    for name, effort in dict.fromkeys((r["row"], r["effort"]) for r in results):
        same = [r for r in results if (r["row"], r["effort"]) == (name, effort)]
        cells = [cell([r[key] for r in same if key in r]) for key in FIGURES]
        lines.append(f"| {name} | {effort} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="names in judge.toml; all without any")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as a folder, files named by index")
    parser.add_argument("--human", type=Path, help="CIFAR-10_human.pt")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--effort", choices=("quick", "default", "thorough"), default="default")
    parser.add_argument("--folds", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--save", type=Path, help="folder for the probabilities of each row")
    parser.add_argument("--out", type=Path, default=Path("judge.jsonl"))
    given = parser.parse_args()
    rows = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    results = []
    if given.out.exists():
        results = [json.loads(line) for line in given.out.read_text().splitlines()]
    done = {(r["row"], r["seed"], r["effort"]) for r in results}
    for name in given.rows or rows:
        for seed in range(given.seeds):
            if (name, seed, given.effort) not in done:
                results.append(one_row(name, rows[name], seed, given))
                with given.out.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
                print(json.dumps(results[-1]), flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
