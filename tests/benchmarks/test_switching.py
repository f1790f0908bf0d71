import csv
import sys

import pytest
from robustdiff.cli.app import main as robustdiff

from benchmarks.switching import METRICS, MODES, main
from robustdiff.metrics import evaluator


def test_the_ends_of_the_interval_are_plain_guidance_and_none(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator, "_SEEN", {False: 1000, True: 1000})
    run, out = tmp_path / "run", tmp_path / "out"
    words = ["--set=model.channels=[8]", "--set=sample.steps=2", "--steps=4", f"--out={run}"]
    with pytest.raises(SystemExit):
        robustdiff(["train", *words])
    monkeypatch.setattr(
        sys, "argv", ["", str(run), f"--out={out}", "-w2", "--num-samples=40", "--times", "0", "1"]
    )
    main()
    with (out / "switching.csv").open() as file:
        rows = list(csv.DictReader(file))
    paper, limited = MODES
    found = {(row["mode"], float(row["t"])): [row[m] for m in METRICS] for row in rows}
    assert len(found) == 4
    # Guided all the time; then with the label alone; and without.
    assert found[paper, 0] == found[limited, 0]
    assert found[limited, 1] != found[paper, 0]
    assert found[paper, 1] not in (found[limited, 1], found[paper, 0])
    assert (out / "switching.png").stat().st_size > 1000
