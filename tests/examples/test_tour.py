"""The notebook of the tour: its code runs; its outputs are kept, small, without local paths."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[2] / "examples" / "tour.ipynb"
CELLS = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]


def texts(cells):
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", "")) for output in outputs)


def right(text):
    """The shares of images in their right folder that the tour prints, in per cent."""
    return [float(share) for share in re.findall(r"([\d.]+)% of the images lie", text)]


def test_the_kept_outputs_are_whole_and_small():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in code)
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data"}
    assert TOUR.stat().st_size < 100_000
    assert not re.search(r"/(home|root|tmp|work)/|\x1b", texts(CELLS))
    before, after = right(texts(CELLS))
    assert before < 75
    assert after > 95


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    notebook = nbformat.read(TOUR, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3", resources=place)
    client.execute()
    before, after = right(texts(notebook.cells))
    assert before < 75
    assert after > 95
    assert (tmp_path / "runs" / "tour" / "model.safetensors").exists()
