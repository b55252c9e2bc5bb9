"""Video files and cameras: their frames in, a video of overlays out."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import cv2
import numpy as np

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import DataError, LitesegError
from liteseg_plugin.inference.images import (
    LABEL_MAPS,
    OVERLAYS,
    Result,
    check_results,
    check_utf8,
)
from liteseg_plugin.inference.pipeline import overlapped
from liteseg_plugin.inference.segmentation import write_label_map
from liteseg_plugin.system.parallel import per_second
from liteseg_plugin.system.pixels import check_pixels
from liteseg_plugin.system.progress import progress_bar
from liteseg_plugin.visualization.overlay import legend_bar, overlay

if TYPE_CHECKING:
    from liteseg_plugin.inference.predictor import Predictor

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
CAMERA = "camera:"

_USUAL_FPS = 25.0
_FASTEST_FPS = 240.0  # some containers state the ticks of their clock instead
_RATE_FRAMES = 30


def is_video(source: str) -> bool:
    """Whether a path names a video file by its suffix, or a camera (``camera:0``)."""
    return source.startswith(CAMERA) or Path(source).suffix.lower() in VIDEO_SUFFIXES


def open_video(source: str, save_dir: str | os.PathLike) -> Frames:
    """Open a video or a camera, whose overlay is going to be written to a folder.

    Raises:
        DataError: If a path is not UTF-8, the overlay would overwrite the video, or it cannot be
            opened.
    """
    check_utf8(source, os.fspath(save_dir))
    check_results([source], [Result(str(_overlay_path(source, save_dir)), source)])
    return Frames(source)


def _overlay_path(source: str, save_dir: str | os.PathLike) -> Path:
    return Path(save_dir, OVERLAYS, f"{_name_of(source)}.mp4")


def _name_of(source: str) -> str:
    if source.startswith(CAMERA):
        return f"camera_{source[len(CAMERA) :]}"
    return PurePath(source).stem


class Frames:
    """The frames of a video file or a camera, one after the other.

    Args:
        source: The file, or ``camera:`` and its number.

    Attributes:
        source: As given.
        live: Whether it is a camera.
        name: What its results are called.
        fps: Frames per second that it states, or a common default.
        stated: Number of frames that it states, or None.

    Raises:
        DataError: If it cannot be opened.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.live = source.startswith(CAMERA)
        self.name = _name_of(source)
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
        extents = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        check_pixels(source, *(int(self._capture.get(extent)) for extent in extents))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= _FASTEST_FPS else _USUAL_FPS
        stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.stated = int(stated) if stated > 0 and not self.live else None
        self._read, self._seconds = 0, 0.0
        self._shape: tuple[int, ...] | None = None

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
        if self._shape not in (None, frame.shape):
            raise DataError(
                f"{self.source}: frame {self._read} has another size than those before it"
            )
        self._shape = frame.shape
        self._read += 1
        # Containers of a varying frame rate give times, others only count.
        elapsed = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        self._seconds = max(elapsed, self._read / self.fps)
        return frame

    def close(self) -> None:
        """Release the file or the camera."""
        self._capture.release()

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


@dataclass(frozen=True)
class SegmentedFrame:
    """What was written of a frame.

    Attributes:
        overlay: Path of the video.
        label: Path of the label map, or None.
        picture: What the video shows, (H, W, 3) of uint8, BGR.
    """

    overlay: str
    label: str | None
    picture: np.ndarray


def segment_source(
    predictor: Predictor,
    source: str,
    save_dir: str | os.PathLike,
    *,
    save_labels: bool = False,
    in_window: bool = False,
) -> tuple[int, str | None]:
    """Segment the video or the camera that ``--image_path`` names, with a progress bar.

    Takes and raises what :func:`open_video`, :func:`segment_video` and :func:`watch` do, which
    it calls; returns what the last does.
    """
    if in_window:
        require_display()
    frames = open_video(source, save_dir)
    results = segment_video(
        predictor,
        predictor.exported.named_classes(),
        frames,
        save_dir,
        legend=bool(predictor.exported.classes),
        save_labels=save_labels,
    )
    return watch(results, frames, in_window=in_window)


