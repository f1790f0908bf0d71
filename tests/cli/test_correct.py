"""From a folder to corrected labels and back, by commands."""

import csv
import json
import os
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from commands import TINY, call
from correcting import NAMES, make_folder, snapshot

import robustdiff
from corruptions import NoisyLabels
from robustdiff.config.layers import resolve
from robustdiff.exports import moving
from robustdiff.jobs import audit as module
from robustdiff.jobs.correct import check_targets
from robustdiff.labels.crossfit import Crossfitted
from robustdiff.labels.decision import Decision as Judged
from robustdiff.review.decisions import Decision, Decisions
from robustdiff.runs.folder import Run

# Figures have no glyph for every script.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph")
EACH, K = 8, len(NAMES)


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def judged(monkeypatch):
    """Classifiers take seconds; these find that the first image of each class is of the next."""

    def find(images, given, num_classes, plan, **_):
        given = given.numpy()
        first = np.arange(len(given)) % EACH == 0
        clean = np.where(first, (given + 1) % num_classes, given)
        classes = (0.9 * np.eye(num_classes)[clean] + 0.1 / num_classes).astype(np.float32)
        decision = Judged(
            classes[np.arange(len(given)), given].astype(np.float64), clean, classes, classes,
            classes, classes, np.eye(num_classes), 0.1, 0.1, 0.1, "by class",
        )  # fmt: skip
        return Crossfitted(classes, decision, decision.right)

    monkeypatch.setattr(module, "crossfit", find)
    make_folder(Path("photos"), each=EACH)
    assert call("audit", "photos", "--image-size=4") == 0
    return Run(Path("audits/photos"))


def decide(run, *decisions):
    with Decisions(run) as store:
        for decision in decisions:
            store.record(decision)


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


DECIDED = (
    Decision(0, "keep"),  # the judge would relabel it
    Decision(1, "relabel", 3),
    Decision(2, "remove"),
    Decision(3, "unsure"),
    Decision(8, "relabel", 5),  # the judge has another class
)


def test_a_person_decides_first_then_the_judge(judged, capsys):
    decide(judged, *DECIDED)
    capsys.readouterr()
    assert call("correct", "photos", "--to=c.csv", "--to=c.npz") == 0
    said = capsys.readouterr().out
    assert "48 labels: 3 checked by a person, 2 of them changed; 4 changed by the judge" in said
    assert "1 images removed" in said
    given, names = judged.labels(), judged.labels().class_names
    wanted = given.given.copy()
    wanted[[16, 24, 32, 40]] = (wanted[[16, 24, 32, 40]] + 1) % K
    wanted[1], wanted[8] = 3, 5
    found = rows("c.csv")
    assert [row["label"] for row in found] == [names[label] for label in wanted]
    assert [row["file"] for row in found] == list(given.paths)
    assert [i for i, row in enumerate(found) if row["removed"] == "True"] == [2]
    record = NoisyLabels.load(Path("c.npz"))
    assert record.given.tolist() == wanted.tolist()
    assert record.decided_by == tuple(row["decided_by"] for row in found)
    assert call("correct", "photos", "--decided-only", "--to=d.npz") == 0
    only = NoisyLabels.load(Path("d.npz"))
    assert set(np.flatnonzero(only.given != given.given)) == {1, 8}


@pytest.mark.parametrize("link", ["hard", "soft", "copy"])
def test_the_tree_is_what_the_table_says(judged, link):
    decide(judged, *DECIDED)
    before = snapshot(Path("photos"))
    assert call("correct", "photos", "--to=c.csv", "--to=tree", f"--link={link}") == 0
    assert snapshot(Path("photos")) == before
    content = {str(path.relative_to("photos")): path.read_bytes() for path in
               Path("photos").rglob("*.png")}  # fmt: skip
    wanted = {
        content[row["file"]]: row["label"] for row in rows("c.csv") if row["removed"] != "True"
    }
    found = {path.read_bytes(): path.parent.name for path in Path("tree").rglob("*.png")}
    assert found == wanted


