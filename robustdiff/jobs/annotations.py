"""`robustdiff correct --from-label-studio`: decisions that were made elsewhere come back."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from robustdiff.exports.label_studio import Annotation, read_annotations
from robustdiff.labels.corrected import correct
from robustdiff.progress import Report
from robustdiff.review.decisions import Decision, Decisions, Entry
from robustdiff.runs.folder import Run


class Imported(NamedTuple):
    """What an import has recorded.

    Attributes:
        new: How many decisions.
        replaced: How many of them took the place of another one that stood.
    """

    new: int
    replaced: int


def import_annotations(run: Run, path: Path, report: Report) -> Imported:
    """Record what people decided in Label Studio, where the log does not know better.

    Args:
        run: The run.
        path: The export, see `read_annotations`; it is checked before the first is recorded.
        report: Receives what was not recorded, and why.
    """
    found = read_annotations(path, correct(run.labels(), None, None, decided_only=True))
    new, replaced, left = 0, 0, 0
    with Decisions(run) as decisions:
        log: dict[int, list[Entry]] = defaultdict(list)
        for entry in decisions.history():
            log[entry.decision.sample].append(entry)
        latest = decisions.latest()
        for one in found.annotations:
            standing = latest.get(one.decision.sample)
            if standing == one.decision:
                continue
            if _is_known(one, standing, log[one.decision.sample]):
                left += 1
                continue
            decisions.record(one.decision)
            latest[one.decision.sample] = one.decision
            new, replaced = new + 1, replaced + (standing is not None)
    if torn := sum(one.is_torn for one in found.annotations):
        report.message(f"{torn} images were annotated differently, and count as unsure")
    if found.skipped:
        report.message(f"{found.skipped} tasks have no annotation")
    if left:
        report.message(
            f"{left} annotations are older than what was decided since, or unsure where somebody "
            "is sure, and are left out"
        )
    return Imported(new, replaced)


def _is_known(one: Annotation, standing: Decision | None, entries: Sequence[Entry]) -> bool:
    """Return whether an annotation must not replace what the log of its image says.

    The log is newer where an export is imported again after a person has decided anew; an
    annotation without a time is taken as older where it was recorded before.
    """
    if one.is_torn and standing is not None and standing.action != "unsure":
        return True
    if one.time is None:
        return any(entry.decision == one.decision for entry in entries)
    return bool(entries) and entries[-1].time >= one.time
