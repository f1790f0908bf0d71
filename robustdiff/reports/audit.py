"""The practitioner's report on a run's labels: label_issues.csv and audit.html."""

import base64
import csv
import io
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from corruptions import NoisyLabels
from curricula import CURRICULA, TREATMENTS, Trust
from curricula.scores import treatment_of
from curricula.types import Ints
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images
from robustdiff.files.atomic import write_text
from robustdiff.labels.crossfit import crossfit
from robustdiff.labels.judge import by_classes
from robustdiff.progress import Report
from robustdiff.runs.folder import Run, detect

CSV_NAME, PAGE_NAME = "label_issues.csv", "audit.html"
_SHOWN = 64


@dataclass(frozen=True)
class Findings:
    """What is said about a run's labels.

    Attributes:
        given: (N,) int64 labels as given.
        scores: (N,) floats, high = trusted.
        trust: What follows from them.
        source: Where they come from, in words.
        weights: (N,) floats, how much training heeds each given label; None if unknown.
        in_sample: Whether what judges an image was trained on it and its label.
    """

    given: Ints
    scores: NDArray[np.floating]
    trust: Trust
    source: str
    weights: NDArray[np.floating] | None = None
    in_sample: bool = False

    @cached_property
    def issue(self) -> NDArray[np.bool_]:
        """Which labels are likely wrong, (N,) bool: another class is likelier, where one knows."""
        predicted = self.predicted
        return self.trust.right < 0.5 if predicted is None else predicted != self.given

    @cached_property
    def predicted(self) -> Ints | None:
        """Likeliest class of each image, (N,) int64; None where no class is known."""
        return None if self.trust.classes is None else self.trust.classes.argmax(axis=1)


def stored_findings(run: Run, config: Config, labels: NoisyLabels) -> Findings | None:
    """Return what training found; None if its curriculum judges no labels."""
    curriculum = CURRICULA[config.curriculum.name]
    scores, trust = run.scores(), run.trust()
    if scores is None or trust is None or curriculum.source in ("none", "random"):
        return None
    logged = [entry["temperature"] for entry in run.history() if "temperature" in entry]
    return Findings(
        labels.given,
        scores,
        trust._replace(temperature=logged[-1] if logged else None),
        f"curriculum {config.curriculum.name}, last scoring round",
        _weights(config, trust, labels.given),
        in_sample=curriculum.source in ("predictions", "classes"),
    )


def _weights(config: Config, trust: Trust, given: Ints) -> NDArray[np.floating]:
    """Return how much training under such trust heeds each given label, (N,)."""
    treatment = treatment_of(config.curriculum.name, config.curriculum.treatment)
    told = TREATMENTS[treatment](trust, given, -1)
    if told.weights is not None:
        return told.weights
    if told.soft is not None:
        return np.asarray(told.soft[np.arange(len(given)), given])
    return np.asarray(told.labels == given, dtype=np.float64)


def judge_now(images: Images, labels: NoisyLabels, config: Config, report: Report) -> Findings:
    """Judge the labels by classifiers of images that they were not trained on.

    Raises:
        ValueError: If a class is never given.
    """
    found = crossfit(
        images.train,
        torch.from_numpy(labels.given),
        images.num_classes,
        seed=config.seed,
        progress=report.stage("judging the labels"),
    )
    scores, trust = by_classes(found.image_classes, found.transition, labels.given)
    source = "two classifiers, each judging the half it was not trained on"
    return Findings(labels.given, scores, trust, source)


