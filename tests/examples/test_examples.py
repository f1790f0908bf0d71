"""The examples and the README's Python run as they stand, at toy size."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(path, *words, cwd):
    command = [sys.executable, str(path), *words]
    # Another test has the other core; threads would only wait for each other.
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=alone)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("classifier", ["2"], "small-loss: 0."),
        pytest.param(
            "diffusers_unet", ["judged", "--epochs=1"], "after relabelling", marks=pytest.mark.slow
        ),
        pytest.param(
            "lightning_unet", ["scored", "--epochs=1"], "labels look wrong", marks=pytest.mark.slow
        ),
    ],
)
def test_an_example_runs_and_leaves_nothing(name, words, says, tmp_path):
    if name == "lightning_unet":
        pytest.importorskip("lightning")
    done = run(ROOT / "examples" / f"{name}.py", *words, cwd=tmp_path)
    assert says in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_every_example_is_run():
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names == {"ten_lines", "classifier", "diffusers_unet", "lightning_unet"}


def test_the_ten_lines_of_the_readme_run_silently_without_a_folder(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "robustdiff.train(" in block)
    assert (ROOT / "examples" / "ten_lines.py").read_text().endswith(f'"""\n\n{code}')
    assert len(code.strip().splitlines()) <= 10
    short = code.replace('"train.steps": 400', '"train.steps": 4, "curriculum.warmup": 0')
    assert short != code
    script = tmp_path / "readme.py"
    script.write_text(short)
    inside = tmp_path / "inside"
    inside.mkdir()
    done = run(script, cwd=inside)
    assert "labels look wrong" in done.stdout
    assert done.stderr == ""
    assert list(inside.iterdir()) == []
