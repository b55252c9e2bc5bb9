"""Requests of one size that wait together run together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from liteseg_plugin.serving.model import ServedModel
from liteseg_plugin.serving.refusal import RefusedError
from liteseg_plugin.serving.uploads import MAX_PIXELS
from liteseg_plugin.system.pixels import max_pixels

_WAITING_BATCHES = 4  # of the most pixels


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        body: Bytes of a request.
        requests: Requests that are being read, wait or run.
        seconds: Time to send a request, and again to answer it.
        batch_size: Images that run together.
        batch_delay_s: Seconds that a request waits for others of its size while an engine is free.
    """

    body: int = 64 << 20
    requests: int = 32
    seconds: float = 30.0
    batch_size: int = 4
    batch_delay_s: float = 0.0


@dataclass(frozen=True, eq=False)
class _Entry:
    model: ServedModel
    x: np.ndarray
    arrived: float = field(default_factory=time.monotonic)
    future: Future[np.ndarray] = field(default_factory=Future)

    @property
    def pixels(self) -> int:
        return self.x.shape[0] * self.x.shape[2] * self.x.shape[3]


class Batcher:
    """A queue in front of engines, each of which runs one batch at a time.

    One thread an engine takes the request that waits longest, with others of its model and size.
    So the engines share the processors, however many models there are.

    Args:
        engines: Engines of each model.
        limits: What the server takes.
        observe: Called with the model's name, the images and the seconds of each batch.
    """

    def __init__(
        self, engines: int, limits: Limits, observe: Callable[[str, int, float], None]
    ) -> None:
        self._limits, self._observe = limits, observe
        self._pixels = max_pixels(MAX_PIXELS)  # of a batch of several requests
        self._changed = threading.Condition()
        self._waiting: deque[_Entry] = deque()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, args=(n,), name=f"engine {n}", daemon=True)
            for n in range(engines)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, model: ServedModel, x: np.ndarray) -> Future[np.ndarray]:
        """Queue a batch (N, 3, H, W) that the model takes; return the future of its output.

        A future that is cancelled in time is not computed.

        Raises:
            RefusedError: 503 if too many pixels wait, or the server ends.
        """
        entry = _Entry(model, x)
        with self._changed:
            waiting = sum(other.pixels for other in self._waiting)
            if self._closing:
                raise RefusedError(503, "the server is ending")
            if self._waiting and waiting + entry.pixels > _WAITING_BATCHES * self._pixels:
                raise RefusedError(503, f"{waiting} pixels wait already; try again later")
            self._waiting.append(entry)
            self._changed.notify_all()
        return entry.future

    def waiting(self) -> int:
        """Return the number of requests that wait."""
        return len(self._waiting)

    def close(self) -> None:
        """Run what waits, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, engine: int) -> None:
        while entries := self._take():
            entries = [e for e in entries if e.future.set_running_or_notify_cancel()]
            if entries:
                self._run(engine, entries)

    def _take(self) -> list[_Entry]:
        """Wait for the next batch, and take it out of the queue; nothing at the end."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._closing:
                        return []
                    self._changed.wait()
                    continue
                entries, full = self._together()
                left = self._waiting[0].arrived + self._limits.batch_delay_s - time.monotonic()
                if full or left <= 0 or self._closing:
                    for entry in entries:
                        self._waiting.remove(entry)
                    return entries
                self._changed.wait(left)

    def _together(self) -> tuple[list[_Entry], bool]:
        """Return the requests of the next batch, and whether no further one fits."""
        first = self._waiting[0]
        most = first.model.fixed_rows or self._limits.batch_size
        entries, rows, pixels, full = [first], len(first.x), first.pixels, False
        for other in list(self._waiting)[1:]:
            if other.model is not first.model or other.x.shape[1:] != first.x.shape[1:]:
                continue
            rows, pixels = rows + len(other.x), pixels + other.pixels
            if rows > most or pixels > self._pixels:
                full = True
                break
            entries.append(other)
        full = full or rows >= most
        # 1, 2, 4, ...: engines prepare for each number of images that they meet.
        if first.model.fixed_rows is None:
            entries = entries[: 1 << (len(entries).bit_length() - 1)]
        return entries, full

    def _run(self, engine: int, entries: Sequence[_Entry]) -> None:
        started = time.monotonic()
        try:
            outputs = self._outputs(engine, entries)
        except Exception as error:
            if len(entries) == 1:
                entries[0].future.set_exception(error)
                return
            for entry in entries:  # one of them must not fail the others
                self._run(engine, [entry])
            return
        self._observe(
            entries[0].model.name, sum(len(e.x) for e in entries), time.monotonic() - started
        )
        for entry, output in zip(entries, outputs):
            entry.future.set_result(output)

    def _outputs(self, engine: int, entries: Sequence[_Entry]) -> list[np.ndarray]:
        model, parts = entries[0].model, [entry.x for entry in entries]
        output = model.run(engine, parts[0] if len(parts) == 1 else np.concatenate(parts))
        ends = np.cumsum([len(entry.x) for entry in entries]).tolist()
        return [output[end - len(entry.x) : end] for end, entry in zip(ends, entries)]
