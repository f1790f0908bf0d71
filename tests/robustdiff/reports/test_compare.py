import csv
import json
import math
import os

import numpy as np
import pytest
from commands import call

from corruptions import NoisyLabels
from robustdiff.config.layers import resolve, to_plain
from robustdiff.errors import DamagedError
from robustdiff.metrics.catalogue import evaluator_in_words
from robustdiff.reports.compare import (
    compare_runs,
    evaluators_in_words,
    find_runs,
    markdown,
    write_comparison,
)
from robustdiff.reports.intervals import cell, interval


def make_run(folder, *, rate, class_fid, seed, judged=None, **layer):
    """Write what compare reads of a run; `judged` are more entries of its metrics.json."""
    config = resolve({"noise": {"rate": rate}, "seed": seed}, layer)
    metrics = {
        "label_accuracy": 0.9,
        "nll": 0.1,
        "class_fid": class_fid,
        "fid": 0.5,
        "noise": rate,
        "detection": None,
    }
    if layer:
        metrics |= {
            "detection": {"auroc": 0.75, "average_precision": 0.5, "precision_at_rate": 0.6},
            "estimated_noise": 0.25,
            "training_seconds": 60.0,
            "scoring_seconds": 30.0,
        }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_plain(config)))
    (folder / "metrics.json").write_text(json.dumps(metrics | (judged or {})))


@pytest.fixture
def study(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f"clean/{seed}", rate=0, class_fid=1, seed=seed)
        make_run(tmp_path / f"uniform/{seed}", rate=0.3, class_fid=5, seed=seed)
        pmi = {"curriculum": {"name": "pmi"}}
        make_run(tmp_path / f"pmi/{seed}", rate=0.3, class_fid=2 + seed, seed=seed, **pmi)
    return tmp_path


def test_the_gap_is_that_between_clean_and_plain_training_of_the_same_seed(study):
    rows = compare_runs(find_runs([study]))
    assert [(row.noise, row.method) for row in rows] == [
        ("clean", "uniform"),
        ("symmetric 0.3", "pmi"),
        ("symmetric 0.3", "uniform"),
    ]
    assert rows[0].values["gap closed"] == []
    assert rows[1].seeds == [0, 1, 2]
    assert rows[1].values["gap closed"] == [0.75, 0.5, 0.25]
    assert rows[1].values["above clean"] == [1, 2, 3]
    assert rows[0].values["above clean"] == [0, 0, 0]
    assert rows[1].values["noise error"] == pytest.approx([0.05] * 3)
    assert rows[2].values["gap closed"] == [0, 0, 0]
    assert rows[2].values["AUROC"] == []


def test_another_setup_is_another_row_and_closes_no_gap_of_the_first(study):
    longer = {"curriculum": {"name": "pmi"}, "train": {"steps": 7}}
    make_run(study / "longer", rate=0.3, class_fid=1, seed=0, **longer)
    probes = {"curriculum": {"name": "pmi", "probes": 9, "treatment": "reweight"}}
    make_run(study / "probes", rate=0.3, class_fid=1, seed=0, **probes)
    rows = {row.method: row for row in compare_runs(find_runs([study])) if row.noise != "clean"}
    assert sorted(rows) == [
        "pmi reweight steps=1000 probes=9",
        "pmi steps=1000 probes=4",
        "pmi steps=7 probes=4",
        "uniform steps=1000",
    ]
    assert rows["pmi steps=7 probes=4"].values["gap closed"] == []
    assert rows["pmi steps=7 probes=4"].values["above clean"] == []


def test_settings_of_scores_do_not_part_runs_without_scores(tmp_path):
    for seed, probes in enumerate((1, 4)):
        make_run(
            tmp_path / str(seed), rate=0, class_fid=1, seed=seed, curriculum={"probes": probes}
        )
    assert [row.method for row in compare_runs(find_runs([tmp_path]))] == ["uniform"]


