"""The record of a corruption: clean and given labels, and how one became the other."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from corruptions.types import Doubles, Ints

# Of records by order alone, of those that name their classes or samples, and of those that say
# who decided.
_FORMATS = ("robustdiff-labels-1", "robustdiff-labels-2", "robustdiff-labels-3")
_IDENTITY = ("class_names", "paths", "digests")
_DECISIONS = ("decided_by", "kept")
_OF_SAMPLES = ("paths", "digests", *_DECISIONS)
# Who decided about a label: nobody, a judge, a person; "removed" if the image is to be left out.
DECIDED_BY = ("given", "judge", "person", "removed")
# Type of noise of labels that were corrected, where nobody knows the right ones.
CORRECTED = "corrected"


@dataclass(frozen=True, kw_only=True)
class NoisyLabels:
    """Labels before and after.

    Attributes:
        clean: (N,) int64 true labels.
        given: (N,) int64 labels as given.
        nominal: (K, K) float64 expected matrix, T[clean, given].
        noise_type: Name of the noise.
        rate: Rate that was asked for, under the name's convention.
        seed: Seed of the draw; None if the labels came from elsewhere.
        mode: How many labels flip, see `corruptions.MODES`.
        convention: What the name means, in words.
        class_names: K names; None if the classes have numbers only.
        paths: N files of the samples, relative to the dataset's folder; None if there are none.
        digests: N digests of these files.
        decided_by: N words of `DECIDED_BY`, of labels that somebody has corrected; else None.
        kept: N numbers, which samples of the dataset these are, where images were removed from one
            that does not come as files; else None.
    """

    clean: Ints
    given: Ints
    nominal: Doubles
    noise_type: str
    rate: float
    seed: int | None
    mode: str
    convention: str
    class_names: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    digests: tuple[str, ...] | None = None
    decided_by: tuple[str, ...] | None = None
    kept: tuple[int, ...] | None = None

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """Which labels are wrong, (N,)."""
        return np.asarray(self.clean != self.given)

    @property
    def expected_rate(self) -> float:
        """Share of labels that should be wrong under the nominal matrix."""
        return float(1 - np.diag(self.nominal)[self.clean].mean()) if len(self.clean) else 0.0

    @property
    def realised_rate(self) -> float:
        """Share of labels that are wrong."""
        return float(self.flipped.mean()) if len(self.clean) else 0.0

    @property
    def realised(self) -> Doubles:
        """Shares that came out, (K, K); see `transition_of`."""
        return transition_of(self.clean, self.given, len(self.nominal))

    def at(self, rows: Ints) -> Self:
        """Return the record of some samples, (M,) int64 numbers of them, in that order."""

        def chosen(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
            return None if values is None else tuple(values[i] for i in rows.tolist())

        of_samples: dict[str, Any] = {name: chosen(getattr(self, name)) for name in _OF_SAMPLES}
        return replace(self, clean=self.clean[rows], given=self.given[rows], **of_samples)

    def _described(self) -> dict[str, Any]:
        names = ("noise_type", "rate", "seed", "mode", "convention")
        return {name: getattr(self, name) for name in names}

    def _identity(self) -> bytes:
        """Return whose labels these are as JSON; nothing where only the order says so."""
        lists = {name: getattr(self, name) for name in (*_IDENTITY, *_DECISIONS)}
        known = {name: entries for name, entries in lists.items() if entries is not None}
        return json.dumps(known, sort_keys=True).encode() if known else b""

    @property
    def _format(self) -> str:
        decided = any(getattr(self, name) is not None for name in _DECISIONS)
        return _FORMATS[2 if decided else bool(self._identity())]

    @property
    def sha256(self) -> str:
        """Digest of all attributes, the same on every machine."""
        digest = hashlib.sha256(json.dumps(self._described(), sort_keys=True).encode())
        for array in (self.clean, self.given, self.nominal):
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        digest.update(self._identity())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the record as .npz, atomically; arrays and JSON only, nothing pickled."""
        path = Path(path)
        identity = self._identity()
        described = {"format": self._format, "sha256": self.sha256, **self._described()}
        whose: dict[str, Any] = {"identity": np.frombuffer(identity, np.uint8)} if identity else {}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    clean=self.clean,
                    given=self.given,
                    flipped=self.flipped,
                    matrix=self.nominal,
                    realised_matrix=self.realised,
                    seed=_stored(self.seed),
                    realised_rate=self.realised_rate,
                    description=json.dumps(described),
                    **whose,
                )
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a record and verify its digest.

        Raises:
            ValueError: If the file is missing, damaged, or something else.
        """
        path = Path(path)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                described = json.loads(str(content["description"]))
                clean, given, nominal = (content[name] for name in ("clean", "given", "matrix"))
                identity = content["identity"].tobytes() if "identity" in content else b""
            digest, kind = described.pop("sha256"), described.pop("format")
            num_classes = len(nominal)
            labels = cls(
                clean=check_labels(clean, num_classes),
                given=check_labels(given, num_classes),
                nominal=nominal.astype(np.float64).reshape(num_classes, num_classes),
                **described,
                **_read_identity(identity, num_classes, len(clean)),
            )
            if len(clean) != len(given):
                raise ValueError(f"there are {len(clean)} clean and {len(given)} given labels")
        except FileNotFoundError as error:
            raise ValueError(f"there is no label file {path}") from error
        except Exception as error:  # damaged archives fail in many ways
            raise ValueError(f"{path} is damaged or not a label file of robustdiff") from error
        if kind != labels._format or labels.sha256 != digest:
            raise ValueError(f"{path} is damaged: its SHA-256 is not the recorded one")
        return labels


def given_digest(path: Path) -> str:
    """Return a digest of the given labels of a record, and of whose they are.

    Little else of the file is read, and its own digest is not verified.

    Args:
        path: The .npz.

    Returns:
        The same for the same labels of the same samples, however they came about.

    Raises:
        ValueError: If the file is missing, damaged, or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            given = content["given"].astype("<i8").tobytes()
            lists = json.loads(content["identity"].tobytes()) if "identity" in content else {}
        whose = json.dumps([lists.get(name) for name in ("class_names", "paths", "kept")])
    except Exception as error:  # damaged archives fail in many ways
        raise ValueError(f"{path} is damaged or not a label file of robustdiff") from error
    return hashlib.sha256(given + whose.encode()).hexdigest()


