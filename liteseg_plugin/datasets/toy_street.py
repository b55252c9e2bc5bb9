"""Toy Street: a procedural street-scene data set with CamVid's 11 classes and layout.

It needs no download, so the quick start and the tests can train, evaluate and show something
within minutes. A scene is a small 3-D world in metres seen through a pinhole camera. Every shape
is painted far to near into the image and the label by one call, so the two cannot disagree.

World axes: x to the right of the road's centre line, y up from the ground, z ahead of the camera.
Colours are RGB until `render_scene` returns.
"""

from __future__ import annotations

import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

import cv2
import numpy as np

from liteseg_plugin.datasets.camvid import CLASS_NAMES, IGNORE_INDEX
from liteseg_plugin.system import progress_bar

FORMAT_VERSION: int = 1
MIN_SIDE: int = 32
RECORD_NAME: str = "toy_street.json"

_CLASS = {name: index for index, name in enumerate(CLASS_NAMES)}
_SPLITS = ("train", "val", "test")

# Odd, so that the label of a pixel is that of the exact centre of its block.
_SUPERSAMPLE = 3
_NEAR, _FAR = 1.2, 90.0
# Distances in metres from the road's centre line to the kerb and to the house fronts.
_KERB = 3.8
_WALL = 7.5

# Strength of the surface grain by label, in grey levels.
_GRAIN = np.full(256, 5.0, np.float32)
_GRAIN[_CLASS["sky"]] = 1.5
_GRAIN[_CLASS["tree"]] = 11.0
_GRAIN[IGNORE_INDEX] = 2.0

_Color = tuple[float, float, float]  # red, green, blue, 0..255


class _Mood(NamedTuple):
    """Time of day and weather."""

    zenith: _Color
    horizon: _Color
    light: _Color  # factors on every colour under the sky
    sun: _Color
    shadow: float  # brightness left in a shadow
    lit_windows: float  # share of windows with the light on


_MOODS = (
    _Mood((74, 144, 222), (208, 230, 246), (1.04, 1.03, 1.0), (60, 58, 40), 0.62, 0.0),
    _Mood((112, 172, 226), (255, 230, 200), (1.08, 1.02, 0.92), (90, 70, 40), 0.66, 0.05),
    _Mood((104, 142, 196), (255, 204, 140), (1.12, 0.96, 0.80), (140, 90, 30), 0.60, 0.15),
    _Mood((70, 74, 136), (246, 158, 132), (0.82, 0.73, 0.82), (120, 50, 30), 0.72, 0.55),
    _Mood((158, 172, 188), (222, 227, 230), (0.94, 0.96, 0.98), (0, 0, 0), 0.82, 0.12),
)

_FACADES = (
    (190, 84, 70), (232, 214, 184), (176, 166, 160), (214, 186, 168), (168, 76, 72),
    (222, 208, 200), (202, 122, 108), (196, 188, 206), (238, 222, 160),
)  # fmt: skip
_ROOFS = ((122, 62, 50), (96, 74, 70), (140, 78, 56), (84, 82, 92))
_IRON = ((46, 52, 66), (56, 58, 64), (40, 54, 60))
_LEAVES = ((66, 122, 50), (84, 140, 56), (52, 104, 58), (104, 146, 60), (178, 142, 52))
_CAR_PAINTS = (
    (206, 38, 42), (28, 84, 190), (240, 176, 30), (22, 148, 144), (232, 232, 236),
    (110, 36, 130), (236, 104, 30), (40, 44, 56),
)  # fmt: skip
_AWNINGS = ((170, 64, 60), (66, 92, 122), (112, 74, 104), (196, 180, 150))
_CLOTHES = ((220, 36, 84), (150, 56, 190), (238, 96, 160), (96, 70, 206), (200, 44, 140))
_SPORTSWEAR = ((214, 240, 40), (255, 134, 24), (40, 214, 226))
_TROUSERS = ((38, 42, 66), (52, 46, 44), (28, 30, 36))
_SKINS = ((240, 196, 164), (224, 172, 132), (168, 112, 78), (118, 76, 54))


def _shade(color: _Color, factor: float) -> _Color:
    return tuple(min(255.0, c * factor) for c in color)


def _mix(a: _Color, b: _Color, share: float) -> _Color:
    return tuple(p + (q - p) * share for p, q in zip(a, b))


def _pick(rng: np.random.Generator, colors: tuple[_Color, ...], spread: float = 0.1) -> _Color:
    color = colors[rng.integers(len(colors))]
    return _shade(color, rng.uniform(1 - spread, 1 + spread))


def _board(x: float, z: float, points: list[tuple[float, float]]) -> np.ndarray:
    """(dx, y) points of a flat shape that stands at (x, z), as world points (N, 3)."""
    return np.array([(x + dx, y, z) for dx, y in points])


def _circle(
    x: float, y: float, radius: float, *, corners: int = 18, squeeze: float = 1.0
) -> list[tuple[float, float]]:
    """Corners of a circle, or of an ellipse `squeeze` times as wide, around (x, y)."""
    turn = np.arange(corners) * (2 * np.pi / corners)
    return list(zip(x + radius * squeeze * np.cos(turn), y + radius * np.sin(turn)))


