"""One street scene: what stands where, painted far to near into an image and its label."""

from __future__ import annotations

from functools import partial
from typing import Callable, NamedTuple

import cv2
import numpy as np

from liteseg_plugin.datasets.base import IGNORE_INDEX
from liteseg_plugin.datasets.toy_street import painters
from liteseg_plugin.datasets.toy_street.canvas import (
    CAR_PAINTS,
    CLASS_INDEX,
    FAR,
    KERB,
    LEAVES,
    SUPERSAMPLE,
    WALL,
    Canvas,
    mix,
    pick,
    shade,
    strip,
)

MIN_SIDE: int = 32

# Strength of the surface grain by label, in grey levels.
_GRAIN = np.full(256, 5.0, np.float32)
_GRAIN[CLASS_INDEX["sky"]] = 1.5
_GRAIN[CLASS_INDEX["tree"]] = 11.0
_GRAIN[IGNORE_INDEX] = 2.0


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
                fence = partial(painters.paint_fence, length=length)
                things.append(_Thing(fence, side * (WALL - 0.1), far))
                # Behind the fence: sorted before it though the fence ends there.
                for deep in rng.uniform(2.0, 5.0, rng.integers(1, 3)):
                    things.append(_Thing(painters.paint_tree, side * (WALL + deep), far + 0.1))
            else:
                house = partial(painters.paint_building, length=length)
                things.append(_Thing(house, side * WALL, far))
            z = far
    return things


def _furnish_sidewalks(canvas: Canvas, rng: np.random.Generator) -> list[_Thing]:
    """Lamps, signs and trees along the kerbs, and people walking."""
    things = []
    for side in (-1, 1):
        x = side * (KERB + 0.55)
        near = canvas.nearest(x, 0.5)
        first = [painters.paint_lamp, painters.paint_sign]
        later = [painters.paint_tree, painters.paint_tree, painters.paint_lamp]
        for kinds in (first, later):
            rng.shuffle(kinds)  # type: ignore[arg-type]  # which takes any list
        for slot, paint in enumerate(first + later):
            z = near + rng.uniform(0.8, 2.0) + 2.5 * slot + 0.25 * slot**2
            shadow = (0.9, 0.5) if paint is painters.paint_tree else (0.3, 0.2)
            things.append(_Thing(paint, x, z, shadow))
        for _ in range(rng.integers(2, 4)):
            x = side * rng.uniform(KERB + 0.8, WALL - 1.4)
            z = canvas.nearest(x, 0.5) + rng.uniform(0.0, 4.0)
            things.append(_Thing(painters.paint_pedestrian, x, z, (0.5, 0.3)))
    return things


def _fill_road(canvas: Canvas, rng: np.random.Generator) -> list[_Thing]:
    """One or two riders near the camera, cars in both lanes behind them and at the kerbs."""
    things = []
    lanes = [-1.25, 1.25]
    rng.shuffle(lanes)
    for lane in lanes[: rng.integers(1, 3)]:
        x, z = lane + rng.uniform(-0.25, 0.25), rng.uniform(6.2, 9.0)
        things.append(_Thing(painters.paint_bicyclist, x, z, (0.9, 0.3)))
    for side, yaw in ((-1, np.pi), (1, 0.0)):
        slots = canvas.nearest(side * 2.75, 0.4) + np.arange(4) * 5.4 + rng.uniform(2.2, 4.0)
        parked = [(side * 2.75, z) for z in slots if rng.random() < 0.45]
        moving = [(side * 1.15, z) for z in (13.5, 21.0) if rng.random() < 0.55]
        for x, z in parked + moving or [(side * 1.15, 13.5)]:
            car = partial(painters.paint_car, yaw=yaw + rng.uniform(-0.06, 0.06))
            things.append(_Thing(car, x, z + rng.uniform(0, 1.5), (1.05, 2.3)))
    return things


