"""Arrays by the kind of their entries."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
# 4 or 8 bytes each; see `curricula.draw.indices`.
Indices = NDArray[np.integer]
Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]