def test_a_class_that_has_lost_its_images_gets_no_folder(judged, capsys):
    lost = EACH * 2
    decide(judged, *(Decision(i, "remove") for i in range(lost, lost + EACH)))
    # The judge would fill the class again.
    assert call("correct", "photos", "--decided-only", "--to=tree") == 0
    name = judged.labels().class_names[2]
    said = " ".join(capsys.readouterr().err.split())
    assert f"no folder is made for {name!r}, of which no image is left: tree has 5 of 6" in said
    assert {path.name for path in Path("tree").iterdir()} == {*NAMES} - {name}
    assert call("audit", "tree", "--image-size=4") == 0
    capsys.readouterr()
    assert call("correct", "photos", "--decided-only", "--in-place") == 0
    assert f"no image is left of {name!r}: remove the empty" in capsys.readouterr().err
    before = snapshot(Path("photos"))
    assert call("correct", "--undo=audits/photos/moves-1.json") == 0
    assert call("correct", "photos", "--decided-only", "--in-place") == 0
    assert snapshot(Path("photos")) == before
    Path("photos", name).rmdir()
    assert call("audit", "photos", "--image-size=4", "--out=again") == 0


@pytest.mark.parametrize("to", ["tree", "c.csv", "c.npz", "c.json"])
def test_nothing_that_exists_is_written_over(judged, to, capsys):
    Path(to).mkdir() if to == "tree" else Path(to).write_text("mine")
    assert call("correct", "photos", f"--to={to}") == 2
    assert f"{to} already exists" in capsys.readouterr().err
    assert to == "tree" or Path(to).read_text() == "mine"
    Path("d.xml").write_text("mine")
    assert call("correct", "photos", "--to=d.json") == 2
    assert "d.xml already exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to=new.csv", "--to=old.csv"], "old.csv already exists"),
        (["--to=new.csv", "--to=t", "--to=old.csv"], "old.csv already exists"),
        (["--to=new.csv", "--to=./new.csv"], "new.csv is asked for twice"),
        (["--to=t", "--to=t/new.csv"], "t/new.csv is asked for twice, or within another target"),
        (["--to=new.csv", "--to=old.csv/tree"], "old.csv is no folder; choose"),
        (["--to=old.csv/a/new.csv"], "old.csv is no folder, so old.csv/a cannot be one"),
        (["--from-label-studio=export.json", "--to=old.csv"], "old.csv already exists"),
        (["--from-label-studio=export.json", "--to=photos/new"], "photos/new lies within photos"),
    ],
)
def test_all_targets_are_checked_before_anything_is_written(judged, words, says, capsys):
    Path("old.csv").write_text("mine")
    assert call("correct", "photos", "--to=tasks.json") == 0
    tasks = json.loads(Path("tasks.json").read_text())
    for task in tasks:
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
    Path("export.json").write_text(json.dumps(tasks))
    capsys.readouterr()
    assert call("correct", "photos", *words) == 2
    assert says in capsys.readouterr().err
    assert not Path("new.csv").exists()
    assert not Path("t").exists()
    assert not judged.decisions_file.exists()


@pytest.mark.parametrize(
    ("data", "link", "to", "says"),
    [
        ({"dataset": "digits"}, "hard", None, "images are moved between class folders"),
        ({"dataset": "digits"}, "hard", "tree", "a tree is made of files"),
        ({"dataset": "digits"}, "hard", "x.json", "Label Studio shows files"),
        ({"dataset": "webdataset", "data_dir": "a"}, "soft", "tree", "nothing can link to them"),
    ],
)
def test_targets_that_the_images_do_not_allow(data, link, to, says):
    config, targets = resolve({"data": data}), [] if to is None else [Path(to)]
    with pytest.raises(ValueError, match=says):
        check_targets(targets, config, link=link, in_place=to is None)


def test_an_audit_has_no_model(judged, capsys):
    for command in ("likelihood", "export", "sample"):
        assert call(command, judged.path) == 2
        assert "audits/photos is an audit, which has no model" in capsys.readouterr().err


