"""A training run from configuration to finished folder: data, labels, loop, logs, checkpoints."""

import json
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corruptions import NoisyLabels, corrupt, labels_from, load_matrix, read_labels
from robustdiff.config.layers import resolve, to_plain
from robustdiff.config.roles import check_resumable
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images, LabelledImages, known_noise, load_images, samples_of
from robustdiff.device import keep_freed_memory, pick_device, set_precision
from robustdiff.diffusion.generate import class_labels, generate
from robustdiff.errors import DamagedError, DivergedError, InterruptedRunError
from robustdiff.files.atomic import append_line, write_text
from robustdiff.files.checkpoint import load_checkpoint, save_checkpoint
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Report, Silent
from robustdiff.reports.audit import PAGE_NAME, stored_findings, write_audit
from robustdiff.reports.card import time_spent, write_card
from robustdiff.reports.pictures import image_grid, write_png
from robustdiff.reports.tensorboard import TensorBoard
from robustdiff.runs.folder import Run, create_run, detect
from robustdiff.training.loop import Prepared, StepDone, train
from robustdiff.training.rounds import RoundDone
from robustdiff.training.state import TrainState, new_state
from robustdiff.training.task import Task, total_steps

_GRID_ROWS = 8
_SILENT = Silent()


@dataclass
class _Loop:
    """One process's work on a run; holds what the event handlers share.

    The leader alone has a TensorBoard, and writes to the run's folder.
    """

    run: Run
    images: Images
    labels: NoisyLabels
    task: Task
    state: TrainState
    report: Report
    board: TensorBoard | None
    timed_from: int
    logged_at: float = field(default_factory=time.perf_counter)
    saved_at: float = field(default_factory=time.monotonic)
    note: str = ""

    @property
    def config(self) -> Config:
        return self.task.config

    @property
    def steps(self) -> int:
        return total_steps(self.config, len(self.task.data))


def prepare_labels(config: Config, images: Images, report: Report = _SILENT) -> NoisyLabels:
    """Make the given labels of a run.

    Args:
        config: Its configuration.
        images: Its dataset.
        report: Told what is guessed about a label file.

    Returns:
        Labels of the training images.

    Raises:
        ValueError: If the noise type is unknown, or a file that it needs cannot be used.
    """
    noise = config.noise
    clean = images.train_labels.numpy()
    if noise.labels is not None:
        file = read_labels(Path(noise.labels), noise.labels_key)
        joined = labels_from(file, samples_of(images), noise.labels_as)
        for note in joined.notes:
            report.message(note)
        return joined.labels
    matrix = None if noise.matrix is None else load_matrix(Path(noise.matrix))
    return corrupt(
        clean,
        noise_type=noise.type,
        rate=noise.rate,
        num_classes=images.num_classes,
        seed=config.seed,
        mode=noise.mode,
        dataset=images.name,
        class_map=noise.class_map,
        class_names=images.class_names,
        matrix=matrix,
        features=images.train.numpy(),
    )


def make_task(
    config: Config,
    images: Images,
    labels: NoisyLabels,
    report: Report,
    workers: Workers = ALONE,
) -> Task:
    """Put together what training works on; only the oracle curriculum learns which are right.

    Raises:
        ValueError: If the configuration does not fit the data or the number of processes.
    """
    if config.train.batch_size < workers.size:
        raise ValueError(
            f"train.batch_size must be at least the number of processes, {workers.size}, "
            f"got {config.train.batch_size}"
        )
    device = pick_device(config.train.device)
    oracle = ~labels.flipped if config.curriculum.name == "oracle" else None
    matrix = config.objective.matrix
    transition = labels.nominal if matrix == "nominal" else None
    if matrix is not None and matrix != "nominal":
        transition = load_matrix(Path(matrix))
        if len(transition) != images.num_classes:
            raise ValueError(
                f"{images.name} has {images.num_classes} classes, but objective.matrix {matrix} "
                f"is {len(transition)} x {len(transition)}"
            )
    keep_freed_memory()
    return Task(
        config=config,
        data=LabelledImages(images.train, torch.from_numpy(labels.given)).to(device),
        num_classes=images.num_classes,
        dtype=set_precision(config.train.precision, device),
        oracle=oracle,
        transition=transition,
        progress=report.progress,
        workers=workers,
    )