def _grid(quad: np.ndarray, us: list[tuple], vs: list[tuple]) -> np.ndarray:
    """Patches of a quad: every (u0, u1) of `us` by every (v0, v1) of `vs`, as (K, 4, 3).

    `quad` (4, 3) runs bottom left, bottom right, top right, top left; u and v are 0..1.
    """
    uv = np.array([[(a, c), (b, c), (b, d), (a, d)] for c, d in vs for a, b in us])
    u, v = uv[..., :1], uv[..., 1:]
    bottom = quad[0] + (quad[1] - quad[0]) * u
    top = quad[3] + (quad[2] - quad[3]) * u
    return bottom + (top - bottom) * v


def _spans(count: int, fill: float, start: float = 0.0, stop: float = 1.0) -> list[tuple]:
    """`count` evenly spaced intervals between `start` and `stop`, `fill` of the way covered."""
    step = (stop - start) / count
    gap = step * (1 - fill) / 2
    return [(start + i * step + gap, start + (i + 1) * step - gap) for i in range(count)]


class _Canvas:
    """The image, the label, and the camera and light that both are painted with."""

    def __init__(self, rng: np.random.Generator, resolution_wh: tuple[int, int]) -> None:
        width, height = (side * _SUPERSAMPLE for side in resolution_wh)
        self.image = np.zeros((height, width, 3), np.uint8)
        self.label = np.full((height, width), _CLASS["sky"], np.uint8)
        self.mood = _MOODS[rng.integers(len(_MOODS))]
        self.sun_side = int(rng.choice((-1, 1)))
        self.focal = 0.75 * width
        self.horizon = height * rng.uniform(0.46, 0.54)
        self.eye = np.array([rng.uniform(-0.2, 1.2), rng.uniform(1.6, 2.0), 0.0])
        self.curve = rng.uniform(-0.004, 0.004)

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) in metres to canvas pixels (..., 2)."""
        ahead = np.maximum(points[..., 2], _NEAR / 2)
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

    def pen(self, name: str, z: float) -> _Pen:
        return _Pen(self, _CLASS[name], z)


class _Pen:
    """Paints shapes of one class at one depth, which sets how much haze lies over them."""

    def __init__(self, canvas: _Canvas, class_index: int, z: float) -> None:
        self.canvas = canvas
        self.class_index = class_index
        self.z = z
        self.haze = min(0.75, (z / 110) ** 1.2)

    def _seen(self, color: _Color) -> _Color:
        mood = self.canvas.mood
        lit = tuple(min(255.0, c * factor) for c, factor in zip(color, mood.light))
        return _mix(lit, mood.horizon, self.haze)

    def fill(self, polygon: np.ndarray, color: _Color) -> None:
        """One polygon, (N, 3)."""
        self.fill_all(polygon[None], color)

    def fill_all(self, polygons: np.ndarray, color: _Color) -> None:
        """Polygons that do not overlap, (K, N, 3)."""
        pixels = list(np.rint(self.canvas.project(polygons)).astype(np.int32))
        cv2.fillPoly(self.canvas.image, pixels, self._seen(color))
        cv2.fillPoly(self.canvas.label, pixels, self.class_index)

    def disc(self, x: float, y: float, radius: float, color: _Color) -> None:
        column, row = np.rint(self.canvas.project(np.array([x, y, self.z]))).astype(int).tolist()
        pixels = max(1, round(self.canvas.focal * radius / self.z))
        cv2.circle(self.canvas.image, (column, row), pixels, self._seen(color), -1)
        cv2.circle(self.canvas.label, (column, row), pixels, self.class_index, -1)

    def stroke(self, points: np.ndarray, width: float, color: _Color) -> None:
        """A round-ended line through world points (N, 3), `width` metres thick."""
        pixels = [np.rint(self.canvas.project(points)).astype(np.int32)]
        thickness = max(1, round(self.canvas.focal * width / self.z))
        cv2.polylines(self.canvas.image, pixels, False, self._seen(color), thickness)
        cv2.polylines(self.canvas.label, pixels, False, self.class_index, thickness)


# --- painters: what stands at (x, z) -----------------------------------------------------------


def _paint_building(
    canvas: _Canvas, rng: np.random.Generator, x: float, z: float, *, length: float
) -> None:
    """A house whose street front runs from z - length to z."""
    side = np.sign(x)
    pen = canvas.pen("building", z - length / 2)
    floors = int(rng.integers(2, 5))
    height = floors * rng.uniform(2.7, 3.1) + 0.5
    z0, z1, back = z - length, z, x + side * 7.0
    facade, roof = _pick(rng, _FACADES), _pick(rng, _ROOFS)
    front_light = 1.06 if side != canvas.sun_side else 0.84
    ridge_x, ridge_y = x + side * 3.5, height + rng.uniform(2.0, 4.2)

    gable = np.array([(x, 0, z0), (back, 0, z0), (back, height, z0), (x, height, z0)])
    front = np.array([(x, 0, z0), (x, 0, z1), (x, height, z1), (x, height, z0)])
    eaves = np.array([(x, height, z0), (x, height, z1), (ridge_x, ridge_y, z1)])
    if rng.random() < 0.6:
        pen.fill(np.vstack([eaves, [(ridge_x, ridge_y, z0)]]), roof)
        gable = np.insert(gable, 3, (ridge_x, ridge_y, z0), axis=0)
    pen.fill(gable, _shade(facade, 0.92))
    pen.fill(front, _shade(facade, front_light))
    pen.fill_all(_grid(front, [(0, 1)], [(0, 0.04), (0.96, 1)]), _shade(facade, 0.7))
    if z0 > 45:
        return

    columns = max(2, round(length / 2.0))
    base = 1 / floors
    frames = _grid(front, _spans(columns, 0.62), _spans(floors - 1, 0.66, base))
    panes = _grid(front, _spans(columns, 0.46), _spans(floors - 1, 0.54, base))
    pen.fill_all(frames, _shade(facade, 1.22 * front_light))
    pen.fill_all(panes, (84, 108, 134))
    lit = rng.random(len(panes)) < canvas.mood.lit_windows
    pen.fill_all(panes[lit], (255, 226, 140))
    pen.fill_all(_grid(front, _spans(columns, 0.7), [(base * 0.12, base * 0.74)]), (62, 58, 62))
    if z0 > 6:
        lower = np.array([(back, 0, z0), (x, 0, z0), (x, height, z0), (back, height, z0)])
        pen.fill_all(_grid(lower, _spans(3, 0.34), _spans(floors, 0.44)), (84, 104, 126))
    awning = _pick(rng, _AWNINGS)
    pen.fill_all(_grid(front, _spans(columns, 0.84), [(base * 0.72, base * 0.94)]), awning)


def _paint_fence(
    canvas: _Canvas, rng: np.random.Generator, x: float, z: float, *, length: float
) -> None:
    """A fence from z - length to z: brown boards or green mesh."""
    pen = canvas.pen("fence", z - length / 2)
    height = rng.uniform(1.5, 1.8)
    z0 = z - length
    quad = np.array([(x, 0, z0), (x, 0, z), (x, height, z), (x, height, z0)])
    if rng.random() < 0.6:
        color = _pick(rng, ((184, 122, 52), (160, 100, 40), (204, 146, 74)))
        pen.fill(quad, _shade(color, 0.55))
        pen.fill_all(_grid(quad, _spans(round(length * 4), 0.68), [(0, 1)]), color)
        pen.fill_all(_grid(quad, [(0, 1)], [(0.22, 0.32), (0.7, 0.8)]), _shade(color, 1.15))
    else:
        color = _pick(rng, ((24, 116, 106), (20, 100, 112)))
        pen.fill(quad, _shade(color, 1.25))
        pen.fill_all(_grid(quad, _spans(round(length * 5), 0.35), [(0, 1)]), _shade(color, 0.8))
        pen.fill_all(_grid(quad, _spans(round(length / 2), 0.12), [(0, 1)]), _shade(color, 0.5))
        pen.fill_all(_grid(quad, [(0, 1)], [(0, 0.08), (0.48, 0.54), (0.9, 1)]), color)


def _paint_tree(canvas: _Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    pen = canvas.pen("tree", z)
    leaf = _pick(rng, _LEAVES)
    radius, trunk = rng.uniform(1.3, 1.9), rng.uniform(1.9, 2.6)
    slim = rng.random() < 0.3
    pen.stroke(_board(x, z, [(0, 0), (0, trunk + 1)]), 0.34, (104, 76, 54))
    rise = radius * (2.6 if slim else 1.5)
    # From the dark underside up to the sunlit top.
    for level in np.linspace(0, 1, 7):
        reach = radius * (1.05 - 0.8 * level if slim else np.sqrt(1 - (1.5 * level - 0.6) ** 2))
        for dx in rng.uniform(-reach, reach, 6):
            tone = 0.66 + 0.42 * level - 0.12 * canvas.sun_side * dx / radius
            color = _shade(leaf, tone * rng.uniform(0.88, 1.12))
            pen.disc(x + dx, trunk + 0.3 + level * rise, radius * rng.uniform(0.24, 0.42), color)


def _paint_lamp(canvas: _Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A street lamp whose arm reaches over the road."""
    pen = canvas.pen("pole", z)
    steel = _pick(rng, _IRON)
    height, inward = rng.uniform(4.4, 5.4), -np.sign(x)
    arm = [(0, height - 0.5), (inward * 0.25, height), (inward * 1.5, height + 0.2)]
    pen.stroke(_board(x, z, arm), 0.26, steel)
    pen.stroke(_board(x, z, [(0, 0), (0, height - 0.4)]), 0.40, steel)
    pen.stroke(_board(x, z, [(-0.1, 0.1), (-0.1, height - 0.4)]), 0.07, _shade(steel, 2.2))
    pen.stroke(_board(x, z, [(0, 0), (0, 0.7)]), 0.52, _shade(steel, 0.8))
    head = [(inward * 1.2, height + 0.2), (inward * 1.8, height + 0.2)]
    pen.stroke(_board(x, z, head), 0.36, (255, 240, 190))