def test_images_are_not_moved_away_from_what_was_just_written(judged, capsys):
    before = snapshot(Path("photos"))
    assert call("correct", "photos", "--in-place", "--to=tree", "--to=c.csv", "--link=soft") == 2
    assert "--in-place moves the images that --to tree would name" in capsys.readouterr().err
    assert snapshot(Path("photos")) == before
    assert not Path("tree").exists()
    assert not Path("c.csv").exists()


def test_moved_in_place_and_taken_back(judged, capsys):
    decide(judged, *DECIDED)
    before = snapshot(Path("photos"))
    assert call("correct", "photos", "--to=tree") == 0
    assert call("correct", "photos", "--in-place") == 0
    assert "take it back with: robustdiff correct --undo audits/photos/moves-1.json" in (
        capsys.readouterr().out
    )
    tree = {
        path: content
        for path, content in snapshot(Path("photos")).items()
        if not path.startswith(".") and content is not None
    }
    assert tree == {p: c for p, c in snapshot(Path("tree")).items() if c is not None}
    assert call("correct", "--finish=audits/photos/moves-1.json") == 0
    assert "0 images moved in" in capsys.readouterr().out
    assert call("correct", "--undo=audits/photos/moves-1.json") == 0
    assert snapshot(Path("photos")) == before
    assert call("correct", "--undo=audits/photos/moves-1.json") == 0
    assert call("correct", "photos", "--undo=audits/photos/moves-1.json", "--in-place") == 2
    assert "or --undo or --finish alone" in capsys.readouterr().err


@pytest.fixture
def spaced(judged, capsys):
    """An audit of a folder with a space in its name, nothing decided."""
    Path("photos").rename("my photos")
    judged.path.rename("audits/my photos")
    config = json.loads(Path("audits/my photos/config.json").read_text())
    config["data"]["data_dir"] = "my photos"
    Path("audits/my photos/config.json").write_text(json.dumps(config))
    capsys.readouterr()
    return Run(Path("audits/my photos"))


def test_moves_are_finished_and_taken_back_in_a_folder_that_has_moved(spaced, capsys):
    before = snapshot(Path("my photos"))
    assert call("correct", "my photos", "--in-place") == 0
    said = capsys.readouterr().out
    command = said.partition("take it back with: robustdiff ")[2].strip()
    assert command == "correct --undo 'audits/my photos/moves-1.json'"
    Path("my photos").rename("moved")
    words = shlex.split(command)
    assert call(*words) == 2
    assert "my photos; name its new place by --data-dir" in capsys.readouterr().err
    assert call(*words, "--data-dir=nowhere") == 2
    assert "/nowhere; name its new place" in capsys.readouterr().err
    Path("empty").mkdir()
    assert call(*words, "--data-dir=empty") == 2
    assert "nothing was moved" in capsys.readouterr().err
    assert call(*words, "--data-dir=moved", "--image-root=moved") == 2
    assert "--image-root is for manifests" in capsys.readouterr().err
    assert call(*words, "--data-dir=moved") == 0
    assert snapshot(Path("moved")) == before
    assert call("correct", "--finish", words[-1], "--data-dir=moved") == 0
    assert f"6 images moved in {Path('moved').resolve()}" in capsys.readouterr().out
    assert call(*words, "--data-dir=moved") == 0
    assert snapshot(Path("moved")) == before


def test_a_move_that_the_system_refuses_says_how_to_go_on(spaced, monkeypatch, capsys):
    before = snapshot(Path("my photos"))
    left, real = [3], os.link

    def link(*args, **rest):
        left[0] -= 1
        if left[0] < 0:
            raise PermissionError(13, "Permission denied", str(args[1]))
        return real(*args, **rest)

    with monkeypatch.context() as patch:
        # Only the link fails, which is not taken for a file system without links.
        patch.setattr(moving.os, "link", link)
        assert call("correct", "my photos", "--in-place") == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "denied" in line]
    journal = "'audits/my photos/moves-1.json'"
    assert f"finish them with: robustdiff correct --finish {journal}, or take" in said
    assert said.endswith(f"take them back with: robustdiff correct --undo {journal}")
    assert call("correct", "--undo=audits/my photos/moves-1.json") == 0
    assert "3 images moved back" in capsys.readouterr().out
    assert snapshot(Path("my photos")) == before


