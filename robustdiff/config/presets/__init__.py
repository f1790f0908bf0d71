"""Shipped configurations, one TOML file each in this folder."""

import tomllib
from importlib import resources

from robustdiff.config.layers import Layer, choose
from robustdiff.config.names import OWN_DATASETS

DEFAULT_PRESETS: dict[str, str] = {
    "digits": "digits",
    "mnist": "mnist-small",
    "fashion-mnist": "mnist-small",
    "cifar10": "cifar10-small",
    "cifar100": "cifar10-small",
    **dict.fromkeys(OWN_DATASETS, "folder-small"),
}


def presets() -> dict[str, Layer]:
    """Return the shipped presets, name -> layer, in order of their names."""
    folder = resources.files(__name__)
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {
        name.removesuffix(".toml"): tomllib.loads((folder / name).read_text(encoding="utf-8"))
        for name in files
    }


def preset_description(name: str) -> str:
    """Return the comment that opens a shipped preset."""
    text = (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
    return text.splitlines()[0].removeprefix("# ")


def preset(name: str) -> Layer:
    """Return one shipped preset.

    Raises:
        ValueError: If there is no such preset.
    """
    shipped = presets()
    return shipped[choose(name, shipped, "preset")]
