"""The section of config.json about evaluations: how a run is judged."""

import dataclasses
from typing import Annotated

from robustdiff.config import names
from robustdiff.config.bounds import Within, check_bounds


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a run is judged.

    Attributes:
        num_samples: Images generated, equally many a class; None for 1000 or as real ones allow.
        features: Feature space of FID, KID, density and coverage.
        cas: Whether the classification accuracy score is taken, by classifiers trained for it.
    """

    num_samples: Annotated[int, Within(2)] | None = None
    features: names.FeaturesName = "classifier"
    cas: bool = False

    def __post_init__(self) -> None:
        check_bounds(self, "eval")
