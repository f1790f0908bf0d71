import json
import sys

import pytest

from benchmarks.paper_table import METRICS, PATTERNS, differences, find, main, table


def row(method, nll, fid=(1.0, 1.0, 1.0)):
    values = {metric: [0.5] * 3 for metric in METRICS}
    values |= {f"{metric}, real": [0.25] * 3 for metric in METRICS}
    values |= {"NLL": list(nll), "class-wise FID": list(fid)}
    return {"noise": "clean", "method": method, "seeds": [0, 1, 2], "values": values}


ROWS = [
    row("uniform cen=uniform-1 cen_hidden=64 cen_activation=silu", (0.30, 0.50, 0.40)),
    row("uniform cen=uniform-1 cen_hidden=size cen_activation=relu", (0.9, 0.8, 1.0)),
    # Worse than the first by nearly the same at every seed, though their intervals overlap.
    row("uniform cen=pyramid cen_hidden=64 cen_activation=silu", (0.35, 0.56, 0.45)),
]


def test_every_pattern_finds_its_own_row_alone():
    found = {pattern.name: find(ROWS, pattern) for pattern in PATTERNS}
    assert [name for name, mine in found.items() if mine is not None] == [
        "Uniform-1",
        "Pyramid",
        "Uniform-1, one hidden ReLU",
    ]
    assert found["Uniform-1"] is ROWS[0]
    assert found["Uniform-1, one hidden ReLU"] is ROWS[1]


def test_the_table_has_the_papers_figures_ours_and_those_of_real_images():
    lines = table(ROWS).splitlines()
    assert "| Uniform-1 | 3,253 | 3.575 | 3.084 | 3 | 0.500 ± 0.000 |" in lines[2]
    assert "| Bottleneck | 3.219 | 7.711 | 0.005 | 0 | - |" in lines[6]
    assert lines[-1].startswith("| held-out real images | - | - | - | - | 0.250 ± 0.000 |")


def test_differences_are_judged_seed_by_seed():
    nll, fid = differences(ROWS).splitlines()
    assert "3 of 3 pairs differ" in nll
    assert "Uniform-1 below Pyramid by 0.053" in nll
    assert fid.startswith("- class-wise FID: 0 of 3 pairs differ")
    one = [r | {"seeds": [0], "values": {k: v[:1] for k, v in r["values"].items()}} for r in ROWS]
    assert "no difference is called" in differences(one)


def test_the_page_is_filled_and_a_page_without_marks_refused(tmp_path, monkeypatch):
    source, page = tmp_path / "compare.json", tmp_path / "page.md"
    source.write_text(json.dumps(ROWS))
    page.write_text("a\n<!-- table -->\nold\n<!-- end -->\nb\n<!-- differences -->\n<!-- end -->\n")
    monkeypatch.setattr(sys, "argv", ["", str(source), str(page)])
    main()
    once = page.read_text()
    main()
    assert page.read_text() == once
    assert "old" not in once
    assert once.startswith("a\n<!-- table -->\n| class embedding |")
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has no <!-- table -->"):
        main()
