"""Training runs: start, resume, dry run; the loop with its checkpoints and signals."""

import shlex
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from robustdiff.config.layers import to_plain
from robustdiff.config.roles import check_resumable
from robustdiff.config.sections import Config, TrainConfig
from robustdiff.errors import DamagedError, InterruptedRunError
from robustdiff.files.score_files import ScoreFile
from robustdiff.jobs.assemble import Material, assemble
from robustdiff.jobs.checkpoints import rate_falls_after, resumed, write_checkpoint
from robustdiff.jobs.recorder import Event, recording
from robustdiff.labels.given import known_noise
from robustdiff.parallel import ALONE, Workers, started_by_torchrun
from robustdiff.progress import Report
from robustdiff.reports.logs import check_logs
from robustdiff.runs.evaluations import forget_evaluations
from robustdiff.runs.folder import Run
from robustdiff.runs.history import forget_after
from robustdiff.runs.making import check_place, create_run
from robustdiff.training.loop import StepDone, train
from robustdiff.training.state import TrainState, new_state
from robustdiff.training.task import total_steps


def start_run(config: Config, path: Path | None, report: Report, workers: Workers = ALONE) -> Run:
    """Train a new run to its end.

    Args:
        config: Its configuration.
        path: Folder to make; None for a new one under runs/.
        report: Receives progress and messages.
        workers: Those that train it.

    Returns:
        The finished run.

    Raises:
        ValueError: If the configuration cannot be used; nothing has been written then.
        DivergedError: If the loss is not finite.
        InterruptedRunError: If a signal asked to stop.
    """
    _check_sampling(config)
    workers.from_leader(lambda: check_place(path))
    workers.from_leader(lambda: check_logs(config.train.log))
    material = assemble(config, report, workers)
    state = new_state(material.task)
    run = workers.from_leader(lambda: create_run(path, config, material.labels))
    with _locked(run, workers):
        workers.from_leader(lambda: _record(run, material))
        _train_to_end(run, material, state, report)
    return run


def _check_sampling(config: Config) -> None:
    if config.sample.undo_label_noise:
        raise ValueError(
            "sample.undo_label_noise is for a run that has been audited: give it to eval, sample "
            "or sweep, not to training"
        )


