"""Jobs in threads: order, shares of torch's threads, failures, progress."""

import threading
import time

import pytest
import torch

from robustdiff.classifiers import image as module
from robustdiff.classifiers.image import Lessons, train_image_classifier
from robustdiff.classifiers.networks import make_classifier
from robustdiff.progress import silent
from robustdiff.side_by_side import side_by_side

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "jobs", "together", "share"),
    [(1, 3, 1, 1), (2, 1, 1, 2), (2, 4, 2, 1), (5, 2, 2, 2), (4, 4, 4, 1)],
)
def test_as_many_jobs_run_at_a_time_as_there_are_threads_and_share_them(
    threads, jobs, together, share
):
    torch.set_num_threads(threads)
    meeting = threading.Barrier(together)

    def job(progress):
        meeting.wait(timeout=60)  # passes only where so many wait at a time
        return threading.get_ident(), torch.get_num_threads()

    found = [*side_by_side([job] * jobs, CPU, silent)]
    assert {count for _, count in found} == {share}
    assert len({thread for thread, _ in found}) == together
    assert torch.get_num_threads() == threads


def test_results_keep_the_order_of_the_jobs():
    torch.set_num_threads(2)
    first_may_end = threading.Event()

    def first(progress):
        first_may_end.wait(timeout=60)
        return "first"

    def second(progress):
        first_may_end.set()
        return "second"

    assert [*side_by_side([first, second], CPU, silent)] == ["first", "second"]


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_is_that_of_all_jobs_together(threads):
    torch.set_num_threads(threads)
    seen = []

    def job(progress):
        for done in range(5):
            progress(done, 4)

    assert [*side_by_side([job] * 3, CPU, lambda *units: seen.append(units))] == [None] * 3
    shares = [done / total for done, total in seen]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1], len(shares)) == (0, 1, 15)


def test_a_failure_is_raised_as_it_is_and_ends_the_other_jobs_at_their_next_step():
    torch.set_num_threads(2)
    steps, failed = [], threading.Event()

    def endless(progress):
        while True:
            failed.wait(timeout=60)
            progress(1, 2)
            steps.append(1)

    def fails(progress):
        failed.set()
        raise ValueError("no such class")

    started = []
    jobs = [endless, fails, started.append]
    with pytest.raises(ValueError, match="no such class"):
        [*side_by_side(jobs, CPU, silent)]
    assert len(steps) < 1000
    assert torch.get_num_threads() == 2


def test_a_failure_keeps_its_cause():
    torch.set_num_threads(2)

    def fails(progress):
        raise RuntimeError("zip") from OSError(28, "No space left on device")

    with pytest.raises(RuntimeError, match="zip") as caught:
        [*side_by_side([fails] * 2, CPU, silent)]
    assert isinstance(caught.value.__cause__, OSError)


def test_what_progress_raises_stops_all_jobs():
    torch.set_num_threads(2)

    def stop(done, total):
        raise KeyboardInterrupt

    def endless(progress):
        while True:
            progress(1, 2)

    with pytest.raises(KeyboardInterrupt):
        [*side_by_side([endless] * 3, CPU, stop)]


def test_classifiers_trained_side_by_side_are_those_trained_alone_on_as_many_threads(monkeypatch):
    def slow(*shape):
        time.sleep(0.02)  # in which another thread could seed the global generator
        return make_classifier(*shape)

    monkeypatch.setattr(module, "make_classifier", slow)
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (80, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(80) % 2
    state = torch.get_rng_state()

    def trained(seed):
        def job(progress):
            lessons = Lessons(seed=seed, passes=2)
            found = train_image_classifier(images, labels, 2, lessons=lessons, progress=progress)
            return found.margins

        return job

    jobs = [trained(seed) for seed in range(6)]
    together = [*side_by_side(jobs, CPU, silent)]
    torch.set_num_threads(1)
    assert all(torch.equal(one, job(silent)) for one, job in zip(together, jobs, strict=True))
    assert torch.equal(state, torch.get_rng_state())