def start_run(config: Config, path: Path | None, report: Report, workers: Workers = ALONE) -> Run:
    """Train a new run to its end.

    Args:
        config: Its configuration.
        path: Folder to make; None for a new one under runs/.
        report: Told about progress.
        workers: Those that train it.

    Returns:
        The finished run.

    Raises:
        ValueError: If the configuration cannot be used; nothing has been written then.
        DivergedError: If the loss is not finite.
        InterruptedRunError: If a signal asked to stop.
    """
    images = workers.leader_first(lambda: load_images(config.data, report))
    labels = workers.from_leader(lambda: prepare_labels(config, images, report))
    task = make_task(config, images, labels, report, workers)
    state = new_state(task)
    run = workers.from_leader(lambda: create_run(path, config, labels))
    with _locked(run, workers):
        workers.from_leader(lambda: run.check_images(images.train))
        _train_to_end(run, images, labels, task, state, report)
    return run


@contextmanager
def _locked(run: Run, workers: Workers) -> Iterator[None]:
    """Lock the run in the leader, before any process goes on."""
    with ExitStack() as stack:
        workers.from_leader(lambda: stack.enter_context(run.locked()))
        yield


def dry_run(config: Config, report: Report, workers: Workers = ALONE) -> None:
    """Check a configuration as far as one training step, writing nothing.

    Raises:
        ValueError: If the configuration cannot be used.
        DivergedError: If the loss is not finite.
    """
    # Every step tells its loss, so the first does.
    config = replace(config, train=replace(config.train, log_every=1))
    images = workers.leader_first(lambda: load_images(config.data, report))
    labels = workers.from_leader(lambda: prepare_labels(config, images, report))
    task = make_task(config, images, labels, report, workers)
    state = new_state(task)
    steps = total_steps(config, len(task.data))
    started = time.perf_counter()
    event = next(event for event in train(state, task) if isinstance(event, StepDone))
    seconds = time.perf_counter() - started
    report.message(
        f"dry run: {len(task.data)} {images.name} images, {_size(state)}, "
        f"{steps} steps; first step {seconds:.2f} s, loss {event.loss:.3f}; nothing was written"
    )


def resume_run(run: Run, config: Config, report: Report, workers: Workers = ALONE) -> None:
    """Continue an interrupted run, or a finished one whose length has grown.

    Args:
        run: Its folder.
        config: Its configuration; what `RESUMABLE` names may differ from the stored one.
        report: Told about progress.
        workers: Those that train it; their number may differ from before.

    Raises:
        ValueError: If the dataset cannot be loaded, or the configuration differs in more than a
            resumed run may change.
        DamagedError: If no checkpoint can be used.
        DivergedError: If the loss is not finite.
        InterruptedRunError: If a signal asked to stop.
    """
    workers.from_leader(lambda: check_resumable(to_plain(run.config()), to_plain(config)))
    images = workers.leader_first(lambda: load_images(config.data, report))
    labels = workers.from_leader(run.labels)
    task = make_task(config, images, labels, report, workers)
    state = new_state(task)
    with _locked(run, workers):
        workers.from_leader(lambda: run.check_images(images.train))
        saved = workers.from_leader(lambda: load_checkpoint(run.checkpoints))
        if saved is not None:
            _check_saved(saved, config, total_steps(config, len(task.data)))
            try:
                state.load_state_dict(saved)
            except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise DamagedError(
                    f"the checkpoint in {run.checkpoints} is of another network"
                ) from error
        if workers.leader:
            run.save_config(config)
            _forget_after(run, state)
        report.message(f"resumed at step {state.step} of {total_steps(config, len(task.data))}")
        _train_to_end(run, images, labels, task, state, report)


def _check_saved(saved: dict[str, Any], config: Config, steps: int) -> None:
    """Refuse a configuration that the checkpoint was not made with, such as an edited file's."""
    if "config" in saved:
        # Settings that are newer than the checkpoint have their defaults.
        stored = to_plain(resolve(json.loads(saved["config"])))
        check_resumable(stored, to_plain(config))
    if steps < saved["step"]:
        raise ValueError(
            f"a resumed run may become longer, not shorter than the {saved['step']} steps that "
            f"are done, got {steps}"
        )


