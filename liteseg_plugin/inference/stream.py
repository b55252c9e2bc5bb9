"""The newest frame of a stream that OpenCV opens by its URL; a lost source is opened again."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
from paddleseg.utils import logger

from liteseg_plugin.errors import DataError
from liteseg_plugin.inference.frames import Frames, name_of, without_login

TIMEOUT_SECONDS = 10
"""How long opening, or the next frame, may take before a source counts as lost."""
GIVE_UP_SECONDS = 300
"""How long a lost source is opened again and again."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between attempts, doubled each time


class StreamFrames(Frames):
    """The newest frame of a stream, given by its URL.

    A thread reads all frames and keeps the last: a slow model gets no frames of the past.

    Raises:
        DataError: If it cannot be opened.
    """

    newest = True

    def __init__(self, source: str) -> None:
        self.source, self.name, self.live = without_login(source), name_of(source), True
        self._url = source
        self._capture = self._open()
        if not self._capture.isOpened():
            raise DataError(
                f"cannot open stream {self.source}: its server does not answer, has no such path, "
                "refuses the login, or sends what OpenCV does not read; FFmpeg's line above tells "
                "more"
            )
        self._describe()
        self._changed = threading.Condition()
        self._latest: np.ndarray | None = None
        self._error: DataError | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read_all, daemon=True)
        self._thread.start()

    def read(self) -> np.ndarray | None:
        """Return the newest frame that was not read yet, or None after :meth:`stop`.

        Waits for one, also while the source is lost.

        Raises:
            DataError: If the source is lost for ``GIVE_UP_SECONDS``, or the size changes.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._latest is not None or self._error or self._stopped.is_set()
            )
            if self._stopped.is_set():
                return None
            frame, self._latest = self._latest, None
            if frame is None and self._error:
                raise self._error
        if frame is not None:
            self._check_size(frame)
        return frame

    def stop(self) -> None:
        """End a :meth:`read` that waits."""
        with self._changed:
            self._stopped.set()
            self._changed.notify_all()

    def close(self) -> None:
        """Release the stream, once its thread has ended."""
        self.stop()
        self._thread.join()
        self._capture.release()

    def _open(self) -> cv2.VideoCapture:
        milliseconds = TIMEOUT_SECONDS * 1000
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
        return cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, limits)

    def _read_all(self) -> None:
        """Keep the newest frame, until the end."""
        while not self._stopped.is_set():
            whole, frame = self._capture.read()
            if not whole:
                if not self._stopped.is_set() and not self._reopen():
                    return
                continue
            with self._changed:
                self._latest = frame
                self._changed.notify_all()

    def _reopen(self) -> bool:
        """Open a lost source again; return whether that succeeded."""
        lost, wait = time.monotonic(), _FIRST_WAIT
        logger.warning(f"Lost {self.source} after {self._read} frames; opening it again")
        while not self._stopped.wait(wait):
            self._capture.release()
            self._capture = self._open()
            seconds = time.monotonic() - lost
            if self._capture.isOpened():
                logger.info(f"{self.source} is back after {seconds:.1f} s")
                return True
            if seconds > GIVE_UP_SECONDS:
                with self._changed:
                    self._error = DataError(
                        f"{self.source} is lost for {seconds:.0f} s; the {self._read} frames "
                        "before are written"
                    )
                    self._changed.notify_all()
                break
            wait = min(2 * wait, _LONGEST_WAIT)
            logger.warning(f"{self.source} does not answer; next attempt in {wait:.0f} s")
        return False
