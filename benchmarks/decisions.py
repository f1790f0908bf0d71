"""How many wrong labels are left after how many decisions, and in which order are they best made?

A simulated person who knows the truth looks at one label after another. The labels that leave are
counted, with the judge's corrections of the others and without. Orders: at random; by
`label_quality`, the least trusted first; by gain (`robustdiff.labels.checked`), from a judge that
learns nothing, one that is taught by what was decided, and one that judges anew every hundred
decisions besides, where the file holds features or images.

A file (.npz) holds `given` and `clean`, (N,) int64, and one of `p`, (N, K) out-of-sample
probabilities, such as `benchmarks/judge.py --save` writes, and `features`, (N, D). `by_image` says
whether wrong labels depend on the image, as a judge of several rounds knows from the first. With
`images`, (N, C, H, W) uint8, beside `p` classifiers judge anew, which takes minutes each time.

    python benchmarks/decisions.py NAME=FILE.npz ... [--budget 500] [--figure decisions.png]
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from curricula import Trust
from robustdiff.config.judging import JudgeConfig
from robustdiff.labels.checked import Checked, gain, relabelled, taught
from robustdiff.labels.crossfit import crossfit_again, likeliest_decision, make_plan
from robustdiff.labels.decision import decide
from robustdiff.labels.features import probe
from robustdiff.labels.probabilities import by_decision
from robustdiff.progress import silent
from robustdiff.reports.figures import write_figure

ORDERS = {
    "random": "random order",
    "quality": "by label quality",
    "gain": "by gain",
    "taught": "by gain, taught",
    "anew": "by gain, taught, judged anew",
}
MARKS = (0, 50, 100, 200, 300, 500)
# Decisions between two looks at the queue, and between two judgements anew.
STEP, ANEW = 25, 100


Results = dict[str, dict[str, list[list[dict]]]]
"""Name of labels -> order -> for each seed what `simulate` returns."""


class Case(NamedTuple):
    """Labels, the truth, and a judge that knows of no decision.

    Attributes:
        given: (N,) int64.
        clean: (N,) int64.
        trust: What the judge found.
        anew: What it finds when it judges anew, from what it found and what was decided.
    """

    given: np.ndarray
    clean: np.ndarray
    trust: Trust
    anew: Callable[[Trust, Checked], Trust] | None


def load(path: Path, seed: int) -> Case:
    """Read a file and judge its labels."""
    with np.load(path) as content:
        found = dict(content)
    given, clean = found["given"], found["clean"]
    k = int(max(given.max(), clean.max())) + 1
    p = found["p"] if "p" in found else probe(found["features"], given, k, seed=seed)
    kind = bool(found["by_image"]) if "by_image" in found else None
    trust, _ = by_decision(decide(p, given, by_image=kind), given)

    def by_features(_: Trust, checked: Checked) -> Trust:
        p = probe(found["features"], checked.fixed(given), k, seed=seed)
        return by_decision(likeliest_decision(p, given, checked), given)[0]

    def by_images(known: Trust, checked: Checked) -> Trust:
        images = torch.from_numpy(found["images"])
        shape = tuple(images.shape[1:])
        plan = make_plan(JudgeConfig(), shape, len(images), seed=seed)
        again = crossfit_again(
            images, torch.from_numpy(given), known, checked, plan, progress=silent
        )
        return by_decision(again.decision, given)[0]

    anew = by_features if "features" in found else by_images if "images" in found else None
    return Case(given, clean, trust, anew)


def simulate(case: Case, order: str, budget: int, seed: int) -> list[dict]:
    """Decide about `budget` labels; return what is wrong after every `STEP` of them."""
    given, clean, trust = case.given, case.clean, case.trust
    n, rng = len(given), np.random.default_rng(seed)
    checked = Checked(np.full(n, -1), np.zeros(n, dtype=bool))
    by_chance, results = rng.random(n), []
    for done in range(0, budget + 1, STEP):
        if order == "anew" and done and done % ANEW == 0:
            assert case.anew is not None
            trust = case.anew(trust, checked)
        learnt = taught(trust, given, checked)
        labels = relabelled(learnt.classes, given)
        if order not in ("taught", "anew"):
            labels = relabelled(trust.classes, given)
        wrong = checked.fixed(labels) != clean
        alone = checked.fixed(given) != clean
        results.append({"decisions": done, "wrong": wrong.mean(), "alone": alone.mean()})
        importance = {
            "random": by_chance,
            "quality": 1 - trust.right,
            "gain": gain(trust, given),
        }.get(order)
        if importance is None:
            importance = gain(learnt, given)
        # Ties are broken at random.
        queue = np.lexsort((by_chance, -importance))
        chosen = queue[checked.classes[queue] < 0][:STEP]
        checked.classes[chosen] = clean[chosen]
    return [{key: float(value) for key, value in result.items()} for result in results]


def curves(results: Results) -> Figure:
    """Return wrong labels against decisions, a panel for each name, means over seeds."""
    drawing = Figure(figsize=(4.4 * len(results), 4.2), dpi=110, layout="constrained")
    for place, (name, orders) in enumerate(results.items(), start=1):
        axis = drawing.add_subplot(1, len(results), place)
        for order, runs in orders.items():
            steps = [each["decisions"] for each in runs[0]]
            mean = np.mean([[each["wrong"] for each in run] for run in runs], axis=0)
            axis.plot(steps, mean, label=ORDERS[order])
        alone = np.mean([[each["alone"] for each in run] for run in orders["random"]], axis=0)
        axis.plot(steps, alone, "k--", label="random order, without a judge")
        axis.set(title=name, xlabel="decisions", ylim=(0, None))
        axis.grid(alpha=0.3)
    drawing.axes[0].set_ylabel("share of wrong labels that leave")
    handles, words = drawing.axes[0].get_legend_handles_labels()
    drawing.legend(handles, words, loc="outside lower center", ncols=3, fontsize="small")
    return drawing


def table(results: Results) -> str:
    """Return a Markdown table, means over seeds."""
    lines = ["| labels | order | " + " | ".join(map(str, MARKS)) + " | without the judge, at 300 |"]
    lines.append("|---" * (len(MARKS) + 3) + "|")
    for name, orders in results.items():
        for order, runs in orders.items():
            found = {
                each["decisions"]: np.mean([run[i]["wrong"] for run in runs])
                for i, each in enumerate(runs[0])
            }
            cells = [f"{found[mark]:.3f}" if mark in found else "" for mark in MARKS]
            alone = [r["alone"] for run in runs for r in run if r["decisions"] == 300]
            cells.append(f"{np.mean(alone):.3f}" if alone else "")
            lines.append(f"| {name} | {ORDERS[order]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Simulate all orders on all files, add them to `--out`, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="NAME=FILE", help="of one name: its seeds")
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--out", type=Path, default=Path("decisions.json"))
    parser.add_argument("--figure", type=Path, help="file (.png) for the curves of all names")
    given = parser.parse_args()
    results: Results = {}
    if given.out.exists():
        results = json.loads(given.out.read_text())
    for seed, word in enumerate(given.files):
        name, _, file = word.partition("=")
        case = load(Path(file), seed)
        for order in given.orders:
            if order != "anew" or case.anew is not None:
                runs = results.setdefault(name, {}).setdefault(order, [])
                runs.append(simulate(case, order, given.budget, seed))
                given.out.write_text(json.dumps(results))
                print(name, order, [r["wrong"] for r in runs[-1]][:: 100 // STEP], flush=True)
    print(table(results))
    if given.figure is not None:
        write_figure(curves(results), given.figure)


if __name__ == "__main__":
    main()