def _train_to_end(
    run: Run,
    images: Images,
    labels: NoisyLabels,
    task: Task,
    state: TrainState,
    report: Report,
) -> None:
    workers = task.workers
    board = TensorBoard(run.tensorboard, start=state.step) if workers.leader else None
    loop = _Loop(run, images, labels, task, state, report, board, timed_from=state.step)
    report.message(_summary(loop))
    try:
        with _stop_requested() as stop:
            for event in train(state, task):
                # All processes must agree, and their signals and clocks differ.
                signal, late = workers.largest(stop[0] if stop else 0, _late(loop))
                match event:
                    case Prepared():
                        _on_prepared(loop, event)
                    case RoundDone():
                        _on_round(loop, event)
                    case StepDone():
                        _on_step(loop, event, late=bool(late))
                if signal:
                    _checkpoint(loop)
                    raise InterruptedRunError(
                        f"stopped at step {state.step}; continue with: "
                        f"robustdiff train --resume {shlex.quote(str(run.path))}",
                        signal,
                    )
        workers.from_leader(lambda: _finish(loop))
    finally:
        if board is not None:
            board.close()


def _late(loop: _Loop) -> bool:
    """Return whether a checkpoint is due by the clock."""
    minutes = loop.config.train.checkpoint_minutes
    return minutes is not None and (time.monotonic() - loop.saved_at) / 60 >= minutes


@contextmanager
def _stop_requested() -> Iterator[list[int]]:
    """Turn the first SIGINT or SIGTERM into a request, a non-empty list; the second one kills."""
    import signal
    import threading

    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # signals reach the main thread alone
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _summary(loop: _Loop) -> str:
    known = known_noise(loop.config.data, loop.labels)
    noise = "labels as they are" if known is None else "labels as published"
    if known:
        noise = f"{known:.1%} {loop.labels.noise_type} label noise"
    precision = str(loop.task.dtype).removeprefix("torch.")
    workers = loop.task.workers
    together = "" if workers.size == 1 else f", {workers.size} processes"
    return (
        f"{loop.run.path}: {len(loop.task.data)} {loop.images.name} images, {noise}, "
        f"{_method(loop.config)}, {_size(loop.state)}, "
        f"{loop.task.data.images.device.type} {precision}{together}"
        f"{' with sharded weights' if workers.shard else ''}"
    )


def _method(config: Config) -> str:
    if config.objective.name != "plain":
        return f"objective {config.objective.name}"
    return f"curriculum {config.curriculum.name}"


def _size(state: TrainState) -> str:
    parameters = sum(p.numel() for p in state.model.parameters())
    return f"{parameters / 1e6:.2f} M parameters"


def _on_prepared(loop: _Loop, event: Prepared) -> None:
    if loop.board is not None:
        entry = {"step": loop.state.step, "preparing_seconds": event.seconds}
        _append(loop.run.history_file, entry)
        loop.logged_at += event.seconds


def _on_step(loop: _Loop, event: StepDone, *, late: bool) -> None:
    setting, last = loop.config.train, event.step == loop.steps
    if loop.board is not None:
        _log_step(loop, event, loop.board)
    if event.step % setting.sample_every == 0 or last:
        _log_samples(loop, event.step)
    if late or event.step % setting.checkpoint_every == 0 or last:
        _checkpoint(loop)


def _log_step(loop: _Loop, event: StepDone, board: TensorBoard) -> None:
    setting, steps = loop.config.train, loop.steps
    if event.loss is not None:
        elapsed = time.perf_counter() - loop.logged_at
        steps_timed = event.step - loop.timed_from
        rate = steps_timed * min(setting.batch_size, len(loop.task.data)) / elapsed
        board.training(event.step, event.loss, rate)
        entry = {"step": event.step, "loss": event.loss, "images_per_second": rate}
        _append(loop.run.history_file, entry)
        loop.timed_from, loop.logged_at = event.step, time.perf_counter()
        loop.note = f"loss {event.loss:.4f}, {rate:.0f} img/s"
    loop.report.progress("training", event.step, steps, loop.note)