def segment_video(
    segment: Callable[[np.ndarray], np.ndarray],
    classes: Sequence[ClassInfo],
    frames: Frames,
    save_dir: str | os.PathLike,
    *,
    legend: bool = True,
    save_labels: bool = False,
) -> Generator[SegmentedFrame, None, None]:
    """Segment the frames of a video or a camera, and write a video of overlays.

    The next frames are read and the last ones written while the model runs. Stopping early
    leaves a video of the frames so far.

    Args:
        segment: Maps a frame to its class indices (H, W); a :class:`Predictor`, for one.
        classes: In index order.
        frames: Where they come from; closed at the end.
        save_dir: Where ``added_prediction/NAME.mp4`` goes, with the frame rate. The video of a
            camera keeps its pace: frames are repeated where the model is slower.
        legend: Whether to list all classes below the picture.
        save_labels: Whether to write ``pseudo_color_prediction/NAME/000000.png`` (class indices
            with a palette) too.

    Yields:
        Each frame, as soon as it is written.

    Raises:
        DataError: If a frame cannot be read; those before it are written.
        OSError: If the video cannot be written.
    """
    video = _OverlayVideo(classes, legend, frames, Path(save_dir), save_labels)
    try:
        # One reader and one writer, which keep the order.
        yield from overlapped(segment, repeat(frames.read), video.write, workers=1)
    finally:
        video.close()
        frames.close()


def watch(
    results: Generator[SegmentedFrame, None, None], frames: Frames, *, in_window: bool = False
) -> tuple[int, str | None]:
    """Go through what :func:`segment_video` yields, with a progress bar.

    Ctrl-C ends a camera; it does not end the program.

    Args:
        results: What it yields.
        frames: What it was given.
        in_window: Whether to show each picture in a window, in which q or Esc ends.

    Returns:
        The number of frames, and the path of the video; None without any.
    """
    count, path = 0, None
    until = contextlib.suppress(KeyboardInterrupt) if frames.live else contextlib.nullcontext()
    with until, contextlib.closing(results):
        for result in progress_bar(results, total=frames.stated, unit="frame"):
            count, path = count + 1, result.overlay
            if in_window and not _show(result.picture, frames.source):
                break
    return count, path


def _show(picture: np.ndarray, title: str) -> bool:
    """Show a picture in a window; return whether the viewer wants more (q or Esc ends)."""
    cv2.imshow(title, picture)
    return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)


def require_display() -> None:
    """Check that a window can be opened; without a display, OpenCV ends the process.

    Raises:
        LitesegError: If there is no display.
    """
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise LitesegError("--show needs a display; without --show the video is written, too")


class _OverlayVideo:
    """What :func:`segment_video` writes."""

    def __init__(
        self,
        classes: Sequence[ClassInfo],
        legend: bool,
        frames: Frames,
        folder: Path,
        save_labels: bool,
    ) -> None:
        self._classes, self._legend = classes, legend
        self._frames = frames
        self._labels = folder / LABEL_MAPS / frames.name if save_labels else None
        self._path = _overlay_path(frames.source, folder)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer: cv2.VideoWriter | None = None
        self._written = 0
        self._times: deque[float] = deque(maxlen=_RATE_FRAMES)
        self._started = time.perf_counter()

    def write(self, number: int, image: np.ndarray, label: np.ndarray) -> SegmentedFrame:
        self._times.append(time.perf_counter())
        picture = overlay(image, label, self._classes)
        if len(self._times) > 1:
            rate = per_second(len(self._times) - 1, self._times[-1] - self._times[0])
            _write_corner(picture, f"{rate:.1f} frames/s")
        if self._legend:
            # Every class, so that the size stays as it is.
            picture = np.vstack([picture, legend_bar(self._classes, picture.shape[1])])
        self._writer = self._writer or self._open(picture)
        for _ in range(self._due()):
            self._writer.write(picture)
            self._written += 1
        path = None
        if self._labels:
            path = str(self._labels / f"{number:06d}.png")
            write_label_map(path, label, self._classes)
        return SegmentedFrame(str(self._path), path, picture)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def _due(self) -> int:
        if not self._frames.live:
            return 1
        elapsed = self._times[-1] - self._started
        return max(0, 1 + int(elapsed * self._frames.fps) - self._written)

    def _open(self, picture: np.ndarray) -> cv2.VideoWriter:
        codec = cv2.VideoWriter_fourcc(*"mp4v")
        size_wh = picture.shape[1::-1]
        writer = cv2.VideoWriter(str(self._path), codec, self._frames.fps, size_wh)
        if not writer.isOpened():
            raise OSError(f"cannot write {self._path}")
        return writer


def _write_corner(picture: np.ndarray, text: str) -> None:
    """Write a text in the upper left corner, readable on any background."""
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        place, font = (8, 18), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(picture, text, place, font, 0.5, color, thickness, cv2.LINE_AA)
