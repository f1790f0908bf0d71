"""The report on a run's labels, for those who mend them: label_issues.csv and audit.html."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corruptions import NoisyLabels
from curricula import Trust
from curricula.sparse import dense, likeliest, second_likeliest
from robustdiff.config.images import dataset_in_words
from robustdiff.data.arrays import Images
from robustdiff.files.atomic import write_text
from robustdiff.files.csv_text import csv_text
from robustdiff.labels.checked import gain
from robustdiff.labels.image_issues import ImageIssues
from robustdiff.reports.image_issues import issue_column, issue_counts, issue_tabs, score_columns
from robustdiff.reports.page import render, write_page
from robustdiff.reports.pictures import picture_uri, png_uri
from robustdiff.runs.folder import Run
from robustdiff.runs.many import is_many, sampled
from robustdiff.runs.scores import detect, label_score

CSV_NAME, PAGE_NAME, SUMMARY_NAME = "label_issues.csv", "audit.html", "label_issues.json"
_SHOWN = 64
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Findings:
    """What scores say about a run's labels.

    Attributes:
        given: (N,) int64 labels as given.
        scores: (N,) floats, high = trusted.
        trust: What follows from them.
        source: Where the scores come from, in words.
        weights: (N,) floats, the weight of each given label in training; None if unknown.
        rows: (N,) int64, the numbers of these samples in the run; None if they are all.
        in_sample: Whether the model that scored an image was trained on it and its label.
        images: What is wrong with the images beside their labels; None if nobody looked.
    """

    given: NDArray[np.int64]
    scores: NDArray[np.floating]
    trust: Trust
    source: str
    weights: NDArray[np.floating] | None = None
    in_sample: bool = False
    rows: NDArray[np.int64] | None = None
    images: ImageIssues | None = None

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The numbers of the samples in the run, (N,)."""
        return np.arange(len(self.given)) if self.rows is None else self.rows

    @cached_property
    def issue(self) -> NDArray[np.bool_]:
        """Which labels are likely wrong, (N,) bool.

        Where the scores know classes: another class is likelier. Else: it is more likely wrong.
        An image that fits no class has no right label, so its label is not called wrong.
        """
        predicted = self.predicted
        wrong = self.trust.right < 0.5 if predicted is None else predicted != self.given
        return wrong if self.images is None else wrong & ~self.images.off_topic

    @cached_property
    def second(self) -> NDArray[np.int64]:
        """Likeliest class of each image but one, (N,) int64; where the scores know classes."""
        assert self.trust.classes is not None
        return second_likeliest(self.trust.classes)

    @cached_property
    def predicted(self) -> NDArray[np.int64] | None:
        """Likeliest class of each image, (N,) int64; None where the scores know no classes."""
        return None if self.trust.classes is None else likeliest(self.trust.classes)


def quality_column(findings: Findings) -> dict[str, NDArray[np.floating]]:
    """Return how good the labels are, (N,) in [0, 1], under the name that it deserves.

    "label_quality" is the probability that the label is right, by a judge that compares the
    classes. Other scores only rank the labels: "label_score" is the rank over N.
    """
    if findings.trust.classes is not None:
        return {"label_quality": findings.trust.right}
    return {"label_score": label_score(findings.scores)}


def _gain_column(findings: Findings) -> dict[str, NDArray[np.floating]]:
    """Return how likely a person's decision changes what the judge makes of each label, (N,)."""
    known = findings.trust.classes is not None
    return {"gain": gain(findings.trust, findings.given)} if known else {}


def doubts_in_words(trust: Trust, class_names: Sequence[str]) -> list[str]:
    """Return what the labels cannot tell, in sentences with the names of the classes."""
    return [doubt.format(*class_names) for doubt in trust.doubts]


def estimate_in_words(noise: float) -> str:
    """Say the estimated share of wrong labels; NaN is what scores without evidence give."""
    if math.isnan(noise):
        return "no evidence about the share of wrong labels"
    return f"estimated noise {noise:.1%}"


def check_cleanlab() -> None:
    """Refuse cleanlab where it is not installed.

    Raises:
        ValueError: If it is not.
    """
    try:
        import cleanlab.filter  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "cleanlab is not installed; get it with: pip install 'robustdiff[cleanlab]'"
        ) from error


def cleanlab_issues(findings: Findings) -> NDArray[np.bool_]:
    """Return cleanlab's verdict on the same class probabilities, (N,) bool.

    cleanlab expects the probabilities of the noisy label, so those of the class are multiplied by
    the transition matrix.

    Raises:
        ValueError: If cleanlab is not installed, or there are no class probabilities.
    """
    check_cleanlab()
    from cleanlab.filter import find_label_issues

    if findings.trust.image_classes is None:
        raise ValueError(
            f"cleanlab needs class probabilities, and {findings.source} has none; "
            f"--by crossfit makes some"
        )
    probabilities = dense(findings.trust.image_classes).astype(np.float64)
    if findings.trust.transition is not None:
        probabilities = probabilities @ findings.trust.transition
    found: NDArray[np.bool_] = find_label_issues(findings.given, probabilities, n_jobs=1)
    return found


