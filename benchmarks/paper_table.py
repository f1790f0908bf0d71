"""Table 1 of the paper beside ours: fill the tables of docs/paper.md from a study's comparison.

    robustdiff study benchmarks/cen.toml --data-dir DIR --out STUDY
    robustdiff compare STUDY --out FOLDER
    python benchmarks/paper_table.py FOLDER/compare.json docs/paper.md

Whatever stands between `<!-- table -->` and `<!-- end -->` in the page is replaced.
"""

import argparse
import json
import re
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from robustdiff.reports.intervals import cell, interval


class Pattern(NamedTuple):
    """A row of the table.

    Attributes:
        name: As in the paper, or what it is.
        published: FID, IS, NLL as printed in Table 1.
        setting: How `robustdiff compare` names the run.
    """

    name: str
    published: tuple[str, str, str] | None
    setting: dict[str, str]


_USUAL = {"cen_hidden": "64", "cen_activation": "silu", "cen_depth": "1"}

PATTERNS = (
    Pattern("Uniform-1", ("3,253", "3.575", "3.084"), {"cen": "uniform-1"}),
    Pattern("Uniform-16 (here 2)", ("3.240", "2.717", "1.851"), {"cen": "uniform-2"}),
    Pattern("Uniform-256 (here 32)", ("3.240", "4.671", "0.392"), {"cen": "uniform-32"}),
    Pattern("Complete Bottleneck", ("3.223", "7.416", "0.003"), {"cen": "complete-bottleneck"}),
    Pattern("Bottleneck", ("3.219", "7.711", "0.005"), {"cen": "bottleneck"}),
    Pattern("Pyramid", ("3.217", "7.472", "0.027"), {"cen": "pyramid"}),
    Pattern("added to the time", None, {"cen": "add"}),
    Pattern("adaptive group normalisation", None, {"cen": "adagn"}),
    Pattern("cross-attention", None, {"cen": "cross-attention"}),
    Pattern(
        "Uniform-1, one hidden ReLU",
        None,
        {"cen": "uniform-1", "cen_hidden": "size", "cen_activation": "relu"},
    ),
    Pattern("Uniform-1, 64 ReLUs", None, {"cen": "uniform-1", "cen_activation": "relu"}),
    Pattern("Uniform-1, three hidden layers", None, {"cen": "uniform-1", "cen_depth": "3"}),
)
METRICS = ("FID", "inception score", "NLL", "label accuracy", "class-wise FID", "coverage")
# What differences are looked for in.
_COMPARED = ("NLL", "class-wise FID")


def find(rows: list[dict], pattern: Pattern) -> dict | None:
    """Return the comparison's row of a pattern; what no run varies is not in its name."""
    for row in rows:
        named = dict(re.findall(r"(cen\w*)=(\S+)", row["method"]))
        if _USUAL | named == _USUAL | pattern.setting:
            return row
    return None


def table(rows: list[dict]) -> str:
    """Return both tables as one, real images last."""
    heads = ["FID, paper", "IS, paper", "NLL, paper", "seeds", *METRICS]
    lines = ["| class embedding | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    last = None
    for pattern in PATTERNS:
        row = find(rows, pattern)
        ours = ["0", *["-"] * len(METRICS)]
        if row is not None:
            last = row
            ours = [str(len(row["seeds"])), *(cell(row["values"][m]) for m in METRICS)]
        words = [pattern.name, *(pattern.published or ["-"] * 3), *ours]
        lines.append("| " + " | ".join(words) + " |")
    if last is not None:
        floors = (cell(last["values"][f"{metric}, real"]) for metric in METRICS)
        lines.append(f"| held-out real images | - | - | - | - | {' | '.join(floors)} |")
    return "\n".join(lines)


def differences(rows: list[dict]) -> str:
    """Say which pairs of patterns differ, seed by seed, beyond the 95 % interval of the mean."""
    there = [(p.name, row) for p in PATTERNS if (row := find(rows, p)) is not None]
    sentences = []
    for metric in _COMPARED:
        real, tried = [], 0
        for (name, row), (other, against) in combinations(there, 2):
            mine, theirs = (
                dict(zip(r["seeds"], r["values"][metric], strict=True)) for r in (row, against)
            )
            shared = sorted(set(mine) & set(theirs))
            if len(shared) < 2:
                continue
            tried += 1
            mean, half = interval([mine[seed] - theirs[seed] for seed in shared])
            if abs(mean) > (half or 0):
                better, worse = (name, other) if mean < 0 else (other, name)
                real.append((worse, better, abs(mean), half or 0))
        if not tried:
            sentences.append(f"- {metric}: no pair has two seeds yet, so no difference is called.")
            continue
        pairs = "; ".join(f"{b} below {w} by {m:.3f} ± {h:.3f}" for w, b, m, h in real)
        chance = f"about {tried * 0.05:.0f} would be by chance" if tried >= 10 else "few were tried"
        sentences.append(
            f"- {metric}: {len(real)} of {tried} pairs differ ({chance}). {pairs or 'None'}."
        )
    return "\n".join(sentences)


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", type=Path)
    parser.add_argument("page", type=Path)
    given = parser.parse_args()
    rows = json.loads(given.comparison.read_text())
    page = given.page.read_text()
    parts = (("table", table(rows)), ("differences", differences(rows)))
    for name, text in parts:
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marked.search(page):
            raise SystemExit(f"{given.page} has no <!-- {name} --> ... <!-- end -->")
        page = marked.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)
    given.page.write_text(page)


if __name__ == "__main__":
    main()
