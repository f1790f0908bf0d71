"""Timing several works in turn, so that a machine whose speed drifts is fair to all."""

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from benchmarks.scale import memory_bytes


def rates(
    works: Mapping[str, Callable[[], int]], rounds: int, seconds: float, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return items per second of each work in each round; in a round all have their turn.

    Args:
        works: Name -> does some work and returns how many items that were.
        rounds: Turns of each.
        seconds: A turn repeats the work until it has taken so long.
        warm_up: Calls of each before the first round, not counted.
    """
    for work in works.values():
        for _ in range(warm_up):
            work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(rate(work, seconds))
    return found


def rate(work: Callable[[], int], seconds: float, *, watched: bool = True) -> float:
    """Repeat a work for so many seconds and return its items per second.

    Args:
        work: Does some work and returns how many items that were.
        seconds: How long.
        watched: Whether a GPU is waited for after each work, or only after the last, as training
            runs.
    """
    _wait()
    started, items = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or not items:
        items += work()
        if watched:
            _wait()
    _wait()
    return items / (time.perf_counter() - started)


def gpu_memory(
    make: Callable[[], Callable[[], int]], calls: int
) -> tuple[Callable[[], int], float]:
    """Build a work and call it so often; return it with its peak of GPU memory in MiB."""
    _wait()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work = make()
    for _ in range(calls):
        work()
    _wait()
    return work, (torch.cuda.max_memory_allocated() - before) / 2**20


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def against_the_clock(
    step: Callable[[], object], look: Callable[[], float], marks: Sequence[float]
) -> list[tuple[float, float]]:
    """Repeat a step until each mark in seconds, and look; the time of looking is not counted.

    Returns:
        (seconds of steps so far, what was seen) at each mark.
    """
    spent = 0.0
    found = []
    for mark in marks:
        started = time.perf_counter()
        while spent + time.perf_counter() - started < mark:
            step()
        _wait()
        spent += time.perf_counter() - started
        found.append((spent, look()))
    return found


def seconds_to(points: Sequence[tuple[float, float]], level: float) -> float | None:
    """Return when a falling curve first reaches a level, linear between its points.

    Args:
        points: (seconds, figure), lower is better.
        level: Of the figure.

    Returns:
        Seconds, those of the first point if it lies below already; None if it is not reached.
    """
    before: tuple[float, float] | None = None
    for seconds, figure in points:
        if figure <= level:
            if before is None:
                return seconds
            share = (before[1] - level) / (before[1] - figure)
            return before[0] + share * (seconds - before[0])
        before = (seconds, figure)
    return None


def ratio(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Return median, least and largest of the ratio one / other, round by round."""
    pairs = sorted(a / b for a, b in zip(one, other, strict=True))
    return {"median": statistics.median(pairs), "min": pairs[0], "max": pairs[-1]}


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Fit cost = a size^b on logarithmic axes and return b."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def peak_memory(work: Callable[[], object]) -> float:
    """Run a picklable work in a fresh process; return its peak resident memory in MiB (Linux)."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(work, sender))
    process.start()
    sender.close()
    try:
        peak: float = receiver.recv()
    except EOFError:
        peak = math.nan
    process.join()
    return peak


def _report_peak(
    work: Callable[[], object], sender: "multiprocessing.connection.Connection"
) -> None:
    work()
    # Not getrusage: its peak is handed down from the process that started this one.
    sender.send(memory_bytes("VmHWM") / 2**20)
