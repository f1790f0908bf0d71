"""What each setting means for a result; what may change on resuming, and what sets runs apart."""

import json
import shlex
from pathlib import Path
from typing import Literal

from robustdiff.config.layers import Layer, flat, to_plain
from robustdiff.config.sections import Config

Role = Literal["training", "seed", "length", "evaluation", "place", "logging", "speed"]
"""What a setting decides:

- training: the weights and scores of every step;
- seed: which repetition of the same experiment this is;
- length: how many steps there are, and nothing about those before;
- evaluation: the images that are generated, and how they are measured;
- place: where data lies and where the work is done;
- logging: what is shown and saved on the way, and measured besides;
- speed: how fast the same images come, to rounding.
"""

# Entries, and whole sections, whose role is not "training".
_ROLES: dict[str, Role] = {
    "seed": "seed",
    "data.data_dir": "place",
    "data.download": "place",
    "data.copy": "place",
    "data.image_root": "place",
    "train.steps": "length",
    "train.epochs": "length",
    "train.device": "place",
    "train.compile": "speed",
    "train.log": "logging",
    "train.log_every": "logging",
    "train.sample_every": "logging",
    "train.checkpoint_every": "logging",
    "train.checkpoint_minutes": "logging",
    "sample": "evaluation",
    "sample.batch_size": "speed",
    "sample.compile": "speed",
    "eval": "evaluation",
    "eval.cas": "logging",
}
# What a resumed run may change: none of it alters a step that was made.
_RESUMABLE: tuple[Role, ...] = ("length", "evaluation", "place", "logging", "speed")
# What repetitions of one experiment may differ in.
_REPEATABLE: tuple[Role, ...] = ("seed", "place", "logging", "speed")


def role_of(key: str) -> Role:
    """Return the role of a dotted key, such as "train.steps"."""
    return _ROLES.get(key) or _ROLES.get(key.partition(".")[0], "training")


def keys_of(*roles: Role) -> list[str]:
    """Return the dotted keys of some roles, in the order of the configuration."""
    return [key for key in flat(to_plain(Config())) if role_of(key) in roles]


def distinguishing(settings: Layer) -> Layer:
    """Return the flat settings in which repetitions of one experiment agree."""
    return {key: value for key, value in settings.items() if role_of(key) not in _REPEATABLE}


def fixed_changes(before: Layer, now: Layer) -> list[str]:
    """Name what differs between two whole configurations and may not change on resuming."""
    was, would = flat(before), flat(now)
    return [
        f"{key} {json.dumps(would.get(key))} (was {json.dumps(was.get(key))})"
        for key in sorted(was.keys() | would.keys())
        if was.get(key) != would.get(key) and role_of(key) not in _RESUMABLE
    ]


def check_same_audit(before: Layer, now: Layer, path: Path) -> None:
    """Refuse a configuration under which an audit that was begun would find something else.

    Args:
        before: The audit's whole configuration, see `to_plain`.
        now: The one that was asked for.
        path: The audit's folder, which says by its name alone what it is an audit of.

    Raises:
        ValueError: Naming every changed entry.
    """
    sections = ("seed", "data", "noise", "judge", "train.precision")
    changed = [key for key in fixed_changes(before, now) if key.startswith(sections)]
    if changed:
        raise ValueError(
            f"another audit was made there, which differs in {', '.join(changed)}; "
            f"choose another --out, or name the audit: robustdiff audit {shlex.quote(str(path))}"
        )


def check_resumable(before: Layer, now: Layer) -> None:
    """Refuse a changed configuration for a run that is resumed.

    Args:
        before: The run's whole configuration, see `to_plain`.
        now: The same as it would go on.

    Raises:
        ValueError: Naming every changed entry that may not change.
    """
    if changed := fixed_changes(before, now):
        may = [key for key, role in _ROLES.items() if role in _RESUMABLE]
        names = [key for key in may if key.partition(".")[0] not in may or "." not in key]
        raise ValueError(
            f"--resume continues a run as it was; only {', '.join(names)} may change, "
            f"got {', '.join(changed)}"
        )
