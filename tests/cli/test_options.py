"""Options that set configuration entries: which entry, of which type, in which layer."""

import dataclasses
import inspect
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import typer
from robustdiff.cli import options
from robustdiff.cli.app import app, main
from robustdiff.cli.flags import with_options
from robustdiff.cli.options import CORRUPTION, JUDGE, NOISE, RUN, SAMPLING

from robustdiff import __version__
from robustdiff.config.layers import Layer, flat
from robustdiff.config.sections import Config

GROUPS = {
    name: group
    for name, group in vars(options).items()
    if name.isupper() and isinstance(group, dict)
}
ROWS = {
    f"{name} {key}": (key, option)
    for name, group in GROUPS.items()
    for key, option in group.items()
}


def types_of(kind, prefix=""):
    """Return config key -> type, None left out."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= types_of(hint, f"{prefix}{name}.")
        else:
            found[prefix + name] = without_none(hint)
    return found


def without_none(hint):
    if get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return typing.Union[tuple(kinds)]  # noqa: UP007 made from a tuple


def test_the_groups_are_found():
    assert {"DATA", "NOISE", "MODEL", "RUN", "EVALUATION", "SAMPLING", "PLACE"} <= GROUPS.keys()


@pytest.mark.parametrize("row", ROWS)
def test_an_option_sets_an_entry_of_the_configuration_and_has_its_type(row):
    key, option = ROWS[row]
    entries = types_of(Config)
    assert key in entries
    given, info = get_args(option)
    assert type(None) in get_args(given)
    given, entry = without_none(given), entries[key]
    assert info.help
    if given is str and get_origin(entry) is Literal:
        assert all(isinstance(name, str) for name in get_args(entry))
    elif given == list[str]:  # typer knows no lists of names
        names, rest = get_args(entry)
        assert (get_origin(entry), get_origin(names), rest) == (tuple, Literal, ...)
    else:
        assert given == entry or (given is Path and entry is str)


@pytest.mark.parametrize("name", GROUPS)
def test_what_is_given_reaches_its_entry_and_what_is_not_is_left_out(name):
    received: list[Layer] = []

    @with_options
    def command(*, layer: Annotated[Layer, GROUPS[name]]) -> None:
        received.append(layer)

    parameters = inspect.signature(command).parameters
    command(**dict.fromkeys(parameters))
    command(**{parameter: f"value of {parameter}" for parameter in parameters})
    nothing, everything = received
    assert nothing == {}
    assert flat(everything) == {
        key: f"value of {parameter}"
        for key, parameter in zip(GROUPS[name], parameters, strict=True)
    }


def values(group, **given):
    return dict.fromkeys(key.replace(".", "_") for key in group) | given


def layer_of(group, default: Layer | None = None, **given):
    received: list[Any] = []

    @with_options
    def command(*, layer: Annotated[Layer, group] = default) -> None:
        received.append(layer)

    command(**values(group, **given))
    return received[0]


def test_options_stand_among_the_other_parameters_and_replace_their_group():
    @with_options
    def command(
        path: Path,
        *,
        first: Annotated[bool, typer.Option()] = False,
        run: Annotated[Layer, RUN],
        last: int = 0,
    ) -> None:
        """Do it."""

    names = [key.replace(".", "_") for key in RUN]
    assert list(inspect.signature(command).parameters) == ["path", "first", *names, "last"]
    assert list(get_type_hints(command)) == ["path", "first", *names, "last"]
    assert command.__doc__ == "Do it."


def test_an_option_for_a_parameter_that_is_there_already_is_refused():
    def command(*, seed: int = 0, run: Annotated[Layer, RUN]) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'seed'"):
        with_options(command)


def test_paths_are_text_and_false_is_a_value():
    layer = layer_of(SAMPLING, sample_weak=Path("a/b"), sample_compile=False, sample_eta=0.0)
    assert layer["sample"] == {"weak": "a/b", "compile": False, "eta": 0.0, "guidance": "auto"}


def test_what_an_option_implies_gives_way_to_what_was_given():
    assert layer_of(NOISE, noise_matrix=Path("t.npy"))["noise"]["type"] == "matrix"
    both = layer_of(NOISE, noise_matrix=Path("t.npy"), noise_type="pairflip")
    assert both["noise"]["type"] == "pairflip"
    assert layer_of(SAMPLING, sample_weak=Path("r"))["sample"]["guidance"] == "auto"
    both = layer_of(SAMPLING, sample_weak=Path("r"), sample_guidance="classifier")
    assert both["sample"]["guidance"] == "classifier"


def test_evidence_of_one_kind_takes_the_place_of_the_other():
    layer = layer_of(JUDGE, judge_probabilities=Path("p.npy"), judge_flip=False)
    assert layer["judge"] == {"probabilities": "p.npy", "features": None, "flip": False}
    layer = layer_of(JUDGE, judge_features=Path("f.npy"))
    assert layer["judge"] == {"features": "f.npy", "probabilities": None}
    both = layer_of(JUDGE, judge_features=Path("f"), judge_probabilities=Path("p"))
    assert both["judge"] == {"features": "f", "probabilities": "p"}  # refused by the section
    assert layer_of(JUDGE) == {}


def test_the_default_of_a_group_holds_until_an_option_is_given():
    default = {"noise": {"rate": 0.2, "type": "symmetric"}}
    # typer gives the default of an option that was left out.
    left_out = {"noise_rate": 0.2, "noise_type": "symmetric"}
    assert layer_of(CORRUPTION, default, **left_out) == default
    layer = layer_of(CORRUPTION, default, **left_out | {"noise_rate": 0.0})
    assert layer == {"noise": {"rate": 0.0, "type": "symmetric"}}
    layer = layer_of(CORRUPTION, default, **left_out, noise_matrix=Path("t.npy"))
    assert layer == {"noise": {"rate": 0.2, "type": "matrix", "matrix": "t.npy"}}


def call(*words):
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return left.value.code


def test_corrupt_takes_a_matrix_or_another_type(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("y.npy", np.arange(40) % 2)
    np.save("t.npy", np.array([[0.5, 0.5], [0.0, 1.0]]))
    words = ["corrupt", "y.npy", "--noise-matrix=t.npy"]
    assert call(*words, "--noise-type=pairflip", "--out=a") == 2
    assert "goes with noise.type = 'matrix' and only with it" in capsys.readouterr().err
    assert not Path("a").exists()
    assert call(*words, "--out=a") == 0
    assert "10 of 40 labels are wrong" in capsys.readouterr().out


def test_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"robustdiff {__version__}\n"


def test_no_help_and_no_version_imports_torch_or_numpy():
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    words = [["--version"], *([name, "--help"] for name in names)]
    code = (
        "import sys\nfrom robustdiff.cli.app import main\n"
        f"for words in {words!r}:\n"
        "    try:\n        main(words)\n"
        "    except SystemExit as done:\n        assert done.code == 0, words\n"
        "    assert not {'torch', 'numpy', 'sklearn'} & set(sys.modules), words"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