def cleanlab_issues(findings: Findings) -> NDArray[np.bool_]:
    """Return cleanlab's verdict on the same class probabilities, (N,) bool.

    It expects those of the given label, noise and all, so the transition matrix is put back in.

    Raises:
        ValueError: If cleanlab is not installed, or the findings know no classes.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise ValueError(
            "cleanlab is not installed; get it with: pip install 'robustdiff[cleanlab]'"
        ) from error
    if findings.trust.image_classes is None:
        raise ValueError(
            f"cleanlab needs class probabilities, and {findings.source} has none; "
            f"--by crossfit makes some"
        )
    probabilities = findings.trust.image_classes.astype(np.float64)
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
    """Write label_issues.csv and audit.html into the run's folder.

    Args:
        run: The run.
        images: Its dataset.
        labels: Its labels; where some are known to be wrong, both files tell the truth, too.
        findings: What is said about them.
        use_cleanlab: Add a column with cleanlab's verdict.

    Returns:
        Estimated noise and number of issues, and cleanlab's number if asked for.

    Raises:
        ValueError: If cleanlab is asked for and cannot be used.
    """
    columns = issue_columns(images, labels, findings)
    if use_cleanlab:
        columns["is_cleanlab_issue"] = cleanlab_issues(findings)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(map(_plain, column) for column in columns.values()), strict=True))
    write_text(run.path / CSV_NAME, text.getvalue())
    write_text(run.path / PAGE_NAME, audit_page(run, images, labels, findings))
    issues = int(findings.issue.sum())
    summary: dict[str, Any] = {"estimated_noise": findings.trust.noise, "issues": issues}
    if use_cleanlab:
        summary["cleanlab_issues"] = int(columns["is_cleanlab_issue"].sum())
    return summary


def issue_columns(images: Images, labels: NoisyLabels, findings: Findings) -> dict[str, Any]:
    """Return the columns of label_issues.csv, in cleanlab's terms, name -> N values."""
    given, issue = labels.given, findings.issue
    predicted = findings.predicted
    columns: dict[str, Any] = {"index": np.arange(len(given))}
    if images.paths is not None:
        columns["file"] = images.paths
    columns |= {
        "is_label_issue": issue,
        "label_quality": findings.trust.right,
        "given_label": given,
        # Without classes: the label if it is trusted, else nothing.
        "predicted_label": np.where(issue, None, given) if predicted is None else predicted,  # type: ignore[call-overload]
        "sample_weight": (~issue).astype(np.float64)
        if findings.weights is None
        else findings.weights,
    }
    if labels.flipped.any():
        columns |= {"true_label": labels.clean, "is_flipped": labels.flipped}
    return columns


def _plain(value: Any) -> Any:  # noqa: ANN401 whatever a column holds
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else value


def audit_page(run: Run, images: Images, labels: NoisyLabels, findings: Findings) -> str:
    """Return one self-contained HTML page; names are escaped, and it loads nothing."""
    # Not at the top: every training imports this module, and these take a third of a second.
    from jinja2 import Environment

    from robustdiff.reports.figures import figure_png, matrix_figure, score_figure

    known = bool(labels.flipped.any())
    transition, suspects = findings.trust.transition, _suspects(images, labels, findings)
    figures = [score_figure(findings.scores, findings.issue, labels.flipped if known else None)]
    if transition is not None:
        title = "estimated: how labels are given"
        figures.append(matrix_figure(transition, images.class_names, title))
    if known:
        figures.append(matrix_figure(labels.realised, images.class_names, "true, for comparison"))
    template = (resources.files("robustdiff.reports") / "audit.html.j2").read_text()
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            run=run.path.name,
            dataset=images.name,
            count=len(labels.given),
            source=findings.source,
            in_sample=findings.in_sample,
            temperature=findings.trust.temperature,
            noise=findings.trust.noise,
            true_noise=labels.realised_rate if known else None,
            detected=detect(findings.scores, labels),
            issues=int(findings.issue.sum()),
            suspects=suspects,
            classes=_class_table(images, labels, findings),
            figures=[_uri(figure_png(figure)) for figure in figures],
            csv_name=CSV_NAME,
        )
    )


def _suspects(images: Images, labels: NoisyLabels, findings: Findings) -> list[dict[str, Any]]:
    """Describe the least trusted images, worst first."""
    predicted, names, known = findings.predicted, images.class_names, bool(labels.flipped.any())
    worst = np.argsort(findings.scores, kind="stable")[: min(_SHOWN, int(findings.issue.sum()))]
    return [
        {
            "image": _image_uri(images.train[i]),
            "index": int(i),
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
    known = bool(flipped.any())
    rows = []
    for label, name in enumerate(images.class_names):
        here = labels.given == label
        row: dict[str, Any] = {
            "name": name,
            "count": int(here.sum()),
            "issues": int((here & issue).sum()),
            "wrong": int((here & flipped).sum()) if known else None,
            "instead": [],
        }
        if predicted is not None:
            looks = np.bincount(predicted[here & issue], minlength=images.num_classes)
            top = [k for k in np.argsort(-looks, kind="stable")[:3] if looks[k]]
            row["instead"] = [(images.class_names[k], int(looks[k])) for k in top]
        rows.append(row)
    return rows


def _image_uri(image: Tensor) -> str:
    pixels = image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG")
    return _uri(buffer.getvalue())


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
