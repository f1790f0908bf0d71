"""Images in tables and shards by the same commands as a folder's: audited, reviewed, corrected."""

import csv
from pathlib import Path

import numpy as np
import pytest
from commands import TINY, call
from forms import ARROW, FORMS, NAMES, make_folder, rows_of, write_csv

from robustdiff.jobs.review import open_review
from robustdiff.progress import Report
from robustdiff.review.decisions import Decision, Decisions
from robustdiff.runs.folder import Run

WRONG = 4


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make_folder(tmp_path / "photos", train=21)
    # Somebody has put ants among the bees, bees among the cats and cats among the ants.
    for number in range(WRONG):
        for name, other in zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True):
            file = folder / "train" / name / f"{number:03}.png"
            file.rename(folder / "train" / other / f"{name}-{number:03}.png")
    return folder


def shown_in(file):
    """The class that an image shows, by its path."""
    path = Path(file)
    return path.stem.partition("-")[0] if "-" in path.stem else path.parent.name


def table(path):
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def probabilities(folder, parts):
    """Of every image the class that it shows, in the order of the source."""
    rng = np.random.default_rng(0)
    seen = [NAMES.index(shown_in(file)) for file, _, _ in rows_of(folder, parts)]
    rows = 0.1 * rng.dirichlet(np.ones(3), len(seen)) + 0.9 * np.eye(3)[seen]
    np.save("p.npy", rows)
    return "p.npy"


@pytest.mark.parametrize("form", ["csv", "parquet", "webdataset"])
def test_images_of_any_form_are_audited_reviewed_and_corrected(photos, form, capsys):
    if form in ARROW:
        pytest.importorskip("pyarrow")
    path = FORMS[form](photos, Path("out"))
    names = [] if form == "parquet" else [f"--class-names={','.join(NAMES)}"]
    # Files are read in the order of their names, and those of the test part come first.
    parts = ("train", "test") if form == "csv" else ("test", "train")
    words = ["--image-size=8", f"--judge-probs={probabilities(photos, parts)}", *names]
    assert call("audit", path, *words) == 0
    audit = Run(Path("audits") / path.stem)
    found = table(audit.path / "label_issues.csv")
    assert all(row["given_name"] == Path(row["file"]).parent.name for row in found)
    strays = {int(row["index"]): row["file"] for row in found if "-" in row["file"]}
    assert len(strays) == 3 * WRONG
    with Decisions(audit) as decisions:
        for number, file in strays.items():
            decisions.record(Decision(number, "relabel", NAMES.index(shown_in(file))))
    number, stray = next(iter(strays.items()))
    content = next(photos.rglob(Path(stray).name)).read_bytes()
    pictures = open_review(audit, audit.config(), Report(), "gain").pictures
    assert pictures.name(number) == stray
    assert pictures.original(number) == (content, "image/png")
    assert pictures.is_as_read(number)

    by_copies = ("--link=copy", "--decided-only")
    assert call("correct", path, "--to=labels.csv", "--to=sorted", *by_copies) == 0
    assert all(row["label"] == shown_in(row["file"]) for row in table("labels.csv"))
    tree = {file.read_bytes(): file for file in Path("sorted").rglob("*.png")}
    assert len(tree) == 72
    assert tree[content].parent.name == shown_in(stray)
    capsys.readouterr()
    assert (
        call("train", "--data", path, "--labels=labels.csv", "--dry-run", *words[::2], *TINY) == 0
    )
    said = capsys.readouterr().err
    assert "63 images to train on, 9 held out" in said
    assert call("train", audit.path, "--labels=labels.csv", "--dry-run", *TINY) == 0


def test_an_audit_is_not_taken_for_that_of_other_labels(photos, capsys):
    rows = rows_of(photos)
    path = write_csv(photos / "labels.csv", rows)
    words = ["--image-size=8", f"--judge-probs={probabilities(photos, ('train', 'test'))}"]
    assert call("audit", path, *words) == 0
    assert call("audit", path, *words) == 0
    # Another table of the same name.
    Path("b").mkdir()
    other = write_csv(Path("b/labels.csv"), rows)
    for command in (["correct", other, "--to=fixed.csv"], ["review", other]):
        capsys.readouterr()
        assert call(*command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"is the audit of {path}, not of {other}" in line
    # The same table with another label.
    file, name, part = rows[0]
    write_csv(path, [(file, next(n for n in NAMES if n != name), part), *rows[1:]])
    capsys.readouterr()
    assert call("audit", path, *words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"1 labels of {path} are others than when audits/labels was made: {file}" in said
    assert call("audit", path, *words, "--out=again") == 0


def test_a_run_on_shards_goes_on_where_they_have_moved(photos, capsys):
    path = FORMS["webdataset"](photos, Path("out"))
    words = ["--image-size=8", f"--class-names={','.join(NAMES)}", *TINY]
    assert call("train", "--data", path, "--steps=2", "--out=run", *words) == 0
    path.rename("moved")
    assert call("train", "--resume=run", "--steps=3") == 2
    assert (
        f"no file or folder {Path('out').absolute()}; say where it is by --data-dir"
        in capsys.readouterr().err
    )
    assert call("train", "--resume=run", "--steps=3", "--data-dir=moved") == 0
    run = Run(Path("run"))
    assert run.labels().class_names == NAMES
    assert run.config().data.dataset == "webdataset"
    assert run.config().train.steps == 3


def test_corrupt_takes_tables_and_shards(photos):
    path = FORMS["webdataset"](photos, Path("out"))
    assert call("corrupt", path, "--noise=0.5", "--image-size=8", "--out=wrong") == 0
    rows = table("wrong/labels.csv")
    assert len(rows) == 63
    assert sum(row["flipped"] == "1" for row in rows) == 32


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "photos", "--data=photos"], "--data photos takes the place of the argument"),
        (["train", "--data=none"], "none is neither a folder of images nor a run"),
        (["train", "--data=a.zip"], "files of images are .tar or .parquet"),
        (["train", "--data=photos", "--dataset=mnist"], "takes the place of"),
        (["train", "--data=photos", "--label-column=x"], "data.label_column goes with dataset"),
        (["train", "--data=l.csv", "--label-column=x"], "has no column 'x' for --label-column"),
        (["audit", "--data=l.csv", "--class-names=a"], "--class-names takes at least 2"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(photos, capsys, words, message):
    Path("a.zip").touch()
    write_csv(Path("l.csv"), [("photos/train/ant/009.png", "ant")], ("file", "label"))
    assert call(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("runs").exists()


def test_a_resumed_run_says_that_its_table_has_other_labels_now(photos, capsys):
    rows = rows_of(photos)
    path = write_csv(photos / "labels.csv", rows)
    words = ["--image-size=8", *TINY]
    assert call("train", "--data", path, "--steps=2", "--out=run", *words) == 0
    capsys.readouterr()
    assert call("train", "--resume=run", "--steps=3") == 0
    assert "others than when" not in capsys.readouterr().err
    given = Run(Path("run")).labels().given
    file, name, part = rows[0]
    write_csv(path, [(file, next(n for n in NAMES if n != name), part), *rows[1:]])
    assert call("train", "--resume=run", "--steps=4") == 0
    said = capsys.readouterr().err
    assert f"1 labels of {path} are others than when run run was made: {file}; its own are" in said
    assert np.array_equal(Run(Path("run")).labels().given, given)