def write_audit(
    run: Run,
    images: Images,
    labels: NoisyLabels,
    findings: Findings,
    *,
    use_cleanlab: bool = False,
) -> dict[str, Any]:
    """Write label_issues.csv, label_issues.json and audit.html into the run's folder.

    Args:
        run: The run.
        images: Its dataset.
        labels: Its labels; if some are known to be wrong, both files show the clean ones, too.
        findings: What scores say about them.
        use_cleanlab: Add a column with cleanlab's verdict.

    Returns:
        What label_issues.json holds: the number of "images", the "source" of the verdict, its
        "estimated_noise", the number of "issues" of labels, those of each "pair" of classes, the
        number of "image_issues" of each kind, the "doubts" in sentences, and the number of
        "cleanlab_issues" if asked for. Of many labels label_issues.csv lists the suspects alone;
        their number is "listed", the "rest" is described by a sample, "listing" says so in words.

    Raises:
        ValueError: If cleanlab is asked for and cannot be used.
    """
    columns = issue_columns(images, labels, findings)
    if use_cleanlab:
        columns["is_cleanlab_issue"] = cleanlab_issues(findings)
        found = int(columns["is_cleanlab_issue"].sum())
    summary_of_rest: dict[str, Any] = {}
    if is_many(len(findings.given)):
        listed = _suspicious(findings, columns.get("is_cleanlab_issue"))
        columns = {name: [column[i] for i in listed] for name, column in columns.items()}
        summary_of_rest = _rest(findings, listed)
    rows = zip(*(map(_plain, column) for column in columns.values()), strict=True)
    write_text(run.path / CSV_NAME, csv_text([columns, *rows]))
    write_page(run.path / PAGE_NAME, audit_page(run, images, labels, findings))
    issues = int(findings.issue.sum())
    noise = findings.trust.noise
    summary: dict[str, Any] = {
        "images": len(findings.given),
        "source": findings.source,
        "estimated_noise": None if math.isnan(noise) else noise,
        "issues": issues,
        "pairs": _pairs(images, findings),
        "doubts": _doubts(images, findings),
    }
    if findings.images is not None:
        summary["image_issues"] = issue_counts(findings.images)
    if use_cleanlab:
        summary["cleanlab_issues"] = found
    summary |= summary_of_rest
    write_text(run.path / SUMMARY_NAME, json.dumps(summary, indent=2) + "\n")
    return summary