def _on_round(loop: _Loop, event: RoundDone) -> None:
    started, labels, board = time.perf_counter(), loop.labels, loop.board
    if board is None:
        return
    detected = detect(event.scores, labels)
    board.scores(event.step, event.scores, labels.flipped, detected)
    board.extremes(event.step, loop.images.train, event.scores, labels.given, labels.clean)
    loop.run.save_scores(event.scores, event.trust, event.label_used)
    estimated = None if np.isnan(event.trust.noise) else event.trust.noise
    if estimated is not None:
        board.estimate(event.step, estimated, known_noise(loop.config.data, labels))
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
    _append(loop.run.history_file, entry)
    if detected:
        noise = "" if estimated is None else f", estimated noise {estimated:.1%}"
        loop.report.message(
            f"step {event.step}: scores separate wrong labels with AUROC "
            f"{detected['auroc']:.3f}{noise}"
        )
    # The clock of training stands still meanwhile.
    loop.logged_at += event.seconds + time.perf_counter() - started


def _log_samples(loop: _Loop, step: int) -> None:
    started = time.perf_counter()
    loop.state.losses.read()  # raises rather than draw from spoilt weights
    network = loop.state.averaged()
    if loop.board is None:
        return
    classes = class_labels(_GRID_ROWS * loop.images.num_classes, loop.images.num_classes)
    device = loop.task.data.images.device
    pictures = generate(
        loop.task.bind(network),
        classes.to(device),
        tuple(loop.images.train.shape[1:]),
        setting=loop.config.sample,
        seed=loop.config.seed,
    )
    grid = image_grid(pictures, loop.images.num_classes)
    write_png(loop.run.samples / f"step-{step:08d}.png", grid)
    loop.board.samples(step, grid)
    loop.logged_at += time.perf_counter() - started


def _checkpoint(loop: _Loop) -> None:
    content = loop.state.state_dict() | {"config": json.dumps(to_plain(loop.config))}
    network = loop.state.averaged()

    def save() -> None:
        # A gradient may overflow where the loss does not.
        if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
            raise DivergedError(
                f"the weights are not finite at step {loop.state.step}; "
                f"lower train.lr, now {loop.config.train.lr:g}"
            )
        save_checkpoint(loop.run.checkpoints, content, loop.state.step)
        loop.run.save_weights(network)

    loop.task.workers.from_leader(save)
    if loop.board is not None:
        loop.board.flush()
    loop.saved_at = time.monotonic()


def _finish(loop: _Loop) -> None:
    config, labels = loop.config, loop.labels
    detected = loop.run.detection(labels)
    assert loop.board is not None
    loop.board.result(
        {
            "dataset": config.data.dataset,
            "noise": config.noise.rate,
            "noise_type": config.noise.type,
            "curriculum": config.curriculum.name,
            "cen": config.model.cen,
            "seed": config.seed,
            "steps": loop.state.step,
        },
        {"result/auroc": detected["auroc"] if detected else float("nan")},
    )
    findings = stored_findings(loop.run, config, labels)
    estimated = None if findings is None else findings.trust.noise
    write_card(
        loop.run, config, labels, detected=detected, estimated=estimated, step=loop.state.step
    )
    loop.report.message(time_spent(loop.run, config, len(labels.given)))
    if findings is not None:
        summary = write_audit(loop.run, loop.images, labels, findings)
        loop.report.message(
            f"{summary['issues']} of {len(labels.given)} labels look wrong, estimated noise "
            f"{estimated:.1%}: {loop.run.path / PAGE_NAME}"
        )


def _append(path: Path, entry: Mapping[str, float | None]) -> None:
    append_line(path, json.dumps(entry))


def _forget_after(run: Run, state: TrainState) -> None:
    """Drop history entries that the resumed run will write again."""
    if run.history_file.exists():
        lines = [json.dumps(entry) for entry in run.history() if _stays(entry, state)]
        write_text(run.history_file, "".join(f"{line}\n" for line in lines))


def _stays(entry: dict[str, Any], state: TrainState) -> bool:
    if "preparing_seconds" in entry:
        return state.mixture is not None
    # A checkpoint may come before or after the scoring round of its step.
    if "round" in entry:
        return bool(entry["round"] <= state.rounds)
    return bool(entry["step"] <= state.step)