def test_evidence_from_a_file_is_part_of_the_method_and_not_of_what_it_is_measured_against(study):
    evidence = {"name": "crossfit"}, {"probabilities": "somewhere/else/judged.npz"}
    layer = dict(zip(("curriculum", "judge"), evidence, strict=True))
    make_run(study / "judged", rate=0.3, class_fid=2, seed=0, **layer)
    own = {"curriculum": {"name": "crossfit"}}
    make_run(study / "own", rate=0.3, class_fid=3, seed=0, **own)
    unasked = {"curriculum": {"name": "pmi"}, "judge": {"effort": "quick"}}
    make_run(study / "unasked", rate=0.3, class_fid=2, seed=3, **unasked)
    rows = {row.method: row for row in compare_runs(find_runs([study])) if row.noise != "clean"}
    assert sorted(rows) == [
        "crossfit probabilities=judged.npz",
        "crossfit probabilities=null",
        "pmi",
        "uniform",
    ]
    assert rows["crossfit probabilities=judged.npz"].values["gap closed"] == [0.75]
    assert rows["pmi"].seeds == [0, 1, 2, 3]


def test_interval_is_students():
    mean, half = interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.3026527 / math.sqrt(3)))
    assert interval([2.5]) == (2.5, None)
    assert cell([]) == "-"
    assert cell([0.5]) == "0.500"


def test_files_say_the_same(study, tmp_path):
    rows = compare_runs(find_runs([study]))
    write_comparison(rows, tmp_path / "out")
    made = tmp_path / "out"
    assert (made / "compare.md").read_text() == markdown(rows)
    stored = json.loads((made / "compare.json").read_text())
    assert [row["method"] for row in stored] == [row.method for row in rows]
    with (made / "compare.csv").open() as file:
        table = list(csv.DictReader(file))
    assert float(table[1]["gap closed mean"]) == 0.5
    assert table[0]["gap closed mean"] == ""
    assert (made / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_folders_without_runs_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no evaluated run"):
        find_runs([tmp_path / "empty"])


def test_a_published_model_among_runs_is_passed_over_and_named_alone(study):
    export = study / "pmi/0/export"
    export.mkdir()
    (export / "robustdiff.json").write_text("{}")
    (export / "metrics.json").write_text((study / "pmi/0/metrics.json").read_text())
    assert len(find_runs([study])) == 9
    assert len(find_runs([study / "pmi/0"])) == 1
    with pytest.raises(ValueError, match="export is a published model; name the run"):
        find_runs([export])


def test_a_run_found_twice_counts_once(study):
    assert len(find_runs([study, study / "pmi"])) == 9


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ({"guidance_weight": 0.5}, {"guidance_weight": 2.0}, "sample.guidance_weight=2.0"),
        ({"guidance": "classifier"}, {"guidance": "auto"}, "sample.guidance=auto"),
        ({"sampler": "ddim"}, {"sampler": "heun"}, "sample.sampler=heun"),
        ({"steps": 20}, {"steps": 50}, "sample.steps=50"),
        ({"features": "classifier"}, {"features": "inception"}, "features=inception"),
        ({"num_samples": 100}, {"num_samples": 430}, "num_samples=430"),
        ({"evaluator_sha256": "a" * 64}, {"evaluator_sha256": "b" * 64}, f"evaluator={'b' * 12}"),
    ],
)
def test_runs_that_were_judged_otherwise_share_no_row_and_no_gap(one, other, shown, tmp_path):
    for seed, judged in enumerate((one, one, other)):
        make_run(tmp_path / f"clean/{seed}", rate=0, class_fid=1, seed=seed, judged=one)
        make_run(tmp_path / f"noisy/{seed}", rate=0.3, class_fid=5, seed=seed, judged=judged)
    rows = compare_runs(find_runs([tmp_path / "clean", tmp_path / "noisy"]))
    assert [len(row.seeds) for row in rows if row.noise == "clean"] == [3]
    apart = {row.method.partition(" ")[2]: row for row in rows if row.noise != "clean"}
    assert sorted(len(row.seeds) for row in apart.values()) == [1, 2]
    assert apart[shown].seeds == [2]
    assert apart[shown].values["gap closed"] == []


def test_noises_of_one_name_keep_their_own_baselines_and_are_told_apart(tmp_path):
    noises = {
        "one": {"type": "matrix", "matrix": "a/t.npy"},
        "two": {"type": "matrix", "matrix": "b/t.npy"},
        "three": {"type": "asymmetric", "rate": 0.2, "class_map": "m.json"},
        "four": {"type": "asymmetric", "rate": 0.2, "class_map": None},
    }
    make_run(tmp_path / "clean", rate=0, class_fid=1, seed=0)
    for number, (name, noise) in enumerate(noises.items()):
        for method, class_fid in (("uniform", 5 + number), ("pmi", 3)):
            layer = {"noise": noise, "curriculum": {"name": method}}
            judged = {"noise": 0.2, "detection": None}
            folder = tmp_path / name / method
            make_run(folder, rate=0, class_fid=class_fid, seed=0, judged=judged, **layer)
    rows = {(row.noise, row.method): row for row in compare_runs(find_runs([tmp_path]))}
    gaps = {noise: row.values["gap closed"] for (noise, name), row in rows.items() if name == "pmi"}
    assert gaps == {
        "matrix t.npy matrix=a/t.npy": [2 / 4],
        "matrix t.npy matrix=b/t.npy": [3 / 5],
        "asymmetric 0.2 class_map=m.json": [4 / 6],
        "asymmetric 0.2 class_map=null": [5 / 7],
    }


