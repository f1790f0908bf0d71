"""Which labels of a run look wrong: by its own scores, or by classifiers trained for it."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from corruptions import NoisyLabels
from curricula import CURRICULA, TREATMENTS, Trust
from curricula.scores import treatment_of
from curricula.sparse import ClassValues, compact, of_class, some_rows
from robustdiff.config.images import DataConfig
from robustdiff.config.layers import Layer, to_plain
from robustdiff.config.roles import check_same_audit
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images
from robustdiff.data.registry import load_images
from robustdiff.data.sources import SOURCES
from robustdiff.data.stored import near
from robustdiff.device import pick_device, set_precision
from robustdiff.files.atomic import check_folder
from robustdiff.jobs.dataset import check_same_labels, load_run_data
from robustdiff.labels.checked import Checked, taught
from robustdiff.labels.crossfit import crossfit, crossfit_again, likeliest_decision, make_plan
from robustdiff.labels.evidence import (
    Dataset,
    dataset_of,
    in_words,
    is_given,
    probabilities_from,
    read_evidence,
)
from robustdiff.labels.given import check_given, prepare_labels, without_removed
from robustdiff.labels.image_issues import find_image_issues
from robustdiff.labels.probabilities import by_decision, by_probabilities, label_scores
from robustdiff.progress import Report
from robustdiff.reports.audit import Findings, check_cleanlab, write_audit
from robustdiff.review.checked import read_checked
from robustdiff.runs.folder import Run
from robustdiff.runs.making import check_place, create_run
from robustdiff.runs.scores import load_judged, load_scores, save_scores

# What an audit of images without a run sets, before anything else does.
AUDIT_LAYER: Layer = {"data": {"whole": True}, "curriculum": {"name": "crossfit"}}


def audit_run(
    run: Run,
    config: Config,
    report: Report,
    *,
    by: Literal["run", "crossfit"] = "run",
    use_cleanlab: bool = False,
) -> tuple[Findings, dict[str, Any]]:
    """Find the labels of a run that look wrong; write label_issues.csv and audit.html.

    Args:
        run: The run.
        config: Its configuration; the data section may differ from the stored one.
        report: Receives progress and messages.
        by: "run" takes what training found, or "crossfit" if its curriculum judges no labels;
            "crossfit" judges anew, by the evidence that section judge names, or by classifiers.
            What an earlier audit found anew is given up by either: `robustdiff correct` follows
            the newest report.
        use_cleanlab: Add a column with cleanlab's verdict.

    Returns:
        The findings, and the summary of `write_audit`.

    Raises:
        ValueError: If the dataset cannot be loaded, a class is never given, evidence is of other
            images, or cleanlab is asked for and cannot be used.
        DamagedError: If the run's labels or scores are damaged.
        LockedError: If another process trains, audits or corrects the run.
    """
    run.labels()  # a published model has none, and nothing may be left in its folder
    if use_cleanlab:
        check_cleanlab()
    with run.locked():
        images, labels, rows = load_run_data(run, config, report)
        stored = stored_findings(run, config, labels, rows) if by == "run" else None
        findings = stored or _judged(run, config, images, labels, rows, report)
        if stored is None:
            # An audit of images that was interrupted has found nothing yet.
            first = config.data.whole and load_judged(run) is None
            _keep(run, findings, report, anew=not first)
        findings = completed(run, replace(findings, rows=rows), images, report)
        summary = write_audit(run, images, labels, findings, use_cleanlab=use_cleanlab)
        if stored is not None and not config.data.whole:
            forget_judged(run, report)
        return findings, summary


def _keep(run: Run, findings: Findings, report: Report, *, anew: bool) -> None:
    """Write what was found where other commands look for it."""
    gone = len(run.labels().given) - len(findings.given)
    if gone > 0:
        follows = "nothing until they are back" if load_judged(run) is None else "earlier ones"
        report.message(
            f"{gone} images of {run.path} are gone, so "
            f"these findings are in the report alone; robustdiff correct follows {follows}"
        )
        return
    save_scores(run, findings.scores, findings.trust, ~findings.issue, anew=anew)


def forget_judged(run: Run, report: Report) -> None:
    """Give up what an audit found anew, since a newer report is about what training found."""
    if run.judged_file.exists():
        run.judged_file.unlink()
        report.message(
            f"what an earlier audit found anew ({run.judged_file.name}) is given up; "
            "robustdiff correct follows the newest report"
        )


def completed(run: Run, findings: Findings, images: Images, report: Report) -> Findings:
    """Return findings with a person's decisions, and with what is wrong beside the labels."""
    return with_image_issues(_decided(run, findings), images, report)


