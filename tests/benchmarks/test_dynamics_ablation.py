import torch

from benchmarks.dynamics_ablation import DRAWN, curves, parts, table
from curricula import CURRICULA
from robustdiff.reports.figures import figure_png

REGISTERED = {
    "S": "dynamics-uncond",
    "S2": "dynamics-guidance",
    "R2": "dynamics-label",
    "dynamics-cond": "dynamics-cond",
    "dynamics-dropout": "dynamics-dropout",
    "pmi": "pmi",
    "small-loss": "small-loss",
}


def test_the_parts_are_the_scores_of_the_curricula():
    eps, *f = torch.randn(7, 5, 1, 4, 4, dtype=torch.float64).unbind(0)
    found = parts(eps, tuple(f[:3]), tuple(f[3:]))
    names = ("given", "null", "dropped", "old_given", "old_null", "old_dropped")
    outputs = dict(zip(names, f, strict=True))
    for part, name in REGISTERED.items():
        torch.testing.assert_close(found[part], CURRICULA[name].compute(eps, outputs))
    torch.testing.assert_close(found["S"], found["S1"] - found["S2"])
    assert all((found[f"cosine of {name}"].abs() <= 1).all() for name in ("S", "S1", "S2", "R2"))


def test_the_table_and_the_figure_hold_every_kind_of_noise():
    one = {"single": [0.6, 0.5], "mean": [0.6, 0.7], "smoothed": [0.6, 0.65]}
    results = {kind: {"0": dict.fromkeys(DRAWN, one)} for kind in ("a", "b", "c", "d")}
    lines = table(results, "mean").splitlines()
    assert lines[0] == "| score | a | b | c | d |"
    assert len(lines) == 2 + len(DRAWN)
    assert lines[2].count("0.700") == 4
    assert figure_png(curves(results, "digits")).startswith(b"\x89PNG")