def _paint_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """Gradient, sun glow and clouds; made small, as all of it is smooth."""
    height, width = (side // SUPERSAMPLE for side in canvas.label.shape)
    mood, horizon = canvas.mood, canvas.horizon / SUPERSAMPLE
    down = np.clip(np.arange(height, dtype=np.float32) / horizon, 0, 1)[:, None, None] ** 1.3
    sky = np.array(mood.zenith) + (np.array(mood.horizon) - mood.zenith) * down
    sky = np.repeat(sky.astype(np.float32), width, axis=1)

    rows, columns = np.ogrid[:height, :width]
    sun_x = width * (0.5 + canvas.sun_side * rng.uniform(0.02, 0.22))
    sun_y = horizon * rng.uniform(0.3, 0.8)
    distance = np.hypot(columns - sun_x, rows - sun_y).astype(np.float32) / width
    glow = np.exp(-distance / 0.16) + 2.5 * np.clip((0.026 - distance) / 0.006, 0, 1)
    sky += glow[..., None] * np.array(mood.sun, np.float32)

    clouds = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(3, 7)):
        x, y = rng.uniform(0, width), horizon * rng.uniform(0.05, 0.75)
        size = width * rng.uniform(0.04, 0.09)
        for dx in np.linspace(-1.6, 1.6, 6):
            rx = size * rng.uniform(0.4, 0.9)
            ry = size * rng.uniform(0.14, 0.42) * (1.9 - abs(dx)) / 1.4
            where = (round(x + dx * size), round(y - ry * 0.6))
            cv2.ellipse(clouds, where, (max(1, round(rx)), max(1, round(ry))), 0, 0, 360, 1.0, -1)
    clouds = cv2.GaussianBlur(clouds, (0, 0), width / 110)[..., None] * 0.72
    sky += (np.array(mix(mood.horizon, (255, 255, 255), 0.55), np.float32) - sky) * clouds
    size_wh = canvas.image.shape[1::-1]
    canvas.image[:] = cv2.resize(np.clip(sky, 0, 255).astype(np.uint8), size_wh)


def _paint_ground(canvas: Canvas, rng: np.random.Generator) -> None:
    """Far tree line, lawns, sidewalks with kerbs, and the road with its markings."""
    hills = canvas.pen("tree", FAR * 0.55)
    for x in np.linspace(-75, 75, 34):
        hills.disc(x, rng.uniform(-0.5, 1.6), rng.uniform(2.0, 3.6), pick(rng, LEAVES[:3]))
    lawn = canvas.pen("tree", 12)
    lawn.fill(strip(-90, 90), pick(rng, ((112, 156, 70), (96, 142, 64))))

    paving = pick(rng, ((188, 178, 168), (198, 192, 184), (178, 166, 158)), 0.05)
    asphalt = pick(rng, ((92, 94, 102), (104, 104, 108), (80, 84, 94)), 0.06)
    sidewalk, road = canvas.pen("sidewalk", 8), canvas.pen("road", 8)
    for side in (-1, 1):
        sidewalk.fill(strip(side * KERB, side * WALL), paving)
        for z in np.geomspace(2, 40, 26):
            joint = np.array([(side * KERB, 0, z), (side * WALL, 0, z)])
            canvas.pen("sidewalk", z).stroke(joint, 0.04, shade(paving, 0.86))
        sidewalk.fill(strip(side * (KERB + 1.6), side * (KERB + 1.66)), shade(paving, 0.86))
        sidewalk.fill(strip(side * (KERB - 0.12), side * (KERB + 0.14)), shade(paving, 1.2))
    road.fill(strip(-KERB + 0.1, KERB - 0.1), asphalt)
    paint = (236, 234, 222)
    for z in np.arange(rng.uniform(1.5, 4.5), 60, 4.5):
        road.fill(strip(-0.09, 0.09, z, z + 2.2), paint)
    for x in (-KERB + 0.45, KERB - 0.45):
        road.fill(strip(x - 0.05, x + 0.05), shade(paint, 0.9))
    if rng.random() < 0.4:
        z = rng.uniform(6, 11)
        for x in np.arange(-KERB + 0.6, KERB - 0.6, 0.9):
            road.fill(strip(x, x + 0.48, z, z + 2.6), paint)


