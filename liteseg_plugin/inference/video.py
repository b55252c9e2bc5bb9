"""Videos, cameras and streams: their frames in, a video of overlays out."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import LitesegError
from liteseg_plugin.inference.frames import Frames, is_stream, name_of
from liteseg_plugin.inference.images import (
    CONFIDENCE,
    LABEL_MAPS,
    OVERLAYS,
    Result,
    check_results,
    check_utf8,
)
from liteseg_plugin.inference.pipeline import Extras, overlapped
from liteseg_plugin.inference.segmentation import Segmentation, require_confidence, write_label_map
from liteseg_plugin.inference.stream import StreamFrames
from liteseg_plugin.system.parallel import per_second
from liteseg_plugin.system.progress import progress_bar
from liteseg_plugin.visualization.overlay import legend_bar, overlay

if TYPE_CHECKING:
    from liteseg_plugin.inference.predictor import Predictor

_RATE_FRAMES = 30


def open_video(source: str, save_dir: str | os.PathLike) -> Frames:
    """Open a video, a camera or a stream, whose overlay is going to be written to a folder.

    Raises:
        DataError: If a path is not UTF-8, the overlay would overwrite the video, or it cannot be
            opened.
    """
    check_utf8(source, os.fspath(save_dir))
    check_results([source], [Result(str(_overlay_path(source, save_dir)), source)])
    return StreamFrames(source) if is_stream(source) else Frames(source)


def _overlay_path(source: str, save_dir: str | os.PathLike) -> Path:
    return Path(save_dir, OVERLAYS, f"{name_of(source)}.mp4")


@dataclass(frozen=True)
class SegmentedFrame:
    """What was written of a frame.

    Attributes:
        overlay: Path of the video.
        label: Path of the label map, or None.
        confidence: Path of the confidence, or None.
        picture: What the video shows, (H, W, 3) of uint8, BGR.
    """

    overlay: str
    label: str | None
    confidence: str | None
    picture: np.ndarray


def segment_source(
    predictor: Predictor,
    source: str,
    save_dir: str | os.PathLike,
    *,
    save_labels: bool,
    extras: Extras,
    in_window: bool,
) -> tuple[int, str | None]:
    """Segment the video or the camera that ``--image_path`` names, with a progress bar.

    Of ``extras`` it takes ``confidence`` and ``min_confidence``, for which the export must give
    probabilities. Takes and raises what :func:`open_video`, :func:`segment_video` and
    :func:`watch` do, which it calls; returns what the last does.
    """
    if in_window:
        require_display()

    def confident(frame: np.ndarray) -> Segmentation:
        return predictor.predict(frame).confident(extras.min_confidence)

    if extras.needs_confidence:
        require_confidence(predictor.exported)
    frames = open_video(source, save_dir)
    results = segment_video(
        confident if extras.needs_confidence else predictor,
        predictor.exported.named_classes(),
        frames,
        save_dir,
        legend=bool(predictor.exported.classes),
        save_labels=save_labels,
        save_confidence=extras.confidence,
    )
    return watch(results, frames, in_window=in_window)


def segment_video(
    segment: Callable[[np.ndarray], np.ndarray | Segmentation],
    classes: Sequence[ClassInfo],
    frames: Frames,
    save_dir: str | os.PathLike,
    *,
    legend: bool = True,
    save_labels: bool = False,
    save_confidence: bool = False,
) -> Generator[SegmentedFrame, None, None]:
    """Segment the frames of a video or a camera, and write a video of overlays.

    The next frames are read and the last ones written while the model runs. Stopping early
    leaves a video of the frames so far.

    Args:
        segment: Maps a frame to its class indices (H, W), as a :class:`Predictor` does; or, for
            ``save_confidence``, to labels with confidence.
        classes: In index order.
        frames: Where they come from; closed at the end.
        save_dir: Where ``added_prediction/NAME.mp4`` goes, with the frame rate. The video of a
            camera keeps its pace: frames are repeated where the model is slower.
        legend: Whether to list all classes below the picture.
        save_labels: Whether to write ``pseudo_color_prediction/NAME/000000.png`` (class indices
            with a palette) too.
        save_confidence: Whether to write ``confidence/NAME/000000.png`` (grey, 255 is 1) too.

    Yields:
        Each frame, as soon as it is written.

    Raises:
        DataError: If a frame cannot be read; those before it are written.
        OSError: If the video cannot be written.
    """
    folders = {LABEL_MAPS: save_labels, CONFIDENCE: save_confidence}
    names = [name for name, wanted in folders.items() if wanted]
    video = _OverlayVideo(classes, legend, frames, Path(save_dir), names)
    try:
        # One reader and one writer, which keep the order.
        yield from overlapped(
            segment,
            repeat(frames.read),
            video.write,
            workers=1,
            ahead=0 if frames.newest else None,
            stop=frames.stop,
        )
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
        of_frames: Sequence[str],
    ) -> None:
        self._classes, self._legend = classes, legend
        self._frames = frames
        self._of_frames = {name: folder / name / frames.name for name in of_frames}
        self._path = _overlay_path(frames.source, folder)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer: cv2.VideoWriter | None = None
        self._written = 0
        self._times: deque[float] = deque(maxlen=_RATE_FRAMES)
        self._started = time.perf_counter()

    def write(
        self, number: int, image: np.ndarray, result: np.ndarray | Segmentation
    ) -> SegmentedFrame:
        if isinstance(result, np.ndarray):
            result = Segmentation(image, result, self._classes)
        label = result.labels
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
        paths = {k: str(path / f"{number:06d}.png") for k, path in self._of_frames.items()}
        if LABEL_MAPS in paths:
            write_label_map(paths[LABEL_MAPS], label, self._classes)
        if CONFIDENCE in paths:
            result.save_confidence(paths[CONFIDENCE])
        return SegmentedFrame(
            str(self._path), paths.get(LABEL_MAPS), paths.get(CONFIDENCE), picture
        )

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
