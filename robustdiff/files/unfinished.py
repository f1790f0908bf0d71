"""State of long work that may be interrupted: the same work takes it up, no other does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustdiff.files.atomic import write_atomic


@dataclass(frozen=True)
class Unfinished:
    """Where a piece of work keeps its state.

    Attributes:
        path: File; its folder is made when missing.
        work: What the work is; a file of other work is not taken up.
    """

    path: Path
    work: str

    def save(self, state: dict[str, Any]) -> None:
        """Write the state, tensors and plain values, atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"work": self.work, "state": state}
        write_atomic(self.path, lambda file: torch.save(content, file))

    def load(self) -> dict[str, Any] | None:
        """Return the state; None where there is none of this work, or it is damaged."""
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            same = content["work"] == self.work
            state: dict[str, Any] = content["state"]
        except Exception:  # noqa: BLE001 a file cut off anywhere; the work then starts anew
            return None
        return state if same else None
