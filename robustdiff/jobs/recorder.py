"""What is written during a training run: history, logs, sample grids, scores, reports."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from robustdiff.config.sections import Config
from robustdiff.diffusion.generate import generate
from robustdiff.jobs.assemble import Material
from robustdiff.jobs.audit import completed, forget_judged, stored_findings
from robustdiff.labels.given import known_noise
from robustdiff.progress import Report
from robustdiff.reports.audit import PAGE_NAME, doubts_in_words, estimate_in_words, write_audit
from robustdiff.reports.card import time_spent, write_card
from robustdiff.reports.logs import Follow, following
from robustdiff.reports.pictures import image_grid, read_png, spread, write_png
from robustdiff.reports.tensorboard import TensorBoard
from robustdiff.reports.verdict import verdict
from robustdiff.runs.folder import Run
from robustdiff.runs.history import append_entry, read_history, sample_grids
from robustdiff.runs.scores import detect, load_scores, save_scores
from robustdiff.training.loop import Prepared, StepDone
from robustdiff.training.rounds import RoundDone
from robustdiff.training.task import total_steps

Event = StepDone | RoundDone | Prepared

_GRID_ROWS = 8


class Recorder:
    """Receives what happens in a run and records nothing; for processes that are not the leader."""

    def record(self, event: Event) -> None:
        """Record an event of training."""

    def sample_grid(self, step: int, network: nn.Module) -> None:
        """Generate a grid of images by the averaged network and record it."""

    def flush(self) -> None:
        """Hand what was recorded to the operating system."""

    def publish(self) -> None:
        """Hand what was recorded up to a checkpoint to the logs that follow the history."""

    def finish(self) -> None:
        """Record the results of a run that has made its last step."""


class RunRecorder(Recorder):
    """Records a run in its folder; for the leader.

    Its clock, which the images per second are measured by, stands still during preparation, scoring
    rounds and sample grids.

    Args:
        run: The run.
        material: What the run works on.
        boards: The run's TensorBoard, if it has one.
        report: Receives progress and messages.
        start: Steps made so far.
        logs: What follows the history.
    """

    def __init__(
        self,
        run: Run,
        material: Material,
        boards: Sequence[TensorBoard],
        report: Report,
        *,
        start: int,
        logs: Sequence[Follow] = (),
    ) -> None:
        self.run, self.boards, self.report, self.logs = run, boards, report, logs
        self.images, self.labels, self.task = material
        self.step = self._start = start
        self._timed_from, self._timed_since = start, time.perf_counter()
        self._note = ""

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.task.config

    def record(self, event: Event) -> None:
        """Record an event of training."""
        match event:
            case Prepared():
                append_entry(self.run, {"step": self.step, "preparing_seconds": event.seconds})
                self._timed_since += event.seconds
            case RoundDone():
                with self._clock_stopped():
                    self._record_round(event)
                self._timed_since += event.seconds
            case StepDone():
                self._record_step(event)

    @contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._timed_since += time.perf_counter() - started

    def _record_step(self, event: StepDone) -> None:
        self.step = event.step
        if event.loss is not None:
            count, now = len(self.task.data), time.perf_counter()
            seen = (event.step - self._timed_from) * min(self.config.train.batch_size, count)
            rate = seen / (now - self._timed_since)
            for board in self.boards:
                board.training(event.step, event.loss, rate)
            entry = {"step": event.step, "loss": event.loss, "images_per_second": rate}
            append_entry(self.run, entry)
            self._timed_from, self._timed_since = event.step, time.perf_counter()
            self._note = f"loss {event.loss:.4f}, {rate:.0f} img/s"
        steps = total_steps(self.config, len(self.task.data))
        self.report.progress("training", event.step, steps, self._note)

    def _record_round(self, event: RoundDone) -> None:
        labels, detected = self.labels, detect(event.scores, self.labels)
        save_scores(self.run, event.scores, event.trust, event.label_used)
        estimated = None if np.isnan(event.trust.noise) else event.trust.noise
        for board in self.boards:
            board.scores(event.step, event.scores, labels.flipped, detected)
            board.extremes(event.step, self.images.train, event.scores, labels.given, labels.clean)
            if estimated is not None:
                board.estimate(event.step, estimated, known_noise(self.config.data, labels))
        entry: dict[str, float | None] = {
            "step": event.step,
            "round": event.number,
            "labels_used": float(event.label_used.mean()),
            "estimated_noise": estimated,
            "scoring_seconds": event.seconds,
            **(detected or {}),
        }
        if event.trust.temperature is not None:
            entry["temperature"] = event.trust.temperature
        append_entry(self.run, entry)
        if detected:
            noise = "" if estimated is None else f", {estimate_in_words(estimated)}"
            self.report.message(
                f"step {event.step}: scores separate wrong labels with AUROC "
                f"{detected['auroc']:.3f}{noise}"
            )

    def sample_grid(self, step: int, network: nn.Module) -> None:
        """Generate a grid of images by the averaged network and record it."""
        with self._clock_stopped():
            classes = torch.tensor(spread(self.images.num_classes))
            generated = generate(
                self.task.bind(network),
                classes.repeat(_GRID_ROWS).to(self.task.data.images.device),
                tuple(self.images.train.shape[1:]),
                sample=self.config.sample,
                seed=self.config.seed,
            )
            grid = image_grid(generated, len(classes))
            write_png(_grid_file(self.run, step), grid)
            for board in self.boards:
                board.samples(step, grid)

    def flush(self) -> None:
        """Hand what was recorded to the operating system."""
        for board in self.boards:
            board.flush()

    def publish(self) -> None:
        """Hand what was recorded up to a checkpoint to the logs that follow the history."""
        with self._clock_stopped():
            for follow in self.logs:
                follow(self.step)

    def finish(self) -> None:
        """Record the results of a run that has made its last step."""
        run, config, labels = self.run, self.config, self.labels
        stored, findings = load_scores(run), stored_findings(run, config, labels)
        detected = None if stored is None else detect(stored.scores, labels)
        settings = {
            "dataset": config.data.dataset,
            "noise": config.noise.rate,
            "noise_type": config.noise.type,
            "curriculum": config.curriculum.name,
            "cen": config.model.cen,
            "seed": config.seed,
            "steps": self.step,
        }
        for board in self.boards:
            board.result(settings, {"result/auroc": detected["auroc"]} if detected else {})
        estimated = None if findings is None else findings.trust.noise
        doubts = (
            [] if findings is None else doubts_in_words(findings.trust, self.images.class_names)
        )
        write_card(
            run,
            config,
            labels,
            detected=detected,
            estimated=estimated,
            doubts=doubts,
            step=self.step,
        )
        self.publish()
        self.report.message(time_spent(run, config, len(labels.given)))
        # Where no step was made, an audit that judged the labels anew stays the newest report.
        if findings is not None and not (self.step == self._start and run.judged_file.exists()):
            findings = completed(run, findings, self.images, self.report)
            summary = write_audit(run, self.images, labels, findings)
            forget_judged(run, self.report)
            self.report.message(
                f"{summary['issues']} of {len(labels.given)} labels look wrong, "
                f"{estimate_in_words(findings.trust.noise)}: {run.path / PAGE_NAME}"
            )
            if "listing" in summary:
                self.report.message(summary["listing"])
        for doubt in doubts:
            self.report.message(f"in doubt: {doubt}")
        if (weak := verdict(config.curriculum.name, detected)) is not None:
            self.report.message(weak)


@contextmanager
def recording(
    run: Run, material: Material, report: Report, *, start: int, repeated: bool = False
) -> Iterator[Recorder]:
    """Yield what records a run in this process.

    Args:
        run: The run.
        material: What it works on.
        report: Receives progress and messages.
        start: Steps made so far.
        repeated: Whether a scoring round at step `start` is recorded already, and will be again.
    """
    if not material.task.workers.leader:
        yield Recorder()
        return
    config = material.task.config
    for step, grid in sample_grids(run).items():
        if step > start:  # by weights that are given up
            grid.unlink()
    with ExitStack() as stack:
        logs = [
            stack.enter_context(log) for log in following(config.train.log, run, config, report)
        ]
        boards = []
        if "tensorboard" in config.train.log:
            boards.append(_board(run, start=start, repeated=repeated))
            stack.callback(boards[0].close)
        yield RunRecorder(run, material, boards, report, start=start, logs=logs)


def _board(run: Run, *, start: int, repeated: bool) -> TensorBoard:
    """Open TensorBoard, which drops all that a killed process wrote after a step, or from it on."""
    if start == 0 or not repeated:
        return TensorBoard(run.tensorboard, dropped_from=start and start + 1)
    board = TensorBoard(run.tensorboard, dropped_from=start)
    for entry in read_history(run):
        if entry["step"] == start and "loss" in entry:
            board.training(start, entry["loss"], entry["images_per_second"])
    if (grid := _grid_file(run, start)).exists():
        board.samples(start, read_png(grid))
    return board


def _grid_file(run: Run, step: int) -> Path:
    return run.samples / f"step-{step:08d}.png"