def test_suggested_commands_can_be_pasted(spaced, monkeypatch, capsys):
    (spaced.path / "label_issues.csv").unlink()
    assert call("review", "my photos") == 2
    assert "make it with: robustdiff audit 'audits/my photos'" in capsys.readouterr().err
    (spaced.path / "label_issues.csv").write_text("x\n1,2\n")
    assert call("review", "my photos") == 1
    assert "again with: robustdiff audit 'audits/my photos'" in capsys.readouterr().err
    assert call("correct", "my photos", "--decided-only", "--to=c.csv") == 2
    assert "and robustdiff review 'audits/my photos'" in capsys.readouterr().err
    spaced.path.rename("audits/gone")
    assert call("correct", "my photos", "--to=c.csv") == 2
    assert "make it with: robustdiff audit 'my photos'" in capsys.readouterr().err


def test_to_label_studio_and_back(judged, capsys):
    decide(judged, *DECIDED)
    assert call("correct", "photos", "--to=all.json", "--to=c.csv") == 0
    tasks = json.loads(Path("all.json").read_text())
    # What the judge corrects and nobody has decided.
    assert sorted(task["data"]["index"] for task in tasks) == [16, 24, 32, 40]
    for task in tasks:
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
    Path("export.json").write_text(json.dumps(tasks))
    capsys.readouterr()
    assert call("correct", "photos", "--from-label-studio=export.json", "--to=d.csv") == 0
    assert "4 new decisions" in capsys.readouterr().out
    one, other = rows("c.csv"), rows("d.csv")
    assert [row["label"] for row in one] == [row["label"] for row in other]
    assert {row["decided_by"] for row in other} == {"given", "person", "removed"}
    assert call("correct", "photos", "--from-label-studio=export.json") == 0
    assert "0 new decisions" in capsys.readouterr().out
    Path("export.json").write_text("[{}]")
    assert call("correct", "photos", "--from-label-studio=export.json") == 2
    assert "task 1 of export.json was not made by robustdiff" in capsys.readouterr().err
    assert call("correct", "photos", "--to=worst.json", "--worst=3") == 0
    assert len(json.loads(Path("worst.json").read_text())) == 3


def exported(run, path, choices, time=None):
    """Write what Label Studio exports: sample -> what its annotators chose, all at one time."""
    about, names = run.labels(), run.labels().class_names
    when = {} if time is None else {"updated_at": datetime.fromtimestamp(time, UTC).isoformat()}
    tasks = []
    for sample, words in choices.items():
        found = [
            {"from_name": "label", "value": {"choices": [names[w] if w in range(K) else w]}}
            for w in words
        ]
        tasks.append(
            {
                "data": {"index": sample, "labels_sha256": about.sha256},
                "annotations": [when | {"result": [one]} for one in found],
            }
        )
    Path(path).write_text(json.dumps(tasks))


@pytest.mark.parametrize("is_timed", [True, False])
def test_an_export_that_is_imported_again_leaves_what_was_decided_since(judged, is_timed, capsys):
    choices = {0: [2], 1: [0, 1], 2: ["[remove]"], 3: ["[unsure]"], 4: [0]}
    exported(judged, "e.json", choices, time.time() - 60 if is_timed else None)
    words = ("correct", "photos", "--from-label-studio=e.json")
    assert call(*words) == 0
    assert "5 new decisions, 0 of them in place of others" in capsys.readouterr().out
    decide(judged, Decision(0, "keep"), Decision(1, "relabel", 4), Decision(3, "keep"))
    with Decisions(judged) as decisions:
        before = decisions.history()
        assert call(*words) == 0
        assert decisions.history() == before
        decisions.record(Decision(4, "relabel", 1))
        decisions.undo()
        decisions.record(Decision(2, "keep"))
        before = decisions.latest()
        assert call(*words) == 0
        assert decisions.latest() == before
    said = capsys.readouterr()
    assert said.out.count("0 new decisions, 0 of them in place of others") == 2
    assert "3 annotations are older than what was decided since, or unsure where" in said.err


