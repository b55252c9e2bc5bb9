"""Progress bars; in a log, sparse lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

from liteseg_plugin.system import heartbeat

_LOG_SECONDS = 30  # between two lines of progress in a log


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """Return a progress bar: tqdm's on a terminal, a line every 30 seconds in a log.

    Without items, call ``update``. The options are tqdm's.
    """
    if sys.stderr is not None and not sys.stderr.isatty():
        # position: a bar in a bar would move the cursor of a terminal.
        sparse = {"mininterval": _LOG_SECONDS, "maxinterval": _LOG_SECONDS, "position": 0}
        options = {**sparse, "ascii": True, "file": _Lines(), **options}
    return _Bar(iterable, **options)


class _Bar(tqdm):
    """A bar whose every item is a sign of life."""

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            heartbeat.tick()
            yield item

    def update(self, n: float | None = 1) -> bool | None:
        heartbeat.tick()
        return super().update(n)


class ProgressBar:
    """A progress bar instead of PaddleSeg's ``Progbar``, which writes into a log at each batch.

    Args:
        target: Number of batches.
        options: PaddleSeg's options for its looks; unused.
    """

    def __init__(self, target: int, **options: Any) -> None:
        self._bar = progress_bar(total=target, unit="batch")

    def update(self, current: int, values: Any = None) -> None:
        """Show that ``current`` batches are done."""
        self._bar.update(current - self._bar.n)
        if current >= self._bar.total:
            self._bar.close()


class _Lines:
    """Standard error, with each state of a progress bar on its own line."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()
