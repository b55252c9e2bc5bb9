"""Masks of shapes, by the rules of the tools that people draw them with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from liteseg_plugin.datasets.importing.records import Note, Shape

Draw = Callable[[tuple[int, int]], np.ndarray]
"""Gives a mask (H, W) of uint8 for a picture's height and width."""

_FARTHEST = 1 << 20  # Pillow and OpenCV compute with whole numbers of 32 bits


class BadShape(Exception):  # noqa: N818 - never leaves this package
    """A shape that cannot be drawn."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def draw_shapes(
    file: Path, entries: Iterable[tuple[str, Draw]], size_hw: tuple[int, int]
) -> Iterator[Shape | Note]:
    """Draw the shapes of an annotation; those that cannot be drawn become notes on its file."""
    for number, (name, draw) in enumerate(entries, start=1):
        try:
            shape = Shape.of(name, draw(size_hw))
            if not shape.mask.size:
                raise BadShape("outside", "it covers no pixel of the picture")
            yield shape
        except BadShape as error:
            yield Note(error.kind, str(file), f"shape {number} ({name}): {error}")


def points_of(values: object, least: int = 1) -> np.ndarray:
    """Return points (N, 2) of float64, x and y, of lists of numbers.

    Raises:
        BadShape: If they are not points, or fewer than ``least``.
    """
    try:
        points = np.array(values, np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise BadShape("not-points", "its points are not pairs of numbers") from None
    if not np.isfinite(points).all() or np.abs(points).max(initial=0) > _FARTHEST:
        raise BadShape("outside", "its coordinates are not finite, or far outside the picture")
    if len(points) < least:
        raise BadShape("few-points", f"it has {len(points)} points; it needs {least}")
    return points


def refuse(kind: str, message: str, size_hw: tuple[int, int]) -> np.ndarray:
    """Draw nothing, and say why: a shape that its reader knows cannot be drawn."""
    raise BadShape(kind, message)


def polygon(points: object, *, outline: bool = True) -> Draw:
    """Return a polygon as labelme draws it; without ``outline``, as Cityscapes does."""
    edge = int(outline) or None
    return _drawn(points, 3, lambda d, p: d.polygon(p.ravel().tolist(), fill=1, outline=edge))


def rectangle(points: object) -> Draw:
    """Return the upright rectangle of two opposite corners, as labelme draws it."""
    return _drawn(points, 2, lambda d, p: d.rectangle([*p.min(0), *p.max(0)], fill=1, outline=1))


def circle(points: object) -> Draw:
    """Return the circle of a centre and a point on it, as labelme draws it."""

    def draw(picture: ImageDraw.ImageDraw, points: np.ndarray) -> None:
        radius = math.hypot(*(points[0] - points[1]))
        box = [*(points[0] - radius), *(points[0] + radius)]
        picture.ellipse(box, fill=1, outline=1)

    return _drawn(points, 2, draw)


def line(points: object, width: int) -> Draw:
    """Return a line through points, ``width`` pixels wide, as labelme draws it."""
    return _drawn(points, 2, lambda d, p: d.line(p.ravel().tolist(), fill=1, width=width))


def placed(mask: Callable[[], np.ndarray], left: int, top: int) -> Draw:
    """Return a mask of a part of the picture; what lies outside is cut off.

    Args:
        mask: Gives the mask (h, w), not 0 inside the shape.
        left: Column of its first column.
        top: Row of its first row.
    """

    def draw(size_hw: tuple[int, int]) -> np.ndarray:
        part = mask()[max(0, -top) :, max(0, -left) :]
        whole = np.zeros(size_hw, np.uint8)
        inside = whole[max(0, top) :, max(0, left) :][: part.shape[0], : part.shape[1]]
        inside[:] = part[: inside.shape[0], : inside.shape[1]] != 0
        return whole

    return draw


def whole_points_polygon(points: object) -> Draw:
    """Return a polygon as Ultralytics draws it: by OpenCV, between whole coordinates.

    Coordinates become whole by dropping their fraction. Files round them to six digits of the
    picture's size, so that a hundredth of a pixel is added before.
    """

    def draw(size_hw: tuple[int, int]) -> np.ndarray:
        corners = points_of(points, 3) * size_hw[::-1]
        mask = np.zeros(size_hw, np.uint8)
        cv2.fillPoly(mask, [np.floor(corners + 0.01).astype(np.int32)], 1)
        return mask

    return draw


def rotated(points: np.ndarray, center: Sequence[float], degrees: float) -> np.ndarray:
    """Turn points (N, 2) clockwise, as they are seen, around a centre."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (points - center) @ turn + center


def _drawn(
    points: object, least: int, draw: Callable[[ImageDraw.ImageDraw, np.ndarray], None]
) -> Draw:
    """Return what draws at least so many points (N, 2) by Pillow."""

    def drawn(size_hw: tuple[int, int]) -> np.ndarray:
        picture = Image.new("L", size_hw[::-1])
        draw(ImageDraw.Draw(picture), points_of(points, least))
        return np.array(picture)

    return drawn
