"""Work on many items at a time, in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from liteseg_plugin.system.progress import progress_bar


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use; in a container it may be smaller."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def process(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    description: str,
    workers: int | None = None,
    progress: bool = True,
) -> list[Any]:
    """Call a function on each item, several at a time, with a progress bar.

    Threads suffice: decoding, encoding and hashing release the interpreter's lock.

    Args:
        function: The function; its first exception stops everything.
        items: One argument each.
        description: Of the progress bar.
        workers: Number of threads; default: one per processor.
        progress: Whether to show a progress bar.

    Returns:
        The results, in the order of the items.
    """
    looks = {"desc": description, "unit": "file", "disable": not progress}
    pool = ThreadPoolExecutor(max_workers=workers or usable_cpus())
    try:
        return list(progress_bar(pool.map(function, items), total=len(items), **looks))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def prefetch(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any], number: int
) -> Iterator[Any]:
    """Yield ``function(item)`` in order, computed by the pool up to ``number`` items before."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > number:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def per_second(count: float, seconds: float) -> float:
    """Return a rate; a time below the clock's resolution counts as one microsecond."""
    return count / max(seconds, 1e-6)