def _decided(run: Run, findings: Findings) -> Findings:
    """Return findings with what a person decided, and with what that teaches."""
    checked = _checked(run, findings.numbers)
    if checked is None or findings.trust.classes is None:
        return findings
    trust = taught(findings.trust, findings.given, checked)
    source = f"{findings.source}; {int(checked.known.sum())} labels were checked by a person"
    return replace(findings, trust=trust, scores=label_scores(trust, findings.given), source=source)


def _checked(run: Run, rows: NDArray[np.int64]) -> Checked | None:
    checked = read_checked(run, run.labels().given)
    return None if checked is None else checked.at(rows)


def audit_images(
    config: Config,
    path: Path,
    report: Report,
    *,
    by: Literal["run", "crossfit"] = "run",
    use_cleanlab: bool = False,
) -> tuple[Run, Findings, dict[str, Any]]:
    """Find wrong labels of images that no model is trained on.

    What it finds is a run without a model: other commands can read its labels and findings.

    Args:
        config: Names the images, their labels, and how they are judged.
        path: Folder to make. An audit that was interrupted there goes on, and a finished one is
            reported again.
        report: Receives progress and messages.
        by: "run" takes what an earlier audit found there; "crossfit" judges anew, and learns what
            a person has decided.
        use_cleanlab: Add a column with cleanlab's verdict.

    Returns:
        The run, the findings, and the summary of `write_audit`.

    Raises:
        ValueError: If the images, their labels or evidence about them cannot be used, or another
            audit was made in the folder.
        TakenError: If the folder holds something else.
        DamagedError: If what an earlier audit left is damaged.
    """
    check_folder(path)
    if use_cleanlab:
        check_cleanlab()
    if Run(path).config_file.exists():
        run = Run(path)
        stored = run.config()
        check_same_audit(to_plain(stored), to_plain(config), path)
        _check_same_images(run, stored.data, config.data)
        images, labels, rows = load_run_data(run, config, report)
        check_same_labels(run, config)
    else:
        check_place(path, trained=False)
        images = load_images(config.data, report)
        images, labels = without_removed(images, prepare_labels(config, images, report), report)
        check_given(config, images, labels)
        rows = np.arange(len(labels.given))
        if is_given(config.judge):
            read_evidence(config.judge, dataset_of(config, images, labels), report)
        run = create_run(path, config, labels, trained=False)
    with run.locked():
        findings = stored_findings(run, config, labels, rows)
        again = findings is not None and by == "crossfit"
        if findings is None or again:
            findings = _judged(run, config, images, labels, rows, report)
            _keep(run, findings, report, anew=again)
        findings = completed(run, replace(findings, weights=None), images, report)
        return run, findings, write_audit(run, images, labels, findings, use_cleanlab=use_cleanlab)


def _check_same_images(run: Run, before: DataConfig, now: DataConfig) -> None:
    """Refuse other images of one's own than those that an audit is of; they may have moved."""
    was, place = (Path(data.data_dir).expanduser() for data in (before, now))
    is_own = before.dataset in (*SOURCES, "arrays")
    if is_own and was.exists() and was.resolve() != place.resolve():
        raise ValueError(f"{run.path} is the audit of {was}, not of {place}; choose another --out")


def with_image_issues(findings: Findings, images: Images, report: Report) -> Findings:
    """Add what is wrong with the training images beside their labels."""
    trust = findings.trust
    # Probabilities without evidence about the labels speak neither for an image nor against it.
    classes = None if math.isnan(trust.noise) else trust.image_classes
    found = find_image_issues(images, findings.given, classes, report)
    return replace(findings, images=found)


def _judged(
    run: Run,
    config: Config,
    images: Images,
    labels: NoisyLabels,
    rows: NDArray[np.int64],
    report: Report,
) -> Findings:
    """Judge anew, by evidence from elsewhere or by classifiers.

    What a person has decided about labels is learnt; it is not in the findings yet.
    """
    stored, checked = load_judged(run), _checked(run, rows)
    known = None if stored is None or checked is None else _some(stored.trust, rows)
    if is_given(config.judge):
        data = dataset_of(config, images, run.labels(), rows)
        found = evidence_findings(data, labels, config, report, checked)
    elif known is not None and checked is not None and known.image_classes is not None:
        found = crossfit_findings(
            images, labels, config, report, run.unfinished, known=(known, checked)
        )
    else:
        found = crossfit_findings(images, labels, config, report, run.unfinished)
    return replace(found, rows=rows)


