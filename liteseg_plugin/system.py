"""Many files at a time, files that appear only when they are whole, and where to keep some."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm


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
        bar = tqdm(total=len(items), desc=description, unit="file", disable=not progress)
        with bar:
            for done in as_completed(places):
                results[places[done]] = done.result()
                bar.update()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results


def ahead(
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


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Write a file under another name and rename it: what has the name is complete.

    Args:
        path: The file; its folder is made if need be.
        content: What it shall hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``LITESEG_CACHE``, or the user's."""
    chosen = os.environ.get("LITESEG_CACHE")
    if chosen:
        return Path(chosen)
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    return Path(os.environ.get(variable) or Path.home() / ".cache", "liteseg")