def test_of_one_seed_twice_the_one_evaluated_last_counts(tmp_path):
    for name, class_fid, age in (("old", 5, 100), ("new", 3, 200)):
        make_run(tmp_path / name, rate=0.3, class_fid=class_fid, seed=0)
        os.utime(tmp_path / name / "metrics.json", (age, age))
    (row,) = compare_runs(find_runs([tmp_path]))
    assert (row.seeds, row.values["class-wise FID"]) == ([0], [3])


def test_noise_that_costs_nothing_leaves_no_gap(tmp_path):
    for rate in (0, 0.3):
        make_run(tmp_path / str(rate), rate=rate, class_fid=1, seed=0)
    assert [row.values["gap closed"] for row in compare_runs(find_runs([tmp_path]))] == [[], []]


def test_an_unknown_truth_is_neither_clean_nor_an_error_of_the_estimate(tmp_path):
    pmi = {"curriculum": {"name": "pmi"}}
    unknown = {"noise": None, "detection": None}
    make_run(tmp_path / "as it is", rate=0, class_fid=1, seed=0, judged=unknown)
    make_run(tmp_path / "pmi", rate=0, class_fid=2, seed=0, judged=unknown, **pmi)
    make_run(tmp_path / "worse", rate=0.3, class_fid=5, seed=0)
    make_run(tmp_path / "won back", rate=0.3, class_fid=3, seed=0, **pmi)
    rows = compare_runs(find_runs([tmp_path]))
    assert [(row.noise, row.method) for row in rows] == [
        ("unknown", "uniform"),
        ("unknown", "pmi"),
        ("symmetric 0.3", "pmi"),
        ("symmetric 0.3", "uniform"),
    ]
    assert rows[1].values["noise error"] == rows[1].values["gap closed"] == []
    assert rows[2].values["gap closed"] == [0.5]


def test_each_evaluator_is_shown_with_its_accuracy_on_real_images_and_what_it_learnt(tmp_path):
    about = {"label_accuracy_real": 0.75, "evaluator_corrected": 0.125, "evaluator_sha256": "a"}
    for seed in range(2):
        for method in ("pmi", "uniform"):
            layer = {"curriculum": {"name": method}}
            make_run(
                tmp_path / f"{method}{seed}",
                rate=0.3,
                class_fid=2,
                seed=seed,
                judged=about,
                **layer,
            )
    make_run(tmp_path / "earlier", rate=0, class_fid=2, seed=0)
    rows = compare_runs(find_runs([tmp_path]))
    noisy = [row for row in rows if row.noise != "clean"]
    assert [row.values["label accuracy, real"] for row in noisy] == [[0.75, 0.75]] * 2
    (line,) = evaluators_in_words(noisy)
    assert line == evaluator_in_words(0.75, 0.125)
    assert markdown(rows).splitlines().count(f"- {line}") == 1
    assert evaluators_in_words([row for row in rows if row.noise == "clean"]) == []


def test_figures_that_some_evaluations_lack_are_shown_where_they_are(study, tmp_path):
    """Evaluations by earlier versions know neither these figures nor those of the flag."""
    assert "CAS" not in markdown(compare_runs(find_runs([study])))
    found = {"auroc": 0.9, "average_precision": 0.8, "precision_at_rate": 0.7}
    judged = {"cas": 0.8, "cas_real": 0.9, "class_coverage": None}
    new = {**judged, "detection": {**found, "flag_f1": 0.6}}
    for seed, figures in enumerate((new, {"detection": found})):
        make_run(tmp_path / f"new/{seed}", rate=0.4, class_fid=3, seed=seed, judged=figures)
    (row,) = compare_runs(find_runs([tmp_path / "new"]))
    assert (row.values["CAS"], row.values["CAS, real"]) == ([0.8], [0.9])
    assert row.values["class-wise coverage"] == []
    assert row.values["F1 of the flag"] == [0.6]
    table = markdown([row])
    assert "| CAS | CAS, real | F1 of the flag |" in table
    assert "| 0.800 | 0.900 | 0.600 |" in table


