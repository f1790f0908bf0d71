import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = {
    "cli": {"robustdiff", "corruptions", "curricula"},
    "robustdiff": {"corruptions", "curricula"},
    "corruptions": set(),
    "curricula": set(),
}
# Wing of robustdiff -> the wings that it may import; the modules at the top are one wing, "".
WINGS = {
    "config": set(),
    "": set(),
    "files": {""},
    "data": {"", "config", "files"},
    "diffusion": {"", "config", "files", "data"},
    "classifiers": {"", "config", "files", "data", "diffusion"},
    "metrics": {"", "config", "files", "data", "diffusion", "classifiers"},
    "labels": {"", "config", "files", "data", "diffusion", "classifiers"},
    "trainers": {"", "config", "data", "diffusion", "files", "labels"},
    "runs": {"", "config", "files", "data", "diffusion", "classifiers", "metrics"},
    "training": {"", "config", "files", "data", "diffusion", "classifiers", "metrics", "labels"},
}
WINGS["reports"] = WINGS["training"] | {"runs"}
WINGS["review"] = WINGS["reports"] | {"reports"}
WINGS["exports"] = WINGS["review"] | {"review"}
WINGS["published"] = WINGS["reports"] | {"reports"}
WINGS["jobs"] = WINGS["exports"] | {"training", "exports", "published"}


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(path)}


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_down(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        if path.name != "__main__.py":  # the door to the command line
            assert imported_packages(path) & LAYERS.keys() <= LAYERS[package] | {package}, path


def test_every_folder_of_robustdiff_is_a_wing():
    folders = {path.parent.name for path in (ROOT / "robustdiff").glob("*/__init__.py")}
    assert folders == WINGS.keys() - {""}


@pytest.mark.parametrize("wing", WINGS)
def test_no_import_crosses_a_wall(wing):
    top = ROOT / "robustdiff"
    for path in (top / wing).rglob("*.py") if wing else top.glob("*.py"):
        if path.parent == top and path.name in ("__main__.py", "__init__.py", "api.py"):
            continue  # doors
        modules = [name.split(".") for name in imported_modules(path)]
        wings = {name[1] for name in modules if name[0] == "robustdiff" and len(name) > 1}
        wings = {name if name in WINGS else "" for name in wings}
        assert wings <= WINGS[wing] | {wing}, path


def test_the_map_lists_every_module_and_no_other():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    block = text.partition("<!-- map -->\n```\n")[2].partition("\n```")[0]
    shown, folders = {}, []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, about = line.strip().partition(" ")
        folders[depth:] = [name.removesuffix("/")]
        path = "/".join(folders) + ("/__init__.py" if name.endswith("/") else "")
        shown[path] = about.strip()
    modules = [
        path for package in LAYERS for path in (ROOT / package).rglob("*.py")
        if not path.is_relative_to(ROOT / "robustdiff" / "cli")
    ]  # fmt: skip
    first_lines = {
        str(path.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]
        for path in modules
    }
    assert shown == first_lines


FILE_LINES, FUNCTION_LINES = 400, 60


def test_files_and_functions_stay_short():
    for package in LAYERS:
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            assert text.count("\n") <= FILE_LINES, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    first = node.body[0]
                    documented = isinstance(first, ast.Expr) and isinstance(
                        first.value, ast.Constant
                    )
                    start = first.end_lineno if documented else node.lineno
                    assert node.end_lineno - start <= FUNCTION_LINES, f"{path}: {node.name}"


def test_corruptions_know_no_torch():
    for path in (ROOT / "corruptions").rglob("*.py"):
        assert "torch" not in imported_packages(path), path


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["eval", "--help"]])
def test_help_imports_neither_torch_nor_numpy(words):
    code = (
        "import sys\nfrom robustdiff.cli.app import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "assert not {'torch', 'numpy', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_no_generic_cli_package_is_installed():
    code = "import importlib.util as u; assert u.find_spec('cli') is None"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(sys.prefix))
