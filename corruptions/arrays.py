"""Reading array files of unknown origin: numbers or one line, nothing executed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def load_array(path: Path) -> NDArray[np.generic]:
    """Read the array of an .npy file; one that holds Python objects is refused, not unpickled.

    Raises:
        ValueError: If the file is damaged or holds something else.
        OSError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            array: object = np.load(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # the header is parsed as Python text, which fails in many ways
        raise ValueError(f"{path} is not an array file of numbers, or is damaged") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is not an array file: it holds several arrays")
    return array