def test_before_and_after_correction_stand_apart_where_nobody_knows_the_truth(tmp_path):
    unknown = {"noise": None, "detection": None}
    make_run(tmp_path / "before", rate=0, class_fid=1, seed=0, judged=unknown)
    after = {"noise": {"labels": "sorted/corrected.npz"}}
    make_run(tmp_path / "after", rate=0, class_fid=2, seed=0, judged=unknown, **after)
    rows = compare_runs(find_runs([tmp_path]))
    assert [(row.noise, row.method) for row in rows] == [
        ("unknown", "uniform"),
        ("labels of corrected.npz", "uniform"),
    ]
    assert [row.values["gap closed"] for row in rows] == [[], []]


def run_on_labels(folder, given, *, seed=0, labels="c.csv", named=("a", "b")):
    """A run that was trained on the labels of a file."""
    make_run(folder, rate=0, class_fid=2, seed=seed, noise={"labels": str(labels)})
    given = np.array(given)
    NoisyLabels(
        clean=given, given=given, nominal=np.eye(2), noise_type="file", rate=0.0, seed=None,
        mode="exact", convention=f"of {labels}", class_names=named,
    ).save(folder / "labels.npz")  # fmt: skip


def test_a_label_file_that_has_changed_in_between_is_another_noise(tmp_path):
    run_on_labels(tmp_path / "before", [0, 1, 1])
    run_on_labels(tmp_path / "after", [0, 1, 0])
    run_on_labels(tmp_path / "classes", [0, 1, 0], named=("b", "a"))
    rows = compare_runs(find_runs([tmp_path]))
    assert [(row.method, row.seeds) for row in rows] == [("uniform", [0])] * 3
    assert len({row.noise for row in rows}) == 3
    assert all(row.noise.startswith("labels of c.csv labels=") for row in rows)


def test_label_files_of_one_name_are_told_apart_by_their_paths(tmp_path):
    for name, labels in (("a", [0, 1, 1]), ("b", [0, 1, 0])):
        run_on_labels(tmp_path / name, labels, labels=f"{name}/c.csv")
    rows = compare_runs(find_runs([tmp_path]))
    assert {row.noise for row in rows} == {
        "labels of c.csv labels=a/c.csv",
        "labels of c.csv labels=b/c.csv",
    }


def test_the_same_labels_in_another_place_or_file_are_the_same_noise(tmp_path):
    for seed, labels in enumerate(("c.csv", tmp_path / "c.csv", "d.npz")):
        run_on_labels(tmp_path / str(seed), [0, 1, 1], seed=seed, labels=labels)
        os.utime(tmp_path / str(seed) / "metrics.json", (100 + seed, 100 + seed))
    (row,) = compare_runs(find_runs([tmp_path]))
    assert (row.noise, row.seeds) == ("labels of c.csv", [0, 1, 2])


def test_runs_whose_labels_are_gone_are_known_by_the_file_and_damaged_ones_named(tmp_path):
    for seed in range(2):
        run_on_labels(tmp_path / str(seed), [0, 1, seed], seed=seed)
        (tmp_path / str(seed) / "labels.npz").unlink()
    (row,) = compare_runs(find_runs([tmp_path]))
    assert (row.noise, row.seeds) == ("labels of c.csv", [0, 1])
    (tmp_path / "0/labels.npz").write_bytes(b"PK")
    with pytest.raises(DamagedError, match=r"0/labels\.npz is damaged or not a label file"):
        compare_runs(find_runs([tmp_path]))


def test_an_evaluation_that_is_left_out_is_named(tmp_path, capsys):
    for name, age in (("old", 100), ("new", 200)):
        make_run(tmp_path / name, rate=0.3, class_fid=1, seed=7)
        os.utime(tmp_path / name / "metrics.json", (age, age))
    make_run(tmp_path / "other", rate=0.3, class_fid=1, seed=8)
    assert call("compare", tmp_path) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said == (
        f"left out: {tmp_path}/old/metrics.json, since {tmp_path}/new/metrics.json has the same "
        "settings and the same seed, 7, and was written later"
    )
