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


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_down(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        if path.name != "__main__.py":  # the door to the command line
            assert imported_packages(path) & LAYERS.keys() <= LAYERS[package] | {package}, path


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
