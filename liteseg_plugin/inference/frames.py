"""The frames of video files and cameras."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

import cv2
import numpy as np

from liteseg_plugin.errors import DataError
from liteseg_plugin.system.pixels import check_pixels

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
CAMERA = "camera:"
STREAM_SCHEMES = ("http", "https", "rtmp", "rtsp", "rtsps", "srt", "tcp", "udp")
"""Schemes of URLs that ``--image_path`` takes, as far as OpenCV's FFmpeg knows them."""

_USUAL_FPS = 25.0
_FASTEST_FPS = 240.0  # some containers state the ticks of their clock instead


def is_video(source: str) -> bool:
    """Whether a path names a video file by its suffix, a camera (``camera:0``) or a stream."""
    return (
        source.startswith(CAMERA)
        or is_stream(source)
        or Path(source).suffix.lower() in VIDEO_SUFFIXES
    )


def is_stream(source: str) -> bool:
    """Whether a source is a URL of a stream."""
    scheme, separator, _ = source.partition("://")
    return bool(separator) and scheme.lower() in STREAM_SCHEMES


def without_login(url: str) -> str:
    """Return a URL without user and password, for logs and names."""
    return re.sub(r"//[^/]*@", "//", url, count=1)


def name_of(source: str) -> str:
    """Return what the results of a video, a camera or a stream are called."""
    if is_stream(source):
        return re.sub(r"\W+", "_", without_login(source).partition("://")[2]).strip("_")
    if source.startswith(CAMERA):
        return f"camera_{source[len(CAMERA) :]}"
    return PurePath(source).stem


class Frames:
    """The frames of a video file or a camera, one after the other.

    Attributes:
        source: The file, or ``camera:`` and its number.
        live: Whether it is a camera or a stream, which end by Ctrl-C.
        newest: Whether frames are dropped that nobody read in time.
        name: What its results are called.
        fps: Frames per second that it states, or a common default.
        stated: Number of frames that it states, or None.

    Raises:
        DataError: If it cannot be opened.
    """

    newest = False

    def __init__(self, source: str) -> None:
        self.source = source
        self.live = source.startswith(CAMERA)
        self.name = name_of(source)
        if self.live:
            number = source[len(CAMERA) :]
            if not number.isdecimal():
                raise DataError(f"{source!r} is not a camera; the first is {CAMERA}0")
            self._capture = cv2.VideoCapture(int(number))
            problem = f"cannot open camera {number}: it is missing, in use, or not permitted"
        else:
            if not os.path.isfile(source):
                raise DataError(f"video not found: {source}")
            self._capture = cv2.VideoCapture(source)
            problem = f"cannot read video {source}: it is not a video, or is truncated"
        if not self._capture.isOpened():
            raise DataError(problem)
        self._describe()

    def _describe(self) -> None:
        self._read, self._seconds = 0, 0.0
        self._shape: tuple[int, ...] | None = None
        extents = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        check_pixels(self.source, *(int(self._capture.get(extent)) for extent in extents))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= _FASTEST_FPS else _USUAL_FPS
        stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.stated = int(stated) if stated > 0 and not self.live else None

    def read(self) -> np.ndarray | None:
        """Return the next frame, (H, W, 3) of uint8 in BGR, or None after the last.

        Raises:
            DataError: If there is no frame, if the size changes, if the file ends before
                the time that it states, or if the camera stops.
        """
        whole, frame = self._capture.read()
        if not whole:
            self._check_end()
            return None
        self._check_size(frame)
        # Containers of a varying frame rate give times, others only count.
        elapsed = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        self._seconds = max(elapsed, self._read / self.fps)
        return frame

    def stop(self) -> None:
        """End a :meth:`read` that waits for a frame; a file and a camera do not wait for long."""

    def close(self) -> None:
        """Release the file or the camera."""
        self._capture.release()

    def _check_size(self, frame: np.ndarray) -> None:
        if self._shape not in (None, frame.shape):
            raise DataError(
                f"{self.source}: frame {self._read} has another size than those before it"
            )
        self._shape = frame.shape
        self._read += 1

    def _check_end(self) -> None:
        if self.live:
            raise DataError(f"{self.source} gave no more frames after {self._read}")
        if not self._read:
            raise DataError(f"cannot read video {self.source}: it has no frame")
        seconds = (self.stated or 0) / self.fps
        # Counts are estimates in some containers, but not by half a second.
        if seconds - self._seconds > 0.5 + 0.02 * seconds:
            raise DataError(
                f"video {self.source} is truncated: it ends at {self._seconds:.1f} s of "
                f"{seconds:.1f} s; the {self._read} frames before are written"
            )
