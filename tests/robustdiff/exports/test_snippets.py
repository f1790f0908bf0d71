"""The snippets of docs/corrections.md run, where the package that they are for is installed."""

import re
from pathlib import Path

import numpy as np
import pytest
from correcting import NAMES, corrected_at_random, given_labels, make_folder

from curricula import Trust
from robustdiff.exports.table import write_table
from robustdiff.review.decisions import Decision, Decisions
from robustdiff.runs.folder import Run
from robustdiff.runs.scores import save_scores

DOCS = Path(__file__).parents[3] / "docs" / "corrections.md"


def snippets(package):
    """Return the blocks of a package's section."""
    text = DOCS.read_text()
    section = text.partition(f"\n## {package}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def corrected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(Path("photos"))
    before = given_labels([f"{name}/{i}.png" for name in NAMES for i in range(6)])
    run = Run(Path("audits/photos"))
    run.path.mkdir(parents=True)
    before.save(run.labels_file)
    found = corrected_at_random(before)
    write_table(Path("corrected.csv"), found, truth_known=False)
    n, k = len(before.given), len(NAMES)
    classes = (0.8 * np.eye(k)[found.labels] + 0.2 / k).astype(np.float32)
    trust = Trust(np.ones(n), 0.1, classes, classes, np.eye(k))
    save_scores(run, np.ones(n), trust, np.ones(n, dtype=bool))
    return found


def cleanlab_says(capsys):
    pytest.importorskip("cleanlab")
    (snippet,) = snippets("cleanlab")
    exec(snippet, {})
    return capsys.readouterr().out


def test_cleanlab_looks_once_more(corrected, capsys):
    left = int((~corrected.removed).sum())
    assert f"cleanlab doubts 0 of {left} corrected labels" in cleanlab_says(capsys)


def test_cleanlab_looks_at_what_the_newest_report_found(corrected, capsys):
    run, n, k = Run(Path("audits/photos")), len(corrected.labels), len(NAMES)
    left, trained = int((~corrected.removed).sum()), Trust(np.ones(n), 0.1)  # as `pmi` writes it
    save_scores(run, np.ones(n), trained, np.ones(n, dtype=bool))
    classes = (0.8 * np.eye(k)[corrected.labels] + 0.2 / k).astype(np.float32)
    judged = Trust(np.ones(n), 0.1, classes, classes, np.eye(k))
    save_scores(run, np.ones(n), judged, np.ones(n, dtype=bool), anew=True)
    assert f"cleanlab doubts 0 of {left} corrected labels" in cleanlab_says(capsys)


def test_fiftyone_there_and_back(corrected):
    pytest.importorskip("fiftyone")
    there, back = snippets("FiftyOne")
    names = {}
    exec(there, names)
    dataset = names["dataset"]
    samples = sorted(dataset, key=lambda sample: sample.number)
    given = corrected.before.given
    samples[0].tags, samples[1].tags, samples[2].tags = ["remove"], ["checked"], ["checked"]
    samples[1].corrected.label = NAMES[given[1]]
    samples[2].corrected.label = NAMES[(given[2] + 1) % len(NAMES)]
    for sample in samples[:3]:
        sample.save()
    exec(back, names)
    with Decisions(Run(Path("audits/photos"))) as decisions:
        assert decisions.latest() == {
            0: Decision(0, "remove"),
            1: Decision(1, "keep"),
            2: Decision(2, "relabel", (given[2] + 1) % len(NAMES)),
        }
