"""Jobs side by side in threads of one process, each with its share of torch's threads."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from robustdiff.progress import Progress, part_of

T = TypeVar("T")


class _Board:
    """What threads tell each other: how far each job is, and that one has failed."""

    def __init__(self, count: int, progress: Progress) -> None:
        self.shares = [0.0] * count
        self.progress = progress
        self.failure: BaseException | None = None
        self.lock = threading.Lock()

    def fail(self, error: BaseException) -> BaseException:
        """Let the other jobs end at their next step; return what failed first."""
        with self.lock:
            self.failure = self.failure or error
            return self.failure

    def of(self, number: int) -> Progress:
        """Return the progress of one job, which raises where another has failed."""

        def report(done: int, total: int) -> None:
            with self.lock:
                if self.failure is not None:
                    raise self.failure
                self.shares[number] = done / total
                self.progress(round(sum(self.shares) * total), len(self.shares) * total)

        return report


def side_by_side(
    jobs: Sequence[Callable[[Progress], T]], device: torch.device, progress: Progress
) -> Iterator[T]:
    """Run jobs, several at a time where cores allow, and yield their results in their order.

    On a CPU as many run at a time as torch has threads, with an equal share of these each: a
    network of small images leaves a second thread waiting half of the time. On a GPU they run one
    after the other. Sums are bit-equal for equal numbers of threads only, as everywhere.

    Args:
        jobs: Called with the progress of each; they share nothing that they write.
        device: Where they compute.
        progress: Called with (units done, units in all), by one thread at a time.

    Raises:
        BaseException: What a job or `progress` raises first; the other jobs end at their next call
            of their progress.
    """
    threads = torch.get_num_threads()
    together = min(len(jobs), threads) if device.type == "cpu" else 1
    if together <= 1:
        for number, job in enumerate(jobs):
            yield job(part_of(progress, number, len(jobs)))
        return
    board = _Board(len(jobs), progress)

    def run(number: int) -> T:
        try:
            return jobs[number](board.of(number))
        except BaseException as error:
            board.fail(error)
            raise

    share = threads // together
    pool = ThreadPoolExecutor(together, initializer=torch.set_num_threads, initargs=(share,))
    try:
        futures = deque(pool.submit(run, number) for number in range(len(jobs)))
        while futures:
            yield futures.popleft().result()  # whose memory is free once the caller drops it
    except BaseException as error:
        failure = board.fail(error)
        if failure is error:
            raise
        raise failure from None  # what waited for the others is not its cause
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        finally:
            torch.set_num_threads(threads)