def test_what_is_annotated_later_replaces_what_stands_but_torn_tasks_nothing_sure(judged, capsys):
    sure = [Decision(0, "keep"), Decision(1, "relabel", 4), Decision(2, "remove")]
    decide(judged, *sure, Decision(3, "unsure"), Decision(4, "keep"))
    choices = {number: [0, 1] for number in range(4)} | {4: ["[unsure]"], 5: [3]}
    exported(judged, "e.json", choices, time.time() + 60)
    assert call("correct", "photos", "--from-label-studio=e.json") == 0
    assert "2 new decisions, 1 of them in place of others" in capsys.readouterr().out
    with Decisions(judged) as decisions:
        assert [decisions.latest()[number] for number in range(3)] == sure
        assert decisions.latest()[4] == Decision(4, "unsure")
        assert decisions.latest()[5] == Decision(5, "relabel", 3)
    # Of an annotation without a time nothing says that it is older than what stands.
    exported(judged, "e.json", {0: [3]})
    assert call("correct", "photos", "--from-label-studio=e.json") == 0
    assert "1 new decisions, 1 of them in place of others" in capsys.readouterr().out


def test_places_that_images_were_moved_from_are_not_written(judged, capsys):
    assert call("correct", "photos", "--in-place") == 0
    capsys.readouterr()
    for to in ("c.csv", "c.npz", "c.json", "tree"):
        assert call("correct", "photos", f"--to={to}") == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert "images of photos were moved by audits/photos/moves-1.json" in said
        assert not Path(to).exists()
    anew = said.partition("audit the folder anew with: robustdiff ")[2].partition(", or take")[0]
    assert anew == "audit photos --out NEW"
    assert call(*shlex.split(anew), "--image-size=4") == 0
    assert call("correct", "NEW", "--to=new.csv") == 0
    assert all(Path("photos", row["file"]).is_file() for row in rows("new.csv"))
    assert call(*shlex.split(said.rpartition("back with: robustdiff ")[2])) == 0
    assert call("correct", "photos", "--to=c.csv") == 0
    assert all(Path("photos", row["file"]).is_file() for row in rows("c.csv"))


def test_suffixes_in_any_case_say_what_is_written_and_other_files_are_refused(judged, capsys):
    assert call("correct", "photos", "--to=c.CSV", "--to=d.NPZ", "--to=e.Json") == 0
    assert len(rows("c.CSV")) == K * EACH
    assert NoisyLabels.load(Path("d.NPZ")).paths == judged.labels().paths
    assert json.loads(Path("e.Json").read_text())
    for to in ("c.parquet", "c.TSV", "c.jsonl", "c.xlsx"):
        capsys.readouterr()
        assert call("correct", "photos", f"--to={to}") == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert "record (.npz), a table (.csv), tasks for Label Studio (.json), or a new" in said
        assert said.endswith(f"got {to}")
        assert not Path(to).exists()
    assert call("correct", "photos", "--to=photos-v1.2") == 0
    assert Path("photos-v1.2").is_dir()