def _record(run: Run, material: Material) -> None:
    """Refuse other images than those that the run began with, and record what it is of."""
    run.check_images(material.images.train)
    run.save_subject(material.images)


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
    _check_sampling(config)
    # The loss of a step is read only where it is logged.
    config = replace(config, train=replace(config.train, log_every=1))
    workers.from_leader(lambda: check_logs(config.train.log, connect=False))
    images, _, task = assemble(config, report, workers)
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
        report: Receives progress and messages.
        workers: Those that train it; their number may differ from before.

    Raises:
        ValueError: If the dataset cannot be loaded, or the configuration differs in more than a
            resumed run may change.
        DamagedError: If no checkpoint can be used.
        DivergedError: If the loss is not finite.
        InterruptedRunError: If a signal asked to stop.
    """
    workers.from_leader(lambda: check_resumable(to_plain(run.config()), to_plain(config)))
    workers.from_leader(lambda: check_logs(config.train.log))
    material = assemble(config, report, workers, run)
    state, steps = new_state(material.task), total_steps(config, len(material.task.data))
    with _locked(run, workers):
        workers.from_leader(lambda: _record(run, material))
        saved, held = resumed(run, material.task)
        if saved is not None:
            try:
                state.load_state_dict(saved)
            except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise DamagedError(
                    f"the checkpoint in {run.checkpoints} is of another network"
                ) from error
        repeated = False
        if workers.leader:
            if state.step < steps:
                forget_evaluations(run)  # figures of fewer steps must not pass for those of more
            run.save_config(config)
            prepared = state.mixture is not None
            dropped = forget_after(run, step=state.step, rounds=state.rounds, prepared=prepared)
            repeated = any(entry["step"] == state.step for entry in dropped)
        report.message(f"resumed at step {state.step} of {steps}")
        _train_to_end(run, material, state, report, held, repeated=repeated)


def restarted_run(path: Path, config: Config) -> Run | None:
    """Return the run that a restart by torchrun should resume, None if this is a first start.

    torchrun repeats the command of the first start, with the same --out.
    """
    run = Run(path)
    if not started_by_torchrun() or not run.config_file.exists() or run.config() != config:
        return None
    return run


def _train_to_end(
    run: Run,
    material: Material,
    state: TrainState,
    report: Report,
    held: ScoreFile | None = None,
    *,
    repeated: bool = False,
) -> None:
    asked: list[int] = []
    kept = run.unfinished
    task = replace(material.task, folder=kept, check_stop=partial(_stop_if_asked, run, asked))
    saved_at = time.monotonic()
    config, steps = task.config.train, total_steps(task.config, len(task.data))
    report.message(_summary(run, material, state))
    with (
        recording(run, material, report, start=state.step, repeated=repeated) as recorder,
        _stop_asked(asked),
    ):
        for event in train(state, task):
            # All processes must agree, and their signals and clocks differ.
            number, minutes = task.workers.largest(
                asked[0] if asked else 0, _late(config, saved_at)
            )
            recorder.record(event)
            if _due(event, config.sample_every, steps):
                state.losses.read()  # raises rather than generate from spoilt weights
                recorder.sample_grid(state.step, state.averaged())
            late = bool(minutes) or state.step == rate_falls_after(config, steps)
            if number or _due(event, config.checkpoint_every, steps, late=late):
                held = write_checkpoint(run, task, state, recorder, held)
                saved_at = time.monotonic()
            if number:
                raise InterruptedRunError(
                    f"stopped at step {state.step}; continue with: "
                    f"robustdiff train --resume {shlex.quote(str(run.path))}",
                    number,
                )
        task.workers.from_leader(recorder.finish)
    if task.workers.leader:
        shutil.rmtree(kept, ignore_errors=True)


def _stop_if_asked(run: Run, asked: list[int]) -> None:
    """Stop between two steps of a judge; processes that work together finish judging first.

    Raises:
        InterruptedRunError: If a signal asked to stop.
    """
    if asked:
        raise InterruptedRunError(
            f"stopped while labels were judged; continue with: "
            f"robustdiff train --resume {shlex.quote(str(run.path))}",
            asked[0],
        )


def _due(event: Event, every: int, steps: int, *, late: bool = False) -> bool:
    """Return whether an event is a step after which something periodic is due."""
    if not isinstance(event, StepDone):
        return False
    return late or event.step % every == 0 or event.step == steps


def _late(config: TrainConfig, saved_at: float) -> bool:
    """Return whether a checkpoint is due by the clock."""
    minutes = config.checkpoint_minutes
    return minutes is not None and (time.monotonic() - saved_at) / 60 >= minutes


@contextmanager
def _stop_asked(received: list[int]) -> Iterator[None]:
    """Put the first SIGINT, SIGTERM or SIGHUP into a list; the second one kills.

    SIGHUP tells that the terminal is gone; a process that ignores it, as under nohup, goes on.
    Windows has no SIGHUP.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    asking = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [number for number in signal.Signals if number.name in asking]
    previous = {number: signal.getsignal(number) for number in numbers}
    if hasattr(signal, "SIGHUP") and previous[signal.SIGHUP] is signal.SIG_IGN:
        del previous[signal.SIGHUP]

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _summary(run: Run, material: Material, state: TrainState) -> str:
    """Describe a run in one line."""
    images, labels, task = material
    config, workers = task.config, task.workers
    known = known_noise(config.data, labels)
    noise = "labels as they are" if known is None else "labels as published"
    if known:
        noise = f"{known:.1%} {labels.noise_type} label noise"
    method = f"curriculum {config.curriculum.name}"
    if config.objective.name != "plain":
        method = f"objective {config.objective.name}"
    precision = str(task.dtype).removeprefix("torch.")
    together = "" if workers.size == 1 else f", {workers.size} processes"
    return (
        f"{run.path}: {len(task.data)} {images.name} images, {noise}, {method}, {_size(state)}, "
        f"{task.data.images.device.type} {precision}{together}"
        f"{' with sharded weights' if workers.shard else ''}"
    )


def _size(state: TrainState) -> str:
    parameters = sum(p.numel() for p in state.model.parameters())
    return f"{parameters / 1e6:.2f} M parameters"
