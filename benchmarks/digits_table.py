"""The README's table: every curriculum on digits at 30 % symmetric noise, three seeds.

python benchmarks/digits_table.py [FOLDER] trains and evaluates what is missing in FOLDER, then
prints the table in Markdown. About 45 minutes on two cores.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.stats import t as student

ROWS = {
    "clean labels": ("uniform", 0.0),
    "noisy, `uniform`": ("uniform", 0.3),
    "noisy, `random`": ("random", 0.3),
    "noisy, `small-loss`": ("small-loss", 0.3),
    "noisy, `dynamics-cond`": ("dynamics-cond", 0.3),
    "noisy, `dynamics-dropout`": ("dynamics-dropout", 0.3),
    "noisy, `dynamics-uncond` (the paper's proposal)": ("dynamics-uncond", 0.3),
    "noisy, `pmi`": ("pmi", 0.3),
    "noisy, `oracle` (knows the wrong labels)": ("oracle", 0.3),
}
SEEDS = (0, 1, 2)
COLUMNS = {
    "label accuracy": lambda m: m["label_accuracy"],
    "NLL": lambda m: m["nll"],
    "class-wise FID": lambda m: m["class_fid"],
    "FID": lambda m: m["fid"],
    "AUROC": lambda m: None if m["detection"] is None else m["detection"]["auroc"],
}


def metrics(folder: Path, curriculum: str, noise: float, seed: int) -> dict:
    """Return a run's metrics.json, made first if it is missing."""
    run = folder / f"{curriculum if noise else 'clean'}-{seed}"
    if not (run / "metrics.json").exists():
        train = ["train", f"--noise={noise}", f"--curriculum={curriculum}", f"--seed={seed}"]
        for words in ([*train, f"--out={run}"], ["eval", str(run), f"--seed={seed}", "--json"]):
            subprocess.run([sys.executable, "-m", "robustdiff", *words], check=True)
    return json.loads((run / "metrics.json").read_text())


def cell(values: list[float | None]) -> str:
    """Format mean and 95 % interval (Student's t)."""
    if None in values:
        return "-"
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


def main() -> None:
    """Print the table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/digits-table")
    print("| labels, curriculum |", " | ".join(COLUMNS), "|")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, (curriculum, noise) in ROWS.items():
        found = [metrics(folder, curriculum, noise, seed) for seed in SEEDS]
        cells = [cell([column(m) for m in found]) for column in COLUMNS.values()]
        print(f"| {name} |", " | ".join(cells), "|")
    real = ("label_accuracy_real", "nll_real", "class_fid_floor", "fid_floor")
    print(
        "| real images, held out |",
        " | ".join(cell([m[key] for m in found]) for key in real),
        "| - |",
    )


if __name__ == "__main__":
    main()
