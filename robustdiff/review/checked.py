"""A person's decisions as facts about labels."""

import numpy as np
from numpy.typing import NDArray

from robustdiff.labels.checked import Checked
from robustdiff.review.decisions import read_decisions
from robustdiff.runs.folder import Run


def read_checked(run: Run, given: NDArray[np.int64]) -> Checked | None:
    """Return what a person said about a run's labels; None where nobody decided anything.

    A label about which a person is unsure counts as one that nobody looked at.

    Args:
        run: The run.
        given: (N,) int64, its labels as given.

    Raises:
        DamagedError: If the decisions are damaged, or about other labels.
    """
    if not run.decisions_file.exists():
        return None
    latest = read_decisions(run).values()
    classes, removed = np.full(len(given), -1), np.zeros(len(given), dtype=np.bool_)
    for sample, action, label in latest:
        if action == "keep":
            classes[sample] = given[sample]
        elif action == "relabel":
            classes[sample] = label
        removed[sample] = action == "remove"
    checked = Checked(classes, removed)
    return checked if (checked.known | removed).any() else None
