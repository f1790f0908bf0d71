"""The card of a run: a README.md that says what was trained, on what labels, with what result."""

import shlex
from importlib.metadata import version

from corruptions import NoisyLabels
from robustdiff.config import Config
from robustdiff.files import write_text
from robustdiff.markdown import plain_text
from robustdiff.runs import Run


def write_card(
    run: Run, config: Config, labels: NoisyLabels, detected: dict[str, float] | None, step: int
) -> None:
    """Write the card.

    Args:
        run: Where.
        config: The run's configuration.
        labels: Its labels.
        detected: Detection metrics of the final scores, None where there are none.
        step: Optimiser steps made.
    """
    model = config.model
    lines = [
        f"# {plain_text(run.path.name)}",
        "",
        f"A class-conditional diffusion model of {config.data.dataset}, trained by robustdiff "
        f"{version('robustdiff')} (torch {version('torch')}).",
        "",
        f"- labels: {plain_text(_noise(labels))}",
        f"- curriculum: {config.curriculum.name}",
        f"- class embedding: {plain_text(model.cen)}, channels {list(model.channels)}",
        f"- steps: {step} of {config.train.batch_size} images, seed {config.seed}",
    ]
    if detected:
        lines.append(
            f"- wrong labels found by the score: AUROC {detected['auroc']:.3f}, "
            f"precision at the true rate {detected['precision_at_rate']:.3f}"
        )
    command = plain_text(f"robustdiff eval {shlex.quote(str(run.path))}")
    lines += ["", f"Evaluate with {command}; figures go to metrics.json.", ""]
    write_text(run.path / "README.md", "\n".join(lines))


def _noise(labels: NoisyLabels) -> str:
    if not labels.realised_rate:
        return "as published"
    return f"{labels.realised_rate:.2%} wrong, {labels.noise_type} ({labels.convention})"
