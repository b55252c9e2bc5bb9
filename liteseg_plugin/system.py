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

_LOG_SECONDS = 30  # between two lines of progress in a log


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """Return a progress bar: tqdm's on a terminal, a line every 30 seconds in a log.

    Args:
        iterable: What to go through; None to call ``update`` instead.
        options: Of tqdm.
    """
    if sys.stderr is not None and not sys.stderr.isatty():
        sparse = {"mininterval": _LOG_SECONDS, "maxinterval": _LOG_SECONDS}
        options = {**sparse, "ascii": True, "file": _Lines(), **options}
    return tqdm(iterable, **options)


class ProgressBar:
    """The progress bar in place of PaddleSeg's ``Progbar``, which writes into a log at each batch.

    Args:
        target: Number of batches.
        options: Of PaddleSeg's; they are about its looks.
    """

    def __init__(self, target: int, **options: Any) -> None:
        self._bar = progress_bar(total=target, unit="batch")

    def update(self, current: int, values: Any = None) -> None:
        """Show that ``current`` batches are done."""
        self._bar.update(current - self._bar.n)
        if current >= self._bar.total:
            self._bar.close()


class _Lines:
    """Standard error, where each state of a progress bar becomes a line of its own."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


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