def test_what_is_decided_is_in_the_next_report(judged):
    decide(judged, *DECIDED)
    assert call("audit", "photos", "--image-size=4") == 0
    found = rows("audits/photos/label_issues.csv")
    assert (found[0]["is_label_issue"], found[0]["label_quality"]) == ("False", "1")
    assert found[1]["predicted_name"] == judged.labels().class_names[3]
    assert found[1]["label_quality"] == found[1]["gain"] == "0"
    assert float(found[9]["gain"]) > 0
    summary = json.loads(Path("audits/photos/label_issues.json").read_text())
    assert "3 labels were checked by a person" in summary["source"]
    assert call("report", "audits/photos") == 0
    page = Path("audits/photos/report.html").read_text()
    about = (
        f"{summary['issues']} of 48 labels look wrong, estimated noise "
        f"{summary['estimated_noise']:.1%}; 3 labels were checked by a person."
    )
    assert about in page


def test_judged_anew_with_what_is_known(judged, monkeypatch):
    decide(judged, *DECIDED)
    seen = {}

    def again(images, given, known, checked, plan, **rest):
        seen.update(checked=checked, classes=known.classes)
        return module.crossfit(images, given, K, plan)

    monkeypatch.setattr(module, "crossfit_again", again)
    assert call("audit", judged.path, "--by=crossfit") == 0
    assert np.flatnonzero(seen["checked"].known).tolist() == [0, 1, 8]
    assert np.flatnonzero(seen["checked"].removed).tolist() == [2]
    assert judged.judged_file.exists()
    assert call("correct", judged.path, "--to=c.csv") == 0
    assert rows("c.csv")[0]["decided_by"] == "person"
    # The folder in place of its audit.
    judged.judged_file.unlink()
    seen.clear()
    assert call("audit", "photos", "--image-size=4") == 0
    assert not seen
    assert call("audit", "photos", "--image-size=4", "--by=crossfit") == 0
    assert np.flatnonzero(seen["checked"].known).tolist() == [0, 1, 8]
    assert judged.judged_file.exists()


def test_findings_about_a_part_of_the_images_are_not_kept(judged, capsys):
    Path("photos", judged.labels().paths[47]).unlink()
    capsys.readouterr()
    assert call("audit", judged.path, "--judge-effort=quick") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "1 images of audits/photos are gone, so these findings are in the report alone" in said
    assert not judged.judged_file.exists()


def test_settings_of_classifiers_ask_for_classifiers(judged, capsys):
    np.save("p.npy", np.eye(K)[judged.labels().given] + 0.1)
    assert call("audit", "photos", "--image-size=4", "--judge-probs=p.npy", "--out=found") == 0
    capsys.readouterr()
    assert call("audit", "found", "--by=crossfit") == 0
    assert "judged by: the probabilities in p.npy" in capsys.readouterr().out
    assert call("audit", "found", "--judge-folds=3") == 0
    assert "judged by: 6 classifiers in 2 rounds" in capsys.readouterr().out
    found = robustdiff.audit("found", {"judge.effort": "quick"})
    assert found.source.startswith("2 classifiers in one round")
    for word in ("found", "photos"):
        assert call("audit", word, "--judge-effort=quick", "--judge-features=f.npy") == 2
        said = capsys.readouterr().err
        assert "judge.effort is for classifiers, and judge.features judges the labels" in said


