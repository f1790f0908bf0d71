"""A module of robustdiff as one file, with the definitions of other modules that it uses."""

import ast
import importlib.util
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

from robustdiff import __version__

_OWN = "robustdiff"


@dataclass
class _Module:
    """A module's source: its top-level definitions and what it imports.

    Attributes:
        lines: Its lines.
        defined: Name -> the statement that defines it.
        documented: Last line of a statement -> last line of the text that documents it.
        imported: Name -> (module, name there) of robustdiff; or the import of something else.
    """

    lines: list[str]
    defined: dict[str, ast.stmt] = field(default_factory=dict)
    documented: dict[int, int] = field(default_factory=dict)
    imported: dict[str, tuple[str, str] | ast.Import | ast.ImportFrom] = field(default_factory=dict)


def flatten(module: str) -> str:
    """Return a module with all that it uses of other modules of robustdiff, as one file.

    Definitions keep their text and the comments above them; each module's stand in the order of the
    module, below those that they use.

    Args:
        module: Dotted name of a module of robustdiff.

    Raises:
        ValueError: If two of the definitions have one name, or a module is imported where a name
            of it is needed.
    """
    wanted: dict[str, set[str]] = {}
    for name in _read(module).defined:
        _need(name, module, wanted)
    _refuse_collisions(wanted)
    title = ast.get_docstring(ast.parse(_path(module).read_text(encoding="utf-8")), clean=False)
    made = f"Made by robustdiff {__version__} (MIT licence), which is not needed here."
    head = f'"""{title}\n\n{made}\n"""\n\n{_imports(wanted)}'
    parts = [_text(_read(place), wanted[place]) for place in _order(wanted)]
    return "\n\n\n".join([head, *parts]) + "\n"


def _need(name: str, place: str, wanted: dict[str, set[str]]) -> None:
    """Note that a definition of a module is wanted, and all that it uses."""
    source = _read(place)
    if name not in source.defined:
        raise ValueError(f"{place} defines no {name}; import names, not modules")
    if name in wanted.setdefault(place, set()):
        return
    wanted[place].add(name)
    for used in sorted(_names(source.defined[name])):
        origin = source.imported.get(used)
        if isinstance(origin, tuple):
            _need(origin[1], origin[0], wanted)
        elif used in source.defined:
            _need(used, place, wanted)


def _path(module: str) -> Path:
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin)


@cache
def _read(module: str) -> _Module:
    text = _path(module).read_text(encoding="utf-8")
    source, body = _Module(text.splitlines()), ast.parse(text).body
    for node, after in pairwise([*body, ast.Pass()]):
        if isinstance(after, ast.Expr) and node.end_lineno is not None:
            source.documented[node.end_lineno] = after.end_lineno or 0
        if isinstance(node, ast.Import | ast.ImportFrom):
            source.imported |= _imported(node)
        for name in _defined(node):
            source.defined[name] = node
    return source


def _imported(
    node: ast.Import | ast.ImportFrom,
) -> dict[str, tuple[str, str] | ast.Import | ast.ImportFrom]:
    names = {(alias.asname or alias.name).split(".")[0]: alias for alias in node.names}
    if isinstance(node, ast.Import):
        return {name: ast.Import([alias]) for name, alias in names.items()}
    origin = node.module or ""
    if origin.partition(".")[0] == _OWN:
        return {name: (origin, alias.name) for name, alias in names.items()}
    return {name: ast.ImportFrom(origin, [alias], 0) for name, alias in names.items()}


def _imports(wanted: dict[str, set[str]]) -> str:
    """Return the imports that wanted definitions use, one for each module that names are from."""
    whole: set[str] = set()
    taken: dict[str, set[str]] = {}
    for place, names in wanted.items():
        used = {one for name in names for one in _names(_read(place).defined[name])}
        for origin in (_read(place).imported.get(name) for name in used):
            if isinstance(origin, ast.ImportFrom):
                taken.setdefault(origin.module or "", set()).add(ast.unparse(origin.names[0]))
            elif isinstance(origin, ast.Import):
                whole.add(ast.unparse(origin))
    parts = [f"from {module} import {', '.join(sorted(taken[module]))}" for module in sorted(taken)]
    return "\n".join([*sorted(whole), *parts])


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    names = [one for target in targets for one in ast.walk(target)]
    return [one.id for one in names if isinstance(one, ast.Name)]


def _names(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _order(wanted: dict[str, set[str]]) -> list[str]:
    """Return the modules, each below those that its wanted definitions use."""
    order: list[str] = []

    def visit(place: str) -> None:
        if place in order:
            return
        used = {one for name in wanted[place] for one in _names(_read(place).defined[name])}
        for one in sorted(used):
            origin = _read(place).imported.get(one)
            if isinstance(origin, tuple):
                visit(origin[0])
        order.append(place)

    for place in wanted:
        visit(place)
    return order


def _refuse_collisions(wanted: dict[str, set[str]]) -> None:
    owner: dict[str, str] = {}
    for place, names in wanted.items():
        for name in names:
            if owner.setdefault(name, place) != place:
                raise ValueError(f"{owner[name]} and {place} both define {name}")


def _text(source: _Module, names: set[str]) -> str:
    """Return the definitions of some names, in the order of their module."""
    nodes = {source.defined[name].lineno: source.defined[name] for name in names}
    parts: list[str] = []
    for _, node in sorted(nodes.items()):
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(one.lineno for one in decorators)]) - 1
        while first and source.lines[first - 1].startswith("#"):
            first -= 1
        assert node.end_lineno is not None
        end = source.documented.get(node.end_lineno, node.end_lineno)
        blank = "\n\n" if isinstance(node, ast.FunctionDef | ast.ClassDef) else ""
        parts.append(blank + "\n".join(source.lines[first:end]))
    return "\n".join(parts).strip()
