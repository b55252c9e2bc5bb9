"""What a street scene is painted with: camera, light, colours, and pens for image and label.

World axes: x to the right of the road's centre line, y up from the ground, z ahead of the camera.
Colours are RGB.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from liteseg_plugin.datasets.camvid import CLASS_NAMES

CLASS_INDEX = {name: index for index, name in enumerate(CLASS_NAMES)}

# Odd, so that the label of a pixel is that of the exact centre of its block.
SUPERSAMPLE = 3
NEAR, FAR = 1.2, 90.0
# Distances in metres from the road's centre line to the kerb and to the house fronts.
KERB = 3.8
WALL = 7.5

Color = tuple[float, float, float]  # red, green, blue, 0..255


class Mood(NamedTuple):
    """Time of day and weather."""

    zenith: Color
    horizon: Color
    light: Color  # factors on every colour under the sky
    sun: Color
    shadow: float  # brightness left in a shadow
    lit_windows: float  # share of windows with the light on


MOODS = (
    Mood((74, 144, 222), (208, 230, 246), (1.04, 1.03, 1.0), (60, 58, 40), 0.62, 0.0),
    Mood((112, 172, 226), (255, 230, 200), (1.08, 1.02, 0.92), (90, 70, 40), 0.66, 0.05),
    Mood((104, 142, 196), (255, 204, 140), (1.12, 0.96, 0.80), (140, 90, 30), 0.60, 0.15),
    Mood((70, 74, 136), (246, 158, 132), (0.82, 0.73, 0.82), (120, 50, 30), 0.72, 0.55),
    Mood((158, 172, 188), (222, 227, 230), (0.94, 0.96, 0.98), (0, 0, 0), 0.82, 0.12),
)

LEAVES = ((66, 122, 50), (84, 140, 56), (52, 104, 58), (104, 146, 60), (178, 142, 52))
CAR_PAINTS = (
    (206, 38, 42), (28, 84, 190), (240, 176, 30), (22, 148, 144), (232, 232, 236),
    (110, 36, 130), (236, 104, 30), (40, 44, 56),
)  # fmt: skip


def shade(color: Color, factor: float) -> Color:
    """Return a colour `factor` times as bright."""
    red, green, blue = (min(255.0, c * factor) for c in color)
    return red, green, blue


def mix(a: Color, b: Color, share: float) -> Color:
    """Return `a` with a share (0..1) of `b`."""
    red, green, blue = (p + (q - p) * share for p, q in zip(a, b))
    return red, green, blue


def pick(rng: np.random.Generator, colors: tuple[Color, ...], spread: float = 0.1) -> Color:
    """Draw one of the colours, up to `spread` brighter or darker."""
    color = colors[rng.integers(len(colors))]
    return shade(color, rng.uniform(1 - spread, 1 + spread))


def board(x: float, z: float, points: list[tuple[float, float]]) -> np.ndarray:
    """(dx, y) points of a flat shape that stands at (x, z), as world points (N, 3)."""
    return np.array([(x + dx, y, z) for dx, y in points])


def circle(
    x: float, y: float, radius: float, *, corners: int = 18, squeeze: float = 1.0
) -> list[tuple[float, float]]:
    """Corners of a circle, or of an ellipse `squeeze` times as wide, around (x, y)."""
    turn = np.arange(corners) * (2 * np.pi / corners)
    return list(zip(x + radius * squeeze * np.cos(turn), y + radius * np.sin(turn)))


def grid(quad: np.ndarray, us: list[tuple], vs: list[tuple]) -> np.ndarray:
    """Patches of a quad: every (u0, u1) of `us` by every (v0, v1) of `vs`, as (K, 4, 3).

    `quad` (4, 3) runs bottom left, bottom right, top right, top left; u and v are 0..1.
    """
    uv = np.array([[(a, c), (b, c), (b, d), (a, d)] for c, d in vs for a, b in us])
    u, v = uv[..., :1], uv[..., 1:]
    bottom = quad[0] + (quad[1] - quad[0]) * u
    top = quad[3] + (quad[2] - quad[3]) * u
    return bottom + (top - bottom) * v


def spans(count: int, fill: float, start: float = 0.0) -> list[tuple]:
    """`count` evenly spaced intervals between `start` and 1, `fill` of the way covered."""
    step = (1 - start) / count
    gap = step * (1 - fill) / 2
    return [(start + i * step + gap, start + (i + 1) * step - gap) for i in range(count)]


def strip(left: float, right: float, z0: float = NEAR, z1: float = FAR) -> np.ndarray:
    """A ribbon on the ground from z0 to z1, (N, 3); many points, as the street may bend."""
    z = np.geomspace(z0, z1, 20)
    edges = [np.stack([np.full_like(z, x), np.zeros_like(z), z], axis=1) for x in (left, right)]
    return np.vstack([edges[0], edges[1][::-1]])


class Canvas:
    """The image, the label, and the camera and light that both are painted with."""

    def __init__(self, rng: np.random.Generator, resolution_wh: tuple[int, int]) -> None:
        width, height = (side * SUPERSAMPLE for side in resolution_wh)
        self.image = np.zeros((height, width, 3), np.uint8)
        self.label = np.full((height, width), CLASS_INDEX["sky"], np.uint8)
        self.mood = MOODS[rng.integers(len(MOODS))]
        self.sun_side = int(rng.choice((-1, 1)))
        self.focal = 0.75 * width
        self.horizon = height * rng.uniform(0.46, 0.54)
        self.eye = np.array([rng.uniform(-0.2, 1.2), rng.uniform(1.6, 2.0), 0.0])
        self.curve = rng.uniform(-0.004, 0.004)

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) in metres to canvas pixels (..., 2)."""
        ahead = np.maximum(points[..., 2], NEAR / 2)
        scale = self.focal / ahead
        right = points[..., 0] - self.eye[0] + self.curve * ahead * ahead
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.image.shape[1] / 2 + scale * right
        pixels[..., 1] = self.horizon - scale * (points[..., 1] - self.eye[1])
        return pixels

    def nearest(self, x: float, margin: float = 0.7) -> float:
        """The smallest z in metres at which something at x is in view with `margin` to spare."""
        reach = abs(x - self.eye[0]) + margin
        return reach * 2 * self.focal / self.image.shape[1]

    def pen(self, name: str, z: float) -> Pen:
        """Return a pen for a class at a depth in metres."""
        return Pen(self, CLASS_INDEX[name], z)


