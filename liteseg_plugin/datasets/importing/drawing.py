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
    """Draw the shapes of an annotation; those that cannot be drawn become notes.

    Args:
        file: The annotation.
        entries: Class name and mask of each shape.
        size_hw: Height and width of the picture.
    """
    for number, (name, draw) in enumerate(entries, start=1):
        try:
            shape = Shape.of(name, draw(size_hw))
            if shape is None:
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


def polygon(points: object, *, outline: bool = True) -> Draw:
    """Return a polygon as labelme draws it; without ``outline``, as Cityscapes does."""

    def draw(size_hw: tuple[int, int]) -> np.ndarray:
        corners = _pairs(points_of(points, 3))
        return _drawn(size_hw, lambda d: d.polygon(corners, fill=1, outline=int(outline) or None))

    return draw


def rectangle(points: object) -> Draw:
    """Return the upright rectangle of two opposite corners, as labelme draws it."""

    def draw(size_hw: tuple[int, int]) -> np.ndarray:
        corners = points_of(points, 2)
        box = _pairs(np.array([corners.min(0), corners.max(0)]))
        return _drawn(size_hw, lambda d: d.rectangle(box, fill=1, outline=1))

    return draw


def circle(points: object) -> Draw:
    """Return the circle of a centre and a point on it, as labelme draws it."""

    def draw(size_hw: tuple[int, int]) -> np.ndarray:
        (x, y), (edge_x, edge_y) = points_of(points, 2)[:2]
        radius = math.hypot(x - edge_x, y - edge_y)
        box = _pairs(np.array([[x - radius, y - radius], [x + radius, y + radius]]))
        return _drawn(size_hw, lambda d: d.ellipse(box, fill=1, outline=1))

    return draw


def line(points: object, width: int) -> Draw:
    """Return a line through points, ``width`` pixels wide, as labelme draws it."""

    def draw(size_hw: tuple[int, int]) -> np.ndarray:
        corners = _pairs(points_of(points, 2))
        return _drawn(size_hw, lambda d: d.line(corners, fill=1, width=width))

    return draw


def placed(mask: Callable[[], np.ndarray], left: int, top: int) -> Draw:
    """Return a mask of a part of the picture; what lies outside is cut off.

    Args:
        mask: Gives the mask (h, w), not 0 inside the shape.
        left: Column of its first column.
        top: Row of its first row.
    """

    def draw(size_hw: tuple[int, int]) -> np.ndarray:
        part = mask()
        whole = np.zeros(size_hw, np.uint8)
        rows, columns = (
            slice(max(0, start), max(0, start + n))
            for start, n in ((top, part.shape[0]), (left, part.shape[1]))
        )
        inside = whole[rows, columns]
        first_row, first_column = max(0, -top), max(0, -left)
        inside[:] = (
            part[
                first_row : first_row + inside.shape[0],
                first_column : first_column + inside.shape[1],
            ]
            != 0
        )
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


def _pairs(points: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _drawn(size_hw: tuple[int, int], draw: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    picture = Image.new("L", size_hw[::-1])
    draw(ImageDraw.Draw(picture))
    return np.array(picture)