def test_features_are_judged_anew_with_what_is_known(judged, capsys):
    given, clean = judged.labels().given.copy(), judged.labels().given.copy()
    clean[::EACH] = (clean[::EACH] + 1) % K
    noise = 0.3 * np.random.default_rng(0).normal(size=(len(clean), K))
    np.save("f.npy", 2 * np.eye(K)[clean] + noise)
    decide(judged, *(Decision(i, "relabel", int(clean[i])) for i in range(0, 24, EACH)))
    capsys.readouterr()
    assert call("audit", judged.path, "--judge-features=f.npy") == 0
    assert "3 labels were checked by a person" in capsys.readouterr().out
    assert call("correct", judged.path, "--to=c.csv") == 0
    names = judged.labels().class_names
    right = [row["label"] == names[k] for row, k in zip(rows("c.csv"), clean, strict=True)]
    assert all(right[:24])
    assert sum(right) >= (given == clean).sum() + 3


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_a_generator_is_trained_on_corrected_labels_without_removed_images(judged, kind, capsys):
    decide(judged, *DECIDED)
    assert call("correct", "photos", f"--to=c.{kind}") == 0
    words = [
        "train", "--dataset=folder", "--data-dir=photos", "--image-size=4", f"--labels=c.{kind}",
        "--out=after", "--steps=2", *TINY, "--set=train.batch_size=8",
    ]  # fmt: skip
    assert call(*words) == 0
    labels, corrected = Run(Path("after")).labels(), rows("c.csv") if kind == "csv" else None
    assert not labels.flipped.any()  # nobody knows the right ones
    removed = judged.labels().paths[2]
    assert removed not in labels.paths
    if corrected:
        label = {row["file"]: row["label"] for row in corrected}
        assert [labels.class_names[k] for k in labels.given] == [label[p] for p in labels.paths]
    assert call("train", "--resume=after", "--steps=3") == 0
    # The same by the folder, by its audit, and on the tree.
    more = ["--steps=1", *TINY, "--set=train.batch_size=8"]
    assert call("train", "photos", "--image-size=4", f"--labels=c.{kind}", "--out=x", *more) == 0
    assert call("train", judged.path, f"--labels=c.{kind}", "--out=y", *more) == 0
    for path in ("x", "y"):
        assert Run(Path(path)).labels().sha256 == labels.sha256
    assert call("correct", "photos", "--to=tree") == 0
    assert call("train", "tree", "--image-size=4", "--out=z", *more) == 0
    tree = Run(Path("z")).labels()
    assert not {digest for digest in tree.digests} - set(judged.labels().digests)


def test_a_run_is_trained_again_on_corrected_labels(tmp_path, capsys):
    words = ["--noise=0.3", "--curriculum=margin", "--steps=3", *TINY]
    assert call("train", "--dataset=digits", "--out=before", *words) == 0
    run = Run(Path("before"))
    truth = run.labels().clean
    decide(run, *(Decision(i, "relabel", int(truth[i])) for i in range(300)))
    assert call("correct", "before", "--decided-only", "--to=c.npz") == 0
    assert call("train", "before", "--labels=c.npz", "--out=after", "--steps=4") == 0
    after, config = Run(Path("after")).labels(), Run(Path("after")).config()
    assert not after.flipped[:300].any()
    assert after.flipped[300:].sum() == run.labels().flipped[300:].sum()
    assert (config.model, config.curriculum) == (run.config().model, run.config().curriculum)
    capsys.readouterr()
    assert call("train", "before", "--dataset=digits") == 2
    assert "before takes the place of --config" in capsys.readouterr().err
    assert call("train", "nowhere") == 2
    assert "nowhere is neither a folder of images nor a run" in capsys.readouterr().err


def test_removed_images_of_a_dataset_without_files(capsys):
    assert call("audit", "--dataset=digits", "--noise=0.2", "--judge-rounds=1", "--out=found") == 0
    run = Run(Path("found"))
    decide(run, Decision(7, "remove"), Decision(9, "keep"))
    assert call("correct", "found", "--to=c.npz") == 0
    assert call("correct", "found", "--to=tree") == 2
    assert "a tree is made of files, and dataset 'digits' has none" in capsys.readouterr().err
    words = ["--dataset=digits", "--labels=c.npz", "--out=after", "--steps=2", *TINY]
    assert call("train", *words) == 0
    labels = Run(Path("after")).labels()
    assert labels.kept[:9] == (0, 1, 2, 3, 4, 5, 6, 8, 9)
    assert len(labels.given) == len(run.labels().given) - 1
    assert labels.realised_rate < 0.05
    assert labels.decided_by[8] == "person"
    assert call("train", "--resume=after", "--steps=3") == 0


def test_a_run_that_nothing_corrects_is_refused(capsys):
    assert call("train", "--dataset=digits", "--out=plain", "--steps=1", *TINY) == 0
    capsys.readouterr()
    assert call("correct", "plain", "--to=c.npz") == 2
    assert "nothing corrects the labels of plain" in capsys.readouterr().err
