"""Work that threads do ahead: results come in their order, and few wait."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def in_order(pool: Executor, work: Callable[[S], T], items: Iterable[S], ahead: int) -> Iterator[T]:
    """Yield the results of work on items, in their order.

    Args:
        pool: What works.
        work: On one item.
        items: Asked for one by one, as results are taken.
        ahead: Items that are worked on, or whose results wait, besides the one that is asked for.
    """
    remaining = iter(items)
    waiting: deque[Future[T]] = deque(pool.submit(work, item) for item in islice(remaining, ahead))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(remaining, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()
