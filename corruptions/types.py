"""Arrays by the kind of their entries."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]