def _cast_shadows(canvas: Canvas, things: list[_Thing]) -> None:
    """Darkens the ground under things, and beside the houses that the sun is behind."""
    height, width = (side // SUPERSAMPLE for side in canvas.label.shape)
    dark = np.zeros((height, width), np.uint8)
    sun = canvas.sun_side
    shapes = [strip(sun * WALL, sun * (KERB - 1.2))]
    for thing in things:
        (rx, rz), turn = thing.shadow, np.linspace(0, 2 * np.pi, 16)
        x = thing.x - sun * 0.5 * rx + 1.4 * rx * np.cos(turn)
        shapes.append(np.stack([x, 0 * turn, thing.z + 1.2 * rz * np.sin(turn)], axis=1))
    for shape in shapes:
        pixels = np.rint(canvas.project(shape) / SUPERSAMPLE).astype(np.int32)
        cv2.fillPoly(dark, [pixels], 255)
    dark = cv2.GaussianBlur(dark, (0, 0), width / 170)
    light = cv2.resize(255 - dark, canvas.image.shape[1::-1])
    light = cv2.addWeighted(light, 1 - canvas.mood.shadow, light, 0, 255 * canvas.mood.shadow)
    light[: int(canvas.horizon)] = 255
    canvas.image[:] = cv2.multiply(canvas.image, cv2.merge([light] * 3), scale=1 / 255)


def _paint_bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    """The camera car's own bonnet, which has no class: the label ignores it."""
    height, width = canvas.label.shape
    color = shade(pick(rng, CAR_PAINTS), 0.5)
    axes = (round(width * rng.uniform(0.34, 0.40)), round(height * rng.uniform(0.030, 0.038)))
    center = (width // 2, height - 1)
    cv2.ellipse(canvas.image, center, axes, 0, 180, 360, color, -1)
    cv2.ellipse(canvas.image, center, axes, 0, 180, 360, shade(color, 1.7), 2 * SUPERSAMPLE)
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
        rng: the only random source; its state determines the scene.
        resolution_wh: width and height in pixels, each at least `MIN_SIDE`.

    Returns:
        The image, BGR uint8 (H, W, 3), and the label, uint8 (H, W): indices into
        `camvid.CLASSES`, and `IGNORE_INDEX` on the camera car's bonnet.

    Raises:
        ValueError: a side is not an integer or is too small.
    """
    width, height = checked_resolution(resolution_wh)
    canvas = Canvas(rng, (width, height))
    things = _build_street(rng) + _furnish_sidewalks(canvas, rng) + _fill_road(canvas, rng)
    _paint_sky(canvas, rng)
    _paint_ground(canvas, rng)
    _cast_shadows(canvas, things)
    for thing in sorted(things, key=lambda thing: -thing.z):
        thing.paint(canvas, rng, thing.x, thing.z)
    if rng.random() < 0.75:
        _paint_bonnet(canvas, rng)

    centers = slice(SUPERSAMPLE // 2, None, SUPERSAMPLE)
    label = np.ascontiguousarray(canvas.label[centers, centers])
    image = cv2.resize(canvas.image, (width, height), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(_add_grain(image, label, rng), cv2.COLOR_RGB2BGR)
    return bgr, label


def checked_resolution(resolution_wh: tuple[int, int]) -> tuple[int, int]:
    """Return width and height; raises ValueError if a side is not an integer or is too small."""
    sides = tuple(resolution_wh)
    if len(sides) != 2 or not all(
        isinstance(n, (int, np.integer)) and n >= MIN_SIDE for n in sides
    ):
        raise ValueError(
            f"resolution_wh {resolution_wh}: must be (width, height), "
            f"two integers of at least {MIN_SIDE} pixels"
        )
    return int(sides[0]), int(sides[1])
