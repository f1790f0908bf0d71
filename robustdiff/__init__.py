"""Train class-conditional diffusion models when some labels are wrong, and find those labels.

The front door; each name is loaded when it is first used, so the import itself loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustdiff.api import (
        Samples,
        audit,
        audit_images,
        evaluate,
        export,
        load_run,
        resume,
        sample,
        train,
    )
    from robustdiff.config.sections import Config
    from robustdiff.data.handed import save_dataset
    from robustdiff.trainers.judged import RobustLabels
    from robustdiff.trainers.scored import ScoredLabels

__version__ = "0.1.0"
__all__ = [
    "Config",
    "RobustLabels",
    "Samples",
    "ScoredLabels",
    "audit",
    "audit_images",
    "evaluate",
    "export",
    "load_run",
    "resume",
    "sample",
    "save_dataset",
    "train",
]
# Names that do not stand in robustdiff.api.
_ELSEWHERE = {
    "Config": "robustdiff.config.sections",
    "RobustLabels": "robustdiff.trainers.judged",
    "ScoredLabels": "robustdiff.trainers.scored",
    "save_dataset": "robustdiff.data.handed",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 whatever stands behind the name
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "robustdiff.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