def stored_findings(
    run: Run, config: Config, labels: NoisyLabels, rows: NDArray[np.int64] | None = None
) -> Findings | None:
    """Return what training found; None if its curriculum judges no labels.

    Args:
        run: The run.
        config: Its configuration.
        labels: Its labels, or some of them.
        rows: (M,) which samples of the run those are; None for all.
    """
    curriculum = CURRICULA[config.curriculum.name]
    stored = load_judged(run) if config.data.whole else load_scores(run)
    if stored is None or curriculum.source in ("none", "random"):
        return None
    source = f"curriculum {config.curriculum.name}, last scoring round"
    if config.data.whole:
        source = "an earlier audit"
    scores, trust = stored.scores, stored.trust
    if rows is not None and len(rows) < len(scores):
        scores, trust = scores[rows], _some(trust, rows)
    return Findings(
        labels.given,
        scores,
        trust,
        source,
        _weights(config, trust, labels.given),
        in_sample=curriculum.source in ("predictions", "classes"),
    )


def _some(trust: Trust, rows: NDArray[np.int64]) -> Trust:
    def chosen(values: ClassValues | None) -> ClassValues | None:
        return None if values is None else some_rows(values, rows)

    return trust._replace(
        right=trust.right[rows],
        classes=chosen(trust.classes),
        image_classes=chosen(trust.image_classes),
    )


def _weights(config: Config, trust: Trust, given: NDArray[np.int64]) -> NDArray[np.floating]:
    """Return the weight of each given label in training under such trust, (N,)."""
    treatment = treatment_of(config.curriculum.name, config.curriculum.treatment)
    treated = TREATMENTS[treatment](trust, given, -1)
    if treated.weights is not None:
        return treated.weights
    if treated.soft is not None:
        return of_class(treated.soft, given)
    return np.asarray(treated.labels == given, dtype=np.float64)


def evidence_findings(
    data: Dataset,
    labels: NoisyLabels,
    config: Config,
    report: Report,
    checked: Checked | None = None,
) -> Findings:
    """Return what evidence from elsewhere says about the labels.

    Args:
        data: The images.
        labels: Their labels.
        config: Its section judge names the evidence.
        report: Receives progress.
        checked: What a person said, from which features are learnt; None where nobody did.

    Raises:
        ValueError: If it is of other images or classes.
    """
    learnt = labels.given if checked is None else checked.fixed(labels.given)
    probabilities = compact(probabilities_from(config, data, learnt, report), labels.given)
    if checked is None:
        trust, verdict = by_probabilities(probabilities, labels.given)
    else:
        found = likeliest_decision(probabilities, labels.given, checked)
        trust, verdict = by_decision(found, labels.given)
    scores = label_scores(trust, labels.given)
    return Findings(labels.given, scores, trust, f"{in_words(config.judge)}: {verdict}")


def crossfit_findings(
    images: Images,
    labels: NoisyLabels,
    config: Config,
    report: Report,
    folder: Path,
    *,
    known: tuple[Trust, Checked] | None = None,
) -> Findings:
    """Return what classifiers find in images whose labels they were not trained on.

    Args:
        images: The training part is judged.
        labels: Their labels.
        config: Its section judge says how.
        report: Receives progress.
        folder: Where interrupted work is kept, and goes on from; it is gone afterwards.
        known: What an earlier judge found, and what a person has said since: one more round learns
            both. None where there is no such.
    """
    judged = near(images.train, pick_device(config.train.device))
    shape, count = tuple(judged.shape[1:]), len(judged)
    dtype = set_precision(config.train.precision, judged.device)
    plan = make_plan(config.judge, shape, count, seed=config.seed, dtype=dtype)
    given, stage = torch.from_numpy(labels.given), report.stage("judging the labels")
    if known is None:
        found = crossfit(judged, given, images.num_classes, plan, progress=stage, folder=folder)
    else:
        plan = replace(plan, rounds=1)
        found = crossfit_again(judged, given, *known, plan, progress=stage, folder=folder)
    trust, verdict = by_decision(found.decision, labels.given)
    scores = label_scores(trust, labels.given)
    shutil.rmtree(folder, ignore_errors=True)
    return Findings(labels.given, scores, trust, f"{plan.in_words()}: {verdict}")
