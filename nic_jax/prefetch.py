"""Work done ahead by threads, handed over in order, never further ahead than asked."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


def default_workers() -> int:
    """Threads for reading: one a core that this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 4)


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int
) -> Iterator[Result]:
    """Yields `function(item)` in the order of `items`, with at most `ahead` results waiting.

    An exception raised by `function` is raised here, at its item's turn. When the caller stops
    early, what has not begun is cancelled and what has begun is waited for.
    """
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    waiting = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