def _stored(seed: int | None) -> NDArray[np.generic]:
    """Return a seed as an array of a number, -1 for none; of digits where no number holds it."""
    number = np.asarray(-1 if seed is None else seed)
    return np.asarray(str(seed)) if number.dtype == object else number


def _read_identity(content: bytes, num_classes: int, count: int) -> dict[str, Any]:
    lists = json.loads(content) if content else {}
    for name, entries in lists.items():
        wanted = num_classes if name == "class_names" else count
        if name not in (*_IDENTITY, *_DECISIONS) or len(entries) != wanted:
            raise ValueError(f"{name} must hold {wanted} entries, got {len(entries)}")
        if not all(isinstance(entry, int if name == "kept" else str) for entry in entries):
            raise ValueError(f"{name} must hold {'numbers' if name == 'kept' else 'words'}")
        if name == "decided_by" and not set(entries) <= set(DECIDED_BY):
            raise ValueError(f"decided_by must hold {', '.join(DECIDED_BY)}")
    return {name: tuple(entries) for name, entries in lists.items()}


def check_decided(words: Iterable[str], where: object) -> None:
    """Refuse words that do not say who decided about labels.

    Args:
        words: Those of a column decided_by.
        where: Its table, for people.

    Raises:
        ValueError: Naming the first one that is not in `DECIDED_BY`.
    """
    odd = next((word for word in words if word not in DECIDED_BY), None)
    if odd is not None:
        raise ValueError(
            f"column decided_by of {where} must hold {', '.join(DECIDED_BY)}, got {odd!r}"
        )


def transition_of(clean: Ints, given: Ints, num_classes: int) -> Doubles:
    """Count how clean labels became given ones.

    Args:
        clean: (N,) int64 in [0, K).
        given: (N,) int64 in [0, K).
        num_classes: K.

    Returns:
        (K, K) float64, rows sum to 1; a class without samples has the row of the identity.
    """
    pairs = np.bincount(clean * num_classes + given, minlength=num_classes**2)
    counts = pairs.reshape(num_classes, num_classes).astype(np.float64)
    empty = counts.sum(axis=1) == 0
    counts[empty] = np.eye(num_classes)[empty]
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def check_labels(labels: NDArray[np.integer], num_classes: int) -> Ints:
    """Return labels as a new int64 array.

    Raises:
        ValueError: If they are not (N,) integers in [0, K), or K < 2.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    array = np.asarray(labels)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"labels must be a one-dimensional array of integers, "
            f"got shape {array.shape} of {array.dtype}"
        )
    if len(array) and (array.min() < 0 or array.max() >= num_classes):
        worst = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"labels must be in [0, {num_classes}), got {worst}")
    return array.astype(np.int64)
