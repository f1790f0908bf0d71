"""`robustdiff presets`: list the shipped presets."""

from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset_description
from robustdiff.config.presets import presets as shipped


def presets() -> None:
    """List the shipped presets."""
    from rich.console import Console
    from rich.table import Table

    table = Table("preset", "dataset", "channels", "length", "what it is")
    for name, layer in shipped().items():
        config = resolve(layer)
        train = config.train
        length = f"{train.epochs} epochs" if train.steps is None else f"{train.steps} steps"
        widths = " ".join(str(width) for width in config.model.channels)
        table.add_row(name, config.data.dataset, widths, length, preset_description(name))
    Console().print(table)
