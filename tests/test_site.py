"""The documentation as a site: built with warnings as errors, complete, and alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The built pages, name -> HTML."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {str(path.relative_to(out)): path.read_text() for path in out.rglob("*.html")}


def test_every_page_is_built(pages):
    written = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert written | {"tour.html", "architecture.html", "api/robustdiff.html"} <= pages.keys()
    assert "corruptions.noise.corrupt" in pages["api/corruptions.html"]
    assert 'src="tour-4.png"' in pages["tour.html"]


def test_the_front_page_has_the_example():
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert (ROOT / "examples" / "ten_lines.py").read_text(encoding="utf-8").endswith(f"\n\n{code}")


def test_pages_load_nothing_from_elsewhere(pages):
    for name, page in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\s\">]+)", page)
        loaded += re.findall(
            r"<link rel=\"?(?:stylesheet|icon|preconnect)[^>]* href=\"?([^\s\">]+)", page
        )
        assert loaded
        assert not [address for address in loaded if "//" in address], name


def test_lists_and_tables_are_such(pages):
    for name, page in pages.items():
        prose = re.sub(r"<(pre|code)[ >].*?</\1>", "", page, flags=re.DOTALL)
        lost = re.findall(r"<p>(?:(?!</p>).)*\n(?:[-*] |1\. |\|).*", prose)
        assert not lost, (name, lost[:1])