def _suspicious(findings: Findings, cleanlab: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Return the places of labels and images that look wrong, to cleanlab, too, if it was asked."""
    wrong = findings.issue | (False if cleanlab is None else cleanlab)
    for found in () if findings.images is None else findings.images.kinds.values():
        wrong |= found
    return np.flatnonzero(wrong)


def _rest(findings: Findings, listed: NDArray[np.int64]) -> dict[str, Any]:
    """Describe the labels that are not listed by some of them, for label_issues.json."""
    rows = np.setdiff1d(sampled(len(findings.given)), listed)
    about = None
    if len(rows):
        (name, quality), *_ = quality_column(findings).items()
        values = quality[rows].astype(np.float64)
        quantiles = {f"{share:.0%}": float(np.quantile(values, share)) for share in _QUANTILES}
        about = {"sampled": len(rows), name: {"mean": float(values.mean()), **quantiles}}
    words = (
        f"{CSV_NAME} lists the {len(listed):,} labels and images that look wrong, not all of "
        f"{len(findings.given):,}; {SUMMARY_NAME} has statistics of a sample of the others, and "
        "scores.npz (judged.npz of an audit that judged anew) holds the score of each"
    )
    return {"listed": len(listed), "rest": about, "listing": words}


def _doubts(images: Images, findings: Findings) -> list[str]:
    notes = () if findings.images is None else findings.images.notes
    return [*doubts_in_words(findings.trust, images.class_names), *notes]


def _pairs(images: Images, findings: Findings) -> list[dict[str, Any]]:
    """Count the labels that look wrong by given and likeliest class, the commonest first."""
    if findings.predicted is None:
        return []
    names, wrong = images.class_names, findings.issue
    pairs = zip(findings.given[wrong].tolist(), findings.predicted[wrong].tolist(), strict=True)
    return [
        {"given": names[given], "predicted": names[predicted], "issues": count}
        for (given, predicted), count in Counter(pairs).most_common()
    ]


def issue_columns(images: Images, labels: NoisyLabels, findings: Findings) -> dict[str, Any]:
    """Return the columns of label_issues.csv, in cleanlab's terms, name -> N values."""
    given, issue = labels.given, findings.issue
    predicted = findings.predicted
    columns: dict[str, Any] = {"index": findings.numbers}
    if images.paths is not None:
        columns["file"] = images.paths
    columns |= {
        "is_label_issue": issue,
        **quality_column(findings),
        **_gain_column(findings),
        "given_label": given,
        # Where the scores know no classes: the label if it is trusted, else nothing.
        "predicted_label": np.where(issue, None, given) if predicted is None else predicted,  # type: ignore[call-overload]
        **_name_columns(images, findings),
        "sample_weight": (~issue).astype(np.float64)
        if findings.weights is None
        else findings.weights,
    }
    if findings.images is not None:
        columns |= score_columns(images, findings.images)
    if labels.flipped.any():
        columns |= {"true_label": labels.clean, "is_flipped": labels.flipped}
    return columns


def _name_columns(images: Images, findings: Findings) -> dict[str, Any]:
    """Return the names of given and likeliest classes, and what is wrong, N words each."""
    names = np.array(images.class_names, dtype=object)
    columns: dict[str, Any] = {"given_name": names[findings.given]}
    if findings.predicted is not None:
        columns["predicted_name"] = names[findings.predicted]
        columns["second_predicted"] = names[findings.second]
    return columns | {"issue": issue_column(findings.issue, findings.images)}


def _plain(value: Any) -> Any:  # noqa: ANN401 whatever a column holds
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else value


def audit_page(run: Run, images: Images, labels: NoisyLabels, findings: Findings) -> str:
    """Return one self-contained HTML page; names are escaped, and it loads nothing."""
    # Imported here because every training imports this module, and this takes a while.
    from robustdiff.reports.figures import figure_png, matrix_figure, score_figure

    known = bool(labels.flipped.any())
    transition, suspects = findings.trust.transition, _suspects(images, labels, findings)
    figures = [score_figure(findings.scores, findings.issue, labels.flipped if known else None)]
    if transition is not None:
        title = "estimated: how labels are given"
        figures.append(matrix_figure(transition, images.class_names, title))
    if known:
        figures.append(matrix_figure(labels.realised, images.class_names, "true, for comparison"))
    return render(
        "audit.html.j2",
        run=run.path.name,
        dataset=dataset_in_words(images.name),
        count=len(labels.given),
        source=findings.source,
        in_sample=findings.in_sample,
        temperature=findings.trust.temperature,
        noise=None if math.isnan(findings.trust.noise) else findings.trust.noise,
        true_noise=labels.realised_rate if known else None,
        detected=detect(findings.scores, labels),
        issues=int(findings.issue.sum()),
        doubts=_doubts(images, findings),
        suspects=suspects,
        classes=_class_table(images, labels, findings),
        tabs=[]
        if findings.images is None
        else issue_tabs(images, labels.given, findings.numbers, findings.images),
        across_parts=0 if findings.images is None else findings.images.across_parts,
        figures=[png_uri(figure_png(figure)) for figure in figures],
        csv_name=CSV_NAME,
    )


def _suspects(images: Images, labels: NoisyLabels, findings: Findings) -> list[dict[str, Any]]:
    """Describe the least trusted images, worst first."""
    predicted, names, known = findings.predicted, images.class_names, bool(labels.flipped.any())
    worst = np.argsort(findings.scores, kind="stable")[: min(_SHOWN, int(findings.issue.sum()))]
    return [
        {
            "image": picture_uri(images.train[i]),
            "index": int(findings.numbers[i]),
            "file": None if images.paths is None else images.paths[i],
            "given": names[labels.given[i]],
            "predicted": None if predicted is None else names[predicted[i]],
            "true": names[labels.clean[i]] if known else None,
            "wrong": bool(labels.flipped[i]),
        }
        for i in worst
    ]


def _class_table(images: Images, labels: NoisyLabels, findings: Findings) -> list[dict[str, Any]]:
    """Describe every class as given: how many labels look wrong, and what they look like."""
    issue, predicted, flipped = findings.issue, findings.predicted, labels.flipped
    known, k, given = bool(flipped.any()), images.num_classes, labels.given
    counts, issues, wrong = (
        np.bincount(part, minlength=k) for part in (given, given[issue], given[flipped])
    )
    if predicted is not None:
        pairs = np.bincount(given[issue] * k + predicted[issue], minlength=k * k).reshape(k, k)
    rows = []
    for label, name in enumerate(images.class_names):
        row: dict[str, Any] = {
            "name": name,
            "count": int(counts[label]),
            "issues": int(issues[label]),
            "wrong": int(wrong[label]) if known else None,
            "instead": [],
        }
        if predicted is not None:
            looks = pairs[label]
            top = [k for k in np.argsort(-looks, kind="stable")[:3] if looks[k]]
            row["instead"] = [(images.class_names[k], int(looks[k])) for k in top]
        rows.append(row)
    return rows
