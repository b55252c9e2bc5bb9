"""Signals that wait for the end of an iteration."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal ended training; ``checkpoint`` is where to resume."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(str(checkpoint))
        self.checkpoint = checkpoint


class SignalsDeferred:
    """A context in which SIGINT and SIGTERM are recorded; a second Ctrl-C interrupts at once.

    Attributes:
        received: Whether there was a signal.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalsDeferred:
        """Install the handlers, if Python lets this thread do so."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        """Restore the handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.received = True
