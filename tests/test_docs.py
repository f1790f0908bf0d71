"""What the pages name is there."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    wings = "benchmarks|cli|corruptions|curricula|examples|robustdiff|tests"
    named = re.findall(rf"\b((?:{wings})/[\w/.-]+\.(?:ipynb|py|toml))", text)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_tour_audits_by_command_as_it_does_by_code():
    cells = json.loads((ROOT / "examples" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    (code,) = [source for source in sources if "audit_images(" in source]
    (words,) = re.findall(r"`(robustdiff audit [^`]*)`", "\n".join(sources))
    assert words == "robustdiff audit photos --image-size 8 --judge-effort quick"
    for setting in ('"data.image_size": 8', '"judge.effort": "quick"'):
        assert setting in code
