"""Signals that wait for the end of an iteration."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal ended training; ``checkpoint`` is where to resume."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(str(checkpoint))
        self.checkpoint = checkpoint


@contextlib.contextmanager
def handled(numbers: Iterable[int], handle: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle signals in a context, if Python lets this thread do so."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextlib.contextmanager
def deferred() -> Iterator[list[int]]:
    """Record SIGINT and SIGTERM in the list that it yields; a second Ctrl-C interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        received.append(number)

    with handled((signal.SIGINT, signal.SIGTERM), note):
        yield received
