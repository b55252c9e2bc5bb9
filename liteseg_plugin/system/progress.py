"""Progress bars, which are sparse lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
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