def _paint_sign(canvas: _Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A traffic sign or a traffic light on a post."""
    post = canvas.pen("pole", z)
    pen = canvas.pen("sign_symbol", z)
    y, r = rng.uniform(2.3, 2.7), rng.uniform(0.48, 0.6)
    post.stroke(_board(x, z, [(0, 0), (0, y)]), 0.34, _pick(rng, _IRON))
    post.stroke(_board(x, z, [(-0.08, 0), (-0.08, y)]), 0.06, (112, 118, 130))
    red, blue, yellow, white = (214, 30, 40), (24, 86, 200), (252, 206, 20), (246, 246, 246)
    kind = rng.integers(5)
    if kind == 0:  # no entry
        pen.disc(x, y, r, red)
        pen.stroke(_board(x, z, [(-0.5 * r, y), (0.5 * r, y)]), 0.4 * r, white)
    elif kind == 1:  # speed limit
        pen.disc(x, y, r, red)
        pen.disc(x, y, 0.66 * r, white)
        three = [(-0.42, 0.3), (-0.12, 0.3), (-0.3, 0.03), (-0.1, -0.15), (-0.4, -0.3)]
        for digit in (three, _circle(0.26, 0, 0.3, squeeze=0.55)):
            digit = [(dx * r, y + dy * r) for dx, dy in digit]
            pen.stroke(_board(x, z, digit), 0.07, (30, 30, 34))
    elif kind == 2:  # keep right
        pen.disc(x, y, r, white)
        pen.disc(x, y, 0.9 * r, blue)
        pen.stroke(_board(x, z, [(-0.4 * r, y + 0.4 * r), (0.4 * r, y - 0.4 * r)]), 0.14, white)
    elif kind == 3:  # warning
        pen.fill(_board(x, z, _circle(0, y, 1.15 * r, corners=4)), (40, 36, 30))
        pen.fill(_board(x, z, _circle(0, y, 1.02 * r, corners=4)), yellow)
        pen.stroke(_board(x, z, [(0, y - 0.1 * r), (0, y + 0.5 * r)]), 0.13, (40, 36, 30))
        pen.disc(x, y - 0.4 * r, 0.07, (40, 36, 30))
    else:  # traffic light
        box = np.array([(-0.6, -1.25), (0.6, -1.25), (0.6, 1.25), (-0.6, 1.25)]) * r + (0, y)
        pen.fill(_board(x, z, (box * (1.18, 1) + (0, 0.12)).tolist()), yellow)
        pen.fill(_board(x, z, box.tolist()), (34, 38, 40))
        lamps = np.array([(255, 50, 40), (255, 190, 40), (60, 240, 120)])
        lamps[np.arange(3) != rng.integers(3)] //= 4
        for dy, lamp in zip((0.8, 0.0, -0.8), lamps.tolist()):
            pen.disc(x, y + dy * r, 0.33 * r, lamp)


def _frustum(bottom: tuple, top: tuple) -> list[np.ndarray]:
    """Rear, right, front and left side and then the lid of a box, (4, 3) each.

    `bottom` and `top` are (y, half width, rear z, front z) of a car-like body.
    """
    corners = []
    for y, half, rear, front in (bottom, top):
        corners.append([(-half, y, rear), (half, y, rear), (half, y, front), (-half, y, front)])
    low, high = np.array(corners)
    sides = [
        np.stack([low[i], low[j], high[j], high[i]]) for i, j in ((0, 1), (1, 2), (2, 3), (3, 0))
    ]
    return [*sides, high]


def _paint_car(
    canvas: _Canvas, rng: np.random.Generator, x: float, z: float, *, yaw: float
) -> None:
    """A car that drives along z where `yaw` (radians) is 0, toward the camera where it is pi."""
    pen = canvas.pen("car", z)
    paint = _pick(rng, _CAR_PAINTS)
    tall = rng.uniform(1.4, 1.62)
    turn = np.array(((np.cos(yaw), 0, -np.sin(yaw)), (0, 1, 0), (np.sin(yaw), 0, np.cos(yaw))))

    def world(points: np.ndarray) -> np.ndarray:
        return points @ turn + (x, 0, z)

    def far_to_near(faces: list[np.ndarray]) -> list[int]:
        order = sorted(range(4), key=lambda i: -np.linalg.norm(faces[i].mean(0) - canvas.eye))
        return [*order[:2], 4, *order[2:]]

    tones = (0.86, 0.78, 0.9, 0.78, 1.14)
    wheels = [np.array([(dx, y, dz) for dz, y in _circle(c, 0.34, 0.36)])
              for dx in (0.91, -0.91) for c in (-1.3, 1.3)]  # fmt: skip
    body = [world(f) for f in _frustum((0.3, 0.9, -2.1, 2.1), (0.9, 0.88, -2.05, 2.0))]
    cabin = [world(f) for f in _frustum((0.9, 0.86, -1.95, 1.0), (tall, 0.68, -1.5, 0.3))]
    for i in far_to_near(body):
        pen.fill(body[i], _shade(paint, tones[i]))
        if i != 4:
            pen.fill_all(_grid(body[i], [(0, 1)], [(0, 0.22)]), (50, 52, 56))
        if i in (0, 2):
            lamp = (235, 24, 24) if i == 0 else (255, 248, 214)
            pen.fill_all(_grid(body[i], [(0.03, 0.24), (0.76, 0.97)], [(0.52, 0.86)]), lamp)
            pen.fill_all(_grid(body[i], [(0.36, 0.64)], [(0.28, 0.5)]), (238, 238, 226))
        elif i in (1, 3):
            for wheel in wheels[:2] if i == 1 else wheels[2:]:
                pen.fill(world(wheel), (26, 26, 30))
                hub = wheel.mean(0)
                pen.fill(world(hub + (wheel - hub) * 0.5), (150, 152, 158))
    for i in far_to_near(cabin):
        pen.fill(cabin[i], _shade(paint, tones[i]))
        panes = [(0.1, 0.9)] if i in (0, 2) else [(0.1, 0.48), (0.54, 0.88)]
        if i != 4:
            pen.fill_all(_grid(cabin[i], panes, [(0.14, 0.84)]), (52, 66, 84))
            pen.fill_all(_grid(cabin[i], panes, [(0.6, 0.84)]), (96, 118, 140))


def _paint_pedestrian(canvas: _Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    pen = canvas.pen("pedestrian", z)
    s = rng.uniform(1.12, 1.32)
    stride, shirt = rng.uniform(0.08, 0.26), _pick(rng, _CLOTHES)
    trousers, skin = _pick(rng, _TROUSERS), _pick(rng, _SKINS, 0.05)

    def at(*points: tuple[float, float]) -> np.ndarray:
        return _board(x, z, [(dx * s, y * s) for dx, y in points])

    for foot, tone in ((-stride, 0.8), (stride, 1.1)):
        pen.stroke(
            at((0, 0.85), (foot * 0.6, 0.45), (foot, 0.06)), 0.21 * s, _shade(trousers, tone)
        )
    pen.stroke(at((-0.25, 1.35), (-0.36, 0.85)), 0.14 * s, _shade(shirt, 0.75))
    pen.fill(at((-0.3, 0.72), (0.3, 0.72), (0.3, 1.4), (0.1, 1.52), (-0.1, 1.52), (-0.3, 1.4)),
             shirt)  # fmt: skip
    pen.stroke(at((0.25, 1.35), (0.36, 0.88)), 0.14 * s, _shade(shirt, 0.88))
    pen.disc(x, 1.71 * s, 0.17 * s, _pick(rng, ((54, 38, 28), (24, 20, 20), (150, 106, 56))))
    pen.disc(x, 1.65 * s, 0.14 * s, skin)


def _paint_bicyclist(canvas: _Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A rider with a helmet, seen from the side or obliquely."""
    pen = canvas.pen("bicyclist", z)
    s = rng.uniform(1.15, 1.3)
    ahead = s * rng.uniform(0.78, 1.0) * rng.choice((-1, 1))
    shirt, frame = _pick(rng, _SPORTSWEAR), _pick(rng, _CAR_PAINTS[:2])

    def at(*points: tuple[float, float]) -> np.ndarray:
        return _board(x, z, [(dx * ahead, y * s) for dx, y in points])

    for hub in (-0.54, 0.54):
        for radius, color in ((0.38, (24, 24, 28)), (0.29, (168, 172, 176)), (0.06, (40, 40, 44))):
            pen.fill(at(*_circle(hub, 0.38, radius)), color)
    pen.stroke(
        at((-0.54, 0.38), (-0.2, 0.85), (0.4, 0.82), (0.0, 0.38), (-0.54, 0.38)), 0.13, frame
    )
    pen.stroke(at((0.54, 0.38), (0.38, 0.98), (0.5, 1.05)), 0.13, frame)
    pen.stroke(at((-0.18, 0.92), (0.2, 0.72), (0.04, 0.3)), 0.22 * s, _pick(rng, _TROUSERS))
    pen.fill(
        at((-0.34, 0.92), (-0.02, 0.86), (0.34, 1.36), (0.24, 1.56), (-0.04, 1.52), (-0.3, 1.2)),
        shirt,
    )
    pen.stroke(at((0.2, 1.36), (0.46, 1.06)), 0.14 * s, _shade(shirt, 0.8))
    head_x = x + 0.3 * ahead
    pen.disc(head_x, 1.66 * s, 0.16 * s, _pick(rng, _SKINS, 0.05))
    helmet = [(dx, y) for dx, y in _circle(0.3, 1.7, 0.2, corners=24) if y >= 1.69]
    pen.fill(at(*helmet), _pick(rng, ((250, 232, 40), (255, 96, 30), (40, 200, 240))))


# --- scenery ----------------------------------------------------------------------------------


def _paint_sky(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Gradient, sun glow and clouds; made small, as all of it is smooth."""
    height, width = (side // _SUPERSAMPLE for side in canvas.label.shape)
    mood, horizon = canvas.mood, canvas.horizon / _SUPERSAMPLE
    down = np.clip(np.arange(height, dtype=np.float32) / horizon, 0, 1)[:, None, None] ** 1.3
    sky = np.array(mood.zenith) + (np.array(mood.horizon) - mood.zenith) * down
    sky = np.repeat(sky.astype(np.float32), width, axis=1)

    rows, columns = np.ogrid[:height, :width]
    center = (
        width * (0.5 + canvas.sun_side * rng.uniform(0.02, 0.22)),
        horizon * rng.uniform(0.3, 0.8),
    )
    distance = np.hypot(columns - center[0], rows - center[1]).astype(np.float32) / width
    glow = np.exp(-distance / 0.16) + 2.5 * np.clip((0.026 - distance) / 0.006, 0, 1)
    sky += glow[..., None] * np.array(mood.sun, np.float32)

    clouds = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(3, 7)):
        x, y, size = (
            rng.uniform(0, width),
            horizon * rng.uniform(0.05, 0.75),
            width * rng.uniform(0.04, 0.09),
        )
        for dx in np.linspace(-1.6, 1.6, 6):
            puff = (
                size * rng.uniform(0.4, 0.9),
                size * rng.uniform(0.14, 0.42) * (1.9 - abs(dx)) / 1.4,
            )
            where = (round(x + dx * size), round(y - puff[1] * 0.6))
            cv2.ellipse(clouds, where, tuple(max(1, round(p)) for p in puff), 0, 0, 360, 1.0, -1)
    clouds = cv2.GaussianBlur(clouds, (0, 0), width / 110)[..., None] * 0.72
    sky += (np.array(_mix(mood.horizon, (255, 255, 255), 0.55), np.float32) - sky) * clouds
    size_wh = canvas.image.shape[1::-1]
    canvas.image[:] = cv2.resize(np.clip(sky, 0, 255).astype(np.uint8), size_wh)


def _strip(left: float, right: float, z0: float = _NEAR, z1: float = _FAR) -> np.ndarray:
    """A ribbon on the ground from z0 to z1, (N, 3); many points, as the street may bend."""
    z = np.geomspace(z0, z1, 20)
    edges = [np.stack([np.full_like(z, x), np.zeros_like(z), z], axis=1) for x in (left, right)]
    return np.vstack([edges[0], edges[1][::-1]])


def _paint_ground(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Far tree line, lawns, sidewalks with kerbs, and the road with its markings."""
    hills = canvas.pen("tree", _FAR * 0.55)
    for x in np.linspace(-75, 75, 34):
        hills.disc(x, rng.uniform(-0.5, 1.6), rng.uniform(2.0, 3.6), _pick(rng, _LEAVES[:3]))
    lawn = canvas.pen("tree", 12)
    lawn.fill(_strip(-90, 90), _pick(rng, ((112, 156, 70), (96, 142, 64))))

    paving = _pick(rng, ((188, 178, 168), (198, 192, 184), (178, 166, 158)), 0.05)
    asphalt = _pick(rng, ((92, 94, 102), (104, 104, 108), (80, 84, 94)), 0.06)
    sidewalk, road = canvas.pen("sidewalk", 8), canvas.pen("road", 8)
    for side in (-1, 1):
        sidewalk.fill(_strip(side * _KERB, side * _WALL), paving)
        for z in np.geomspace(2, 40, 26):
            joint = np.array([(side * _KERB, 0, z), (side * _WALL, 0, z)])
            canvas.pen("sidewalk", z).stroke(joint, 0.04, _shade(paving, 0.86))
        sidewalk.fill(_strip(side * (_KERB + 1.6), side * (_KERB + 1.66)), _shade(paving, 0.86))
        sidewalk.fill(_strip(side * (_KERB - 0.12), side * (_KERB + 0.14)), _shade(paving, 1.2))
    road.fill(_strip(-_KERB + 0.1, _KERB - 0.1), asphalt)
    paint = (236, 234, 222)
    for z in np.arange(rng.uniform(1.5, 4.5), 60, 4.5):
        road.fill(_strip(-0.09, 0.09, z, z + 2.2), paint)
    for x in (-_KERB + 0.45, _KERB - 0.45):
        road.fill(_strip(x - 0.05, x + 0.05), _shade(paint, 0.9))
    if rng.random() < 0.4:
        z = rng.uniform(6, 11)
        for x in np.arange(-_KERB + 0.6, _KERB - 0.6, 0.9):
            road.fill(_strip(x, x + 0.48, z, z + 2.6), paint)


class _Thing(NamedTuple):
    """Something to paint, and the half sizes in metres of its shadow on the ground."""

    paint: Callable
    x: float
    z: float
    shadow: tuple[float, float] = (0.0, 0.0)


def _build_street(rng: np.random.Generator) -> list[_Thing]:
    """Houses on both sides, with fenced gardens between them."""
    things = []
    garden_side = rng.choice((-1, 1))
    for side in (-1, 1):
        z = rng.uniform(1.5, 4.0)
        while z < 75:
            length = rng.uniform(5.5, 8.5)
            far = z + length
            # A garden on each side lies near where the houses come into view.
            first = 15 if side == garden_side else 19
            if z < first <= far or rng.random() < 0.3:
                fence = partial(_paint_fence, length=length)
                things.append(_Thing(fence, side * (_WALL - 0.1), far))
                # Behind the fence: sorted before it though the fence ends there.
                for deep in rng.uniform(2.0, 5.0, rng.integers(1, 3)):
                    things.append(_Thing(_paint_tree, side * (_WALL + deep), far + 0.1))
            else:
                house = partial(_paint_building, length=length)
                things.append(_Thing(house, side * _WALL, far))
            z = far
    return things


def _furnish_sidewalks(canvas: _Canvas, rng: np.random.Generator) -> list[_Thing]:
    """Lamps, signs and trees along the kerbs, and people walking."""
    things = []
    for side in (-1, 1):
        x = side * (_KERB + 0.55)
        near = canvas.nearest(x, 0.5)
        first = [_paint_lamp, _paint_sign]
        later = [_paint_tree, _paint_tree, _paint_lamp]
        rng.shuffle(first)
        rng.shuffle(later)
        for slot, paint in enumerate(first + later):
            z = near + rng.uniform(0.8, 2.0) + 2.5 * slot + 0.25 * slot**2
            things.append(_Thing(paint, x, z, (0.9, 0.5) if paint is _paint_tree else (0.3, 0.2)))
        for _ in range(rng.integers(2, 4)):
            x = side * rng.uniform(_KERB + 0.8, _WALL - 1.4)
            z = canvas.nearest(x, 0.5) + rng.uniform(0.0, 4.0)
            things.append(_Thing(_paint_pedestrian, x, z, (0.5, 0.3)))
    return things


def _fill_road(canvas: _Canvas, rng: np.random.Generator) -> list[_Thing]:
    """One or two riders near the camera, cars in both lanes behind them and at the kerbs."""
    things = []
    lanes = [-1.25, 1.25]
    rng.shuffle(lanes)
    for lane in lanes[: rng.integers(1, 3)]:
        x, z = lane + rng.uniform(-0.25, 0.25), rng.uniform(6.2, 9.0)
        things.append(_Thing(_paint_bicyclist, x, z, (0.9, 0.3)))
    for side, yaw in ((-1, np.pi), (1, 0.0)):
        slots = canvas.nearest(side * 2.75, 0.4) + np.arange(4) * 5.4 + rng.uniform(2.2, 4.0)
        parked = [(side * 2.75, z) for z in slots if rng.random() < 0.45]
        moving = [(side * 1.15, z) for z in (13.5, 21.0) if rng.random() < 0.55]
        for x, z in parked + moving or [(side * 1.15, 13.5)]:
            car = partial(_paint_car, yaw=yaw + rng.uniform(-0.06, 0.06))
            things.append(_Thing(car, x, z + rng.uniform(0, 1.5), (1.05, 2.3)))
    return things


def _cast_shadows(canvas: _Canvas, things: list[_Thing]) -> None:
    """Darkens the ground under things, and beside the houses that the sun is behind."""
    height, width = (side // _SUPERSAMPLE for side in canvas.label.shape)
    dark = np.zeros((height, width), np.uint8)
    sun = canvas.sun_side
    shapes = [_strip(sun * _WALL, sun * (_KERB - 1.2))]
    for thing in things:
        (rx, rz), turn = thing.shadow, np.linspace(0, 2 * np.pi, 16)
        x = thing.x - sun * 0.5 * rx + 1.4 * rx * np.cos(turn)
        shapes.append(np.stack([x, 0 * turn, thing.z + 1.2 * rz * np.sin(turn)], axis=1))
    for shape in shapes:
        pixels = np.rint(canvas.project(shape) / _SUPERSAMPLE).astype(np.int32)
        cv2.fillPoly(dark, [pixels], 255)
    dark = cv2.GaussianBlur(dark, (0, 0), width / 170)
    light = cv2.resize(255 - dark, canvas.image.shape[1::-1])
    light = cv2.addWeighted(light, 1 - canvas.mood.shadow, light, 0, 255 * canvas.mood.shadow)
    light[: int(canvas.horizon)] = 255
    canvas.image[:] = cv2.multiply(canvas.image, cv2.merge([light] * 3), scale=1 / 255)


def _paint_bonnet(canvas: _Canvas, rng: np.random.Generator) -> None:
    """The camera car's own bonnet, which has no class: the label ignores it."""
    height, width = canvas.label.shape
    color = _shade(_pick(rng, _CAR_PAINTS), 0.5)
    axes = (round(width * rng.uniform(0.34, 0.40)), round(height * rng.uniform(0.030, 0.038)))
    center = (width // 2, height - 1)
    cv2.ellipse(canvas.image, center, axes, 0, 180, 360, color, -1)
    cv2.ellipse(canvas.image, center, axes, 0, 180, 360, _shade(color, 1.7), 2 * _SUPERSAMPLE)
    cv2.ellipse(canvas.label, center, axes, 0, 180, 360, IGNORE_INDEX, -1)


def _add_grain(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fine and coarse noise of each class's strength over an image, uint8 (H, W, 3)."""
    height, width = label.shape
    fine = rng.standard_normal((height, width), np.float32)
    coarse = rng.standard_normal((-(-height // 4), -(-width // 4)), np.float32)
    noise = 0.6 * fine + 0.8 * cv2.resize(coarse, (width, height))
    grained = image + (_GRAIN[label] * noise)[..., None]
    return np.clip(grained, 0, 255).astype(np.uint8)


def render_scene(
    rng: np.random.Generator, resolution_wh: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Paints one street scene.

    Args:
        rng: the only source of chance; its state decides the scene.
        resolution_wh: width and height in pixels, each at least `MIN_SIDE`.

    Returns:
        The image, BGR uint8 (H, W, 3), and the label, uint8 (H, W): indices into
        `camvid.CLASSES`, and `camvid.IGNORE_INDEX` on the camera car's bonnet.

    Raises:
        ValueError: a side is not an integer or is too small.
    """
    width, height = _checked_resolution(resolution_wh)
    canvas = _Canvas(rng, (width, height))
    things = _build_street(rng) + _furnish_sidewalks(canvas, rng) + _fill_road(canvas, rng)
    _paint_sky(canvas, rng)
    _paint_ground(canvas, rng)
    _cast_shadows(canvas, things)
    for thing in sorted(things, key=lambda thing: -thing.z):
        thing.paint(canvas, rng, thing.x, thing.z)
    if rng.random() < 0.75:
        _paint_bonnet(canvas, rng)

    label = np.ascontiguousarray(
        canvas.label[_SUPERSAMPLE // 2 :: _SUPERSAMPLE, _SUPERSAMPLE // 2 :: _SUPERSAMPLE]
    )
    image = cv2.resize(canvas.image, (width, height), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(_add_grain(image, label, rng), cv2.COLOR_RGB2BGR)
    return bgr, label


def _checked_resolution(resolution_wh: tuple[int, int]) -> tuple[int, int]:
    sides = tuple(resolution_wh)
    if len(sides) != 2 or not all(
        isinstance(n, (int, np.integer)) and n >= MIN_SIDE for n in sides
    ):
        raise ValueError(
            f"resolution_wh {resolution_wh}: must be (width, height), "
            f"two integers of at least {MIN_SIDE} pixels"
        )
    return int(sides[0]), int(sides[1])


def _holds(dest: Path, record: dict) -> bool:
    """Whether `dest` is a whole copy of the data set that `record` describes."""
    try:
        if json.loads((dest / RECORD_NAME).read_text(encoding="utf-8")) != record:
            return False
        lists = [(dest / f"{split}.txt").read_text(encoding="utf-8") for split in _SPLITS]
    except (OSError, ValueError):
        return False
    return all((dest / name).is_file() for name in " ".join(lists).split())


def _write_png(path: Path, pixels: np.ndarray) -> None:
    # Not cv2.imwrite, which reports a full disk or a missing folder by a return value only.
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _write(root: Path, record: dict, *, progress: bool) -> None:
    """Renders every scene of `record` into the folder `root`, which must not exist."""
    for folder in ("images", "annot"):
        (root / folder).mkdir(parents=True)
    scenes = [(split, index) for split in _SPLITS for index in range(record[split])]
    lines = {split: [] for split in _SPLITS}
    for split, index in progress_bar(scenes, desc="Toy Street", unit="scene", disable=not progress):
        # A seed of its own for each scene: splits share none, and counts change none.
        rng = np.random.default_rng((record["seed"], _SPLITS.index(split), index))
        image, label = render_scene(rng, record["resolution_wh"])
        name = f"{split}_{index:04d}.png"
        _write_png(root / "images" / name, image)
        _write_png(root / "annot" / name, label)
        lines[split].append(f"images/{name} annot/{name}\n")
    for split in _SPLITS:
        (root / f"{split}.txt").write_text("".join(lines[split]), encoding="utf-8")
    (root / "labels.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")
    (root / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def generate(
    dest: str | os.PathLike,
    *,
    train: int = 160,
    val: int = 32,
    test: int = 16,
    resolution_wh: tuple[int, int] = (256, 192),
    seed: int = 2022,
    progress: bool = True,
) -> Path:
    """Writes the data set in CamVid's layout, or keeps it where `dest` already holds it.

    The layout: `images/*.png`, `annot/*.png` (8-bit class indices), `train.txt`, `val.txt` and
    `test.txt` with lines `images/x.png annot/x.png`, `labels.txt`, and `toy_street.json`, the
    record of the arguments. The folder appears under its name only when it is whole.
    The same arguments give the same pixels; OpenCV releases differ in a few on outlines.

    Args:
        dest: folder to make; its parents are made too.
        train: number of scenes to train on.
        val: number of scenes to validate on.
        test: number of scenes to test on.
        resolution_wh: width and height of every scene in pixels.
        seed: scene i of a split depends on the seed, the split and i, and on nothing else.
        progress: show a progress bar.

    Returns:
        `dest` as a `Path`.

    Raises:
        ValueError: a count or the seed is negative or no integer, no scene is asked for, or
            the resolution is too small.
        FileExistsError: `dest` exists and is not exactly this data set.

    Example:
        >>> root = generate("data/toy_street", train=8, val=2)  # doctest: +SKIP
    """
    counts = {"train": train, "val": val, "test": test}
    for name, value in {**counts, "seed": seed}.items():
        if not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"{name} {value!r}: must be an integer of at least 0")
    if not any(counts.values()):
        raise ValueError("train 0, val 0, test 0: at least one scene is needed")
    record = {
        "format_version": FORMAT_VERSION,
        **{name: int(count) for name, count in counts.items()},
        "resolution_wh": list(_checked_resolution(resolution_wh)),
        "seed": int(seed),
    }

    dest = Path(dest)
    if not os.path.lexists(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{dest.name}.", dir=dest.parent) as scratch:
            whole = Path(scratch) / "whole"
            _write(whole, record, progress=progress)
            try:
                whole.rename(dest)
            except OSError:
                # Another process may have made the same data set meanwhile.
                if not _holds(dest, record):
                    raise
    elif not _holds(dest, record):
        raise FileExistsError(
            f"{dest} exists and is not the Toy Street data set asked for ({record}); "
            f"choose another folder or remove this one"
        )
    return dest
