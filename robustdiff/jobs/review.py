"""A review of a run: its data, what its audit found, and what was decided so far."""

from robustdiff.config.sections import Config
from robustdiff.jobs.dataset import load_run_data
from robustdiff.progress import Report
from robustdiff.review.decisions import Decisions
from robustdiff.review.pictures import Pictures
from robustdiff.review.queue import Queue
from robustdiff.review.server import Review
from robustdiff.review.suspects import Order, read_suspects
from robustdiff.runs.folder import Run


def open_review(run: Run, config: Config, report: Report, order: Order = "gain") -> Review:
    """Load what a person needs who decides about the labels of a run.

    Args:
        run: The run, audited.
        config: Its configuration; the data section may differ from the stored one.
        report: Receives progress, and images that are gone.
        order: In which labels are shown, see `read_suspects`.

    Raises:
        ValueError: If the run was not audited, or its dataset cannot be loaded.
        DamagedError: If its labels, the audit or the decisions are damaged, or about others.
    """
    labels = run.labels()
    images, _, rows = load_run_data(run, config, report)
    suspects = read_suspects(run, labels, images.class_names, order)
    files = images.paths if labels.paths is None else labels.paths
    pictures = Pictures(images, rows, files)
    name = run.path.resolve().name.encode(errors="backslashreplace").decode()
    return Review(name, Queue(suspects, Decisions(run)), pictures)
