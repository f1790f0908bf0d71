"""Work that threads do ahead: in order, and not too much of it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from robustdiff.data.ahead import in_order


def test_results_keep_their_order_whoever_is_first():
    def work(number):
        time.sleep(0.002 * (number % 3))
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(in_order(pool, work, range(20), 4)) == list(range(20))
        assert list(in_order(pool, work, [], 4)) == []


def test_no_more_is_done_ahead_than_allowed():
    asked = []

    def items():
        for number in range(100):
            asked.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        for taken, _ in enumerate(in_order(pool, str, items(), 3), start=1):
            assert len(asked) <= taken + 3


def test_an_error_comes_in_its_turn():
    with ThreadPoolExecutor(2) as pool:
        results = in_order(pool, lambda number: 1 // (2 - number), range(5), 5)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_what_nobody_waits_for_any_more_is_not_begun():
    begun, go = [], threading.Event()

    def work(number):
        begun.append(number)
        if number:
            go.wait()

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(50), 50)
        next(results)
        results.close()
        go.set()
    assert len(begun) <= 2
