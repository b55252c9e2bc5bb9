"""Many items at a time, in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from liteseg_plugin.system.progress import progress_bar


def usable_cpus() -> int:
    """Return the CPUs that this process may use, which in a container are fewer than there are."""
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

    Threads do: decoding, encoding and hashing, which take the time here, let others run.

    Args:
        function: What to do; the first exception that it raises stops everything.
        items: One argument each.
        description: Of the progress bar.
        workers: Number of threads; by default that of the processors.
        progress: Whether to show a progress bar.

    Returns:
        The results, in the order of the items.
    """
    results: list[Any] = [None] * len(items)
    pool = ThreadPoolExecutor(max_workers=workers or os.cpu_count())
    try:
        places = {pool.submit(function, item): place for place, item in enumerate(items)}
        bar = progress_bar(total=len(items), desc=description, unit="file", disable=not progress)
        with bar:
            for done in as_completed(places):
                results[places[done]] = done.result()
                bar.update()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results


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
    """Return a rate; of a time that is too short for the clock, the one that a microsecond makes.

    Args:
        count: Of things done.
        seconds: That they took.
    """
    return count / max(seconds, 1e-6)
