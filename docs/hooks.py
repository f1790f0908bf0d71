"""Pages of the site that are made of other files: docstrings, the notebook, texts."""

import ast
import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PACKAGES = ("corruptions", "curricula")
WINGS = ("classifiers", "config", "data", "diffusion", "labels", "metrics", "runs")
TEXTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages: dict[str, str | bytes] = {"api/robustdiff.md": _front_door()}
    pages |= {f"api/{name}.md": _package(ROOT / name) for name in PACKAGES}
    pages |= {f"api/{name}.md": _package(ROOT / "robustdiff" / name) for name in WINGS}
    pages |= {name.lower(): _text(ROOT / name) for name in TEXTS}
    pages |= tour(ROOT / "examples" / "tour.ipynb")
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def _front_door() -> str:
    return (
        f"# robustdiff\n\n{_summary(ROOT / 'robustdiff' / '__init__.py')}\n\n::: robustdiff.api\n"
    )


def _package(folder: Path) -> str:
    """Return the page of a package: one section for each of its modules."""
    name = ".".join(folder.relative_to(ROOT).parts)
    modules = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    parts = [f"# {name}", _summary(folder / "__init__.py")]
    return "\n\n".join([*parts, *(f"::: {name}.{module}" for module in modules)]) + "\n"


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _text(path: Path) -> str:
    """Return a text from the top of the repository; the pages of docs/ lie beside it here."""
    text = path.read_text(encoding="utf-8").replace("](docs/", "](")
    for name in TEXTS:
        text = text.replace(f"]({name})", f"]({name.lower()})")
    return text


def tour(path: Path) -> dict[str, str | bytes]:
    """Return a notebook as a page, and the pictures among its outputs as files beside it."""
    page, pictures = [], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            page.append(source)
            continue
        page.append(_fence("python", source))
        for output in cell["outputs"]:
            picture = output.get("data", {}).get("image/png")
            if picture is None:
                page.append(_fence("text", _words(output)))
                continue
            name = f"tour-{len(pictures) + 1}.png"
            pictures[name] = base64.b64decode(picture)
            page.append(f"![Output of the code above]({name})")
    return {"tour.md": "\n\n".join(page) + "\n", **pictures}


def _words(output: dict[str, Any]) -> str:
    words = "".join(output.get("text") or output["data"]["text/plain"])
    return re.sub(r"\x1b\[[0-9;]*m", "", words).rstrip()


def _fence(language: str, content: str) -> str:
    return f"```{language}\n{content}\n```"