class Pen:
    """Paints shapes of one class at one depth, which sets how much haze lies over them."""

    def __init__(self, canvas: Canvas, class_index: int, z: float) -> None:
        self.canvas = canvas
        self.class_index = class_index
        self.z = z
        self.haze = min(0.75, (z / 110) ** 1.2)

    def _seen(self, color: Color) -> Color:
        mood = self.canvas.mood
        red, green, blue = (min(255.0, c * factor) for c, factor in zip(color, mood.light))
        return mix((red, green, blue), mood.horizon, self.haze)

    def fill(self, polygon: np.ndarray, color: Color) -> None:
        """One polygon, (N, 3)."""
        self.fill_all(polygon[None], color)

    def fill_all(self, polygons: np.ndarray, color: Color) -> None:
        """Polygons that do not overlap, (K, N, 3)."""
        pixels = list(np.rint(self.canvas.project(polygons)).astype(np.int32))
        cv2.fillPoly(self.canvas.image, pixels, self._seen(color))
        cv2.fillPoly(self.canvas.label, pixels, self.class_index)

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        """Paint a disc of `radius` metres around (x, y)."""
        column, row = np.rint(self.canvas.project(np.array([x, y, self.z]))).astype(int).tolist()
        pixels = max(1, round(self.canvas.focal * radius / self.z))
        cv2.circle(self.canvas.image, (column, row), pixels, self._seen(color), -1)
        cv2.circle(self.canvas.label, (column, row), pixels, self.class_index, -1)

    def stroke(self, points: np.ndarray, width: float, color: Color) -> None:
        """A round-ended line through world points (N, 3), `width` metres thick."""
        pixels = [np.rint(self.canvas.project(points)).astype(np.int32)]
        thickness = max(1, round(self.canvas.focal * width / self.z))
        cv2.polylines(self.canvas.image, pixels, False, self._seen(color), thickness)
        cv2.polylines(self.canvas.label, pixels, False, self.class_index, thickness)
