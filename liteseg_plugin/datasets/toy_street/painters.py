"""Houses, fences, trees, lamps, signs, cars and people: each painter paints one at (x, z)."""

from __future__ import annotations

import numpy as np

from liteseg_plugin.datasets.toy_street.canvas import (
    CAR_PAINTS,
    LEAVES,
    Canvas,
    board,
    circle,
    grid,
    pick,
    shade,
    spans,
)

_FACADES = (
    (190, 84, 70), (232, 214, 184), (176, 166, 160), (214, 186, 168), (168, 76, 72),
    (222, 208, 200), (202, 122, 108), (196, 188, 206), (238, 222, 160),
)  # fmt: skip
_ROOFS = ((122, 62, 50), (96, 74, 70), (140, 78, 56), (84, 82, 92))
_IRON = ((46, 52, 66), (56, 58, 64), (40, 54, 60))
_AWNINGS = ((170, 64, 60), (66, 92, 122), (112, 74, 104), (196, 180, 150))
_CLOTHES = ((220, 36, 84), (150, 56, 190), (238, 96, 160), (96, 70, 206), (200, 44, 140))
_SPORTSWEAR = ((214, 240, 40), (255, 134, 24), (40, 214, 226))
_TROUSERS = ((38, 42, 66), (52, 46, 44), (28, 30, 36))
_SKINS = ((240, 196, 164), (224, 172, 132), (168, 112, 78), (118, 76, 54))


def paint_building(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, length: float
) -> None:
    """A house whose street front runs from z - length to z."""
    side = np.sign(x)
    pen = canvas.pen("building", z - length / 2)
    floors = int(rng.integers(2, 5))
    height = floors * rng.uniform(2.7, 3.1) + 0.5
    z0, z1, back = z - length, z, x + side * 7.0
    facade, roof = pick(rng, _FACADES), pick(rng, _ROOFS)
    front_light = 1.06 if side != canvas.sun_side else 0.84
    ridge_x, ridge_y = x + side * 3.5, height + rng.uniform(2.0, 4.2)

    gable = np.array([(x, 0, z0), (back, 0, z0), (back, height, z0), (x, height, z0)])
    front = np.array([(x, 0, z0), (x, 0, z1), (x, height, z1), (x, height, z0)])
    eaves = np.array([(x, height, z0), (x, height, z1), (ridge_x, ridge_y, z1)])
    if rng.random() < 0.6:
        pen.fill(np.vstack([eaves, [(ridge_x, ridge_y, z0)]]), roof)
        gable = np.insert(gable, 3, (ridge_x, ridge_y, z0), axis=0)
    pen.fill(gable, shade(facade, 0.92))
    pen.fill(front, shade(facade, front_light))
    pen.fill_all(grid(front, [(0, 1)], [(0, 0.04), (0.96, 1)]), shade(facade, 0.7))
    if z0 > 45:
        return

    columns = max(2, round(length / 2.0))
    base = 1 / floors
    frames = grid(front, spans(columns, 0.62), spans(floors - 1, 0.66, base))
    panes = grid(front, spans(columns, 0.46), spans(floors - 1, 0.54, base))
    pen.fill_all(frames, shade(facade, 1.22 * front_light))
    pen.fill_all(panes, (84, 108, 134))
    lit = rng.random(len(panes)) < canvas.mood.lit_windows
    pen.fill_all(panes[lit], (255, 226, 140))
    pen.fill_all(grid(front, spans(columns, 0.7), [(base * 0.12, base * 0.74)]), (62, 58, 62))
    if z0 > 6:
        lower = np.array([(back, 0, z0), (x, 0, z0), (x, height, z0), (back, height, z0)])
        pen.fill_all(grid(lower, spans(3, 0.34), spans(floors, 0.44)), (84, 104, 126))
    awning = pick(rng, _AWNINGS)
    pen.fill_all(grid(front, spans(columns, 0.84), [(base * 0.72, base * 0.94)]), awning)


def paint_fence(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, length: float
) -> None:
    """A fence from z - length to z: brown boards or green mesh."""
    pen = canvas.pen("fence", z - length / 2)
    height = rng.uniform(1.5, 1.8)
    z0 = z - length
    quad = np.array([(x, 0, z0), (x, 0, z), (x, height, z), (x, height, z0)])
    if rng.random() < 0.6:
        color = pick(rng, ((184, 122, 52), (160, 100, 40), (204, 146, 74)))
        pen.fill(quad, shade(color, 0.55))
        pen.fill_all(grid(quad, spans(round(length * 4), 0.68), [(0, 1)]), color)
        pen.fill_all(grid(quad, [(0, 1)], [(0.22, 0.32), (0.7, 0.8)]), shade(color, 1.15))
    else:
        color = pick(rng, ((24, 116, 106), (20, 100, 112)))
        pen.fill(quad, shade(color, 1.25))
        pen.fill_all(grid(quad, spans(round(length * 5), 0.35), [(0, 1)]), shade(color, 0.8))
        pen.fill_all(grid(quad, spans(round(length / 2), 0.12), [(0, 1)]), shade(color, 0.5))
        pen.fill_all(grid(quad, [(0, 1)], [(0, 0.08), (0.48, 0.54), (0.9, 1)]), color)


def paint_tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A tree, round or slim."""
    pen = canvas.pen("tree", z)
    leaf = pick(rng, LEAVES)
    radius, trunk = rng.uniform(1.3, 1.9), rng.uniform(1.9, 2.6)
    slim = rng.random() < 0.3
    pen.stroke(board(x, z, [(0, 0), (0, trunk + 1)]), 0.34, (104, 76, 54))
    rise = radius * (2.6 if slim else 1.5)
    # From the dark underside up to the sunlit top.
    for level in np.linspace(0, 1, 7):
        reach = radius * (1.05 - 0.8 * level if slim else np.sqrt(1 - (1.5 * level - 0.6) ** 2))
        for dx in rng.uniform(-reach, reach, 6):
            tone = 0.66 + 0.42 * level - 0.12 * canvas.sun_side * dx / radius
            color = shade(leaf, tone * rng.uniform(0.88, 1.12))
            pen.disc(x + dx, trunk + 0.3 + level * rise, radius * rng.uniform(0.24, 0.42), color)


def paint_lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A street lamp whose arm reaches over the road."""
    pen = canvas.pen("pole", z)
    steel = pick(rng, _IRON)
    height, inward = rng.uniform(4.4, 5.4), -np.sign(x)
    arm = [(0, height - 0.5), (inward * 0.25, height), (inward * 1.5, height + 0.2)]
    pen.stroke(board(x, z, arm), 0.26, steel)
    pen.stroke(board(x, z, [(0, 0), (0, height - 0.4)]), 0.40, steel)
    pen.stroke(board(x, z, [(-0.1, 0.1), (-0.1, height - 0.4)]), 0.07, shade(steel, 2.2))
    pen.stroke(board(x, z, [(0, 0), (0, 0.7)]), 0.52, shade(steel, 0.8))
    head = [(inward * 1.2, height + 0.2), (inward * 1.8, height + 0.2)]
    pen.stroke(board(x, z, head), 0.36, (255, 240, 190))


def paint_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A traffic sign or a traffic light on a post."""
    post = canvas.pen("pole", z)
    pen = canvas.pen("sign_symbol", z)
    y, r = rng.uniform(2.3, 2.7), rng.uniform(0.48, 0.6)
    post.stroke(board(x, z, [(0, 0), (0, y)]), 0.34, pick(rng, _IRON))
    post.stroke(board(x, z, [(-0.08, 0), (-0.08, y)]), 0.06, (112, 118, 130))
    red, blue, yellow, white = (214, 30, 40), (24, 86, 200), (252, 206, 20), (246, 246, 246)
    kind = rng.integers(5)
    if kind == 0:  # no entry
        pen.disc(x, y, r, red)
        pen.stroke(board(x, z, [(-0.5 * r, y), (0.5 * r, y)]), 0.4 * r, white)
    elif kind == 1:  # speed limit
        pen.disc(x, y, r, red)
        pen.disc(x, y, 0.66 * r, white)
        three = [(-0.42, 0.3), (-0.12, 0.3), (-0.3, 0.03), (-0.1, -0.15), (-0.4, -0.3)]
        for digit in (three, circle(0.26, 0, 0.3, squeeze=0.55)):
            digit = [(dx * r, y + dy * r) for dx, dy in digit]
            pen.stroke(board(x, z, digit), 0.07, (30, 30, 34))
    elif kind == 2:  # keep right
        pen.disc(x, y, r, white)
        pen.disc(x, y, 0.9 * r, blue)
        pen.stroke(board(x, z, [(-0.4 * r, y + 0.4 * r), (0.4 * r, y - 0.4 * r)]), 0.14, white)
    elif kind == 3:  # warning
        pen.fill(board(x, z, circle(0, y, 1.15 * r, corners=4)), (40, 36, 30))
        pen.fill(board(x, z, circle(0, y, 1.02 * r, corners=4)), yellow)
        pen.stroke(board(x, z, [(0, y - 0.1 * r), (0, y + 0.5 * r)]), 0.13, (40, 36, 30))
        pen.disc(x, y - 0.4 * r, 0.07, (40, 36, 30))
    else:  # traffic light
        box = np.array([(-0.6, -1.25), (0.6, -1.25), (0.6, 1.25), (-0.6, 1.25)]) * r + (0, y)
        pen.fill(board(x, z, (box * (1.18, 1) + (0, 0.12)).tolist()), yellow)
        pen.fill(board(x, z, box.tolist()), (34, 38, 40))
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
    next_low, next_high = np.roll((low, high), -1, axis=1)
    return [*np.stack([low, next_low, next_high, high], axis=1), high]


def paint_car(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, yaw: float) -> None:
    """A car that drives along z where `yaw` (radians) is 0, toward the camera where it is pi."""
    pen = canvas.pen("car", z)
    paint = pick(rng, CAR_PAINTS)
    tall = rng.uniform(1.4, 1.62)
    turn = np.array(((np.cos(yaw), 0, -np.sin(yaw)), (0, 1, 0), (np.sin(yaw), 0, np.cos(yaw))))

    def world(points: np.ndarray) -> np.ndarray:
        return points @ turn + (x, 0, z)

    def far_to_near(faces: list[np.ndarray]) -> list[int]:
        order = sorted(range(4), key=lambda i: -np.linalg.norm(faces[i].mean(0) - canvas.eye))
        return [*order[:2], 4, *order[2:]]

    tones = (0.86, 0.78, 0.9, 0.78, 1.14)
    wheels = [np.array([(dx, y, dz) for dz, y in circle(c, 0.34, 0.36)])
              for dx in (0.91, -0.91) for c in (-1.3, 1.3)]  # fmt: skip
    body = [world(f) for f in _frustum((0.3, 0.9, -2.1, 2.1), (0.9, 0.88, -2.05, 2.0))]
    cabin = [world(f) for f in _frustum((0.9, 0.86, -1.95, 1.0), (tall, 0.68, -1.5, 0.3))]
    for i in far_to_near(body):
        pen.fill(body[i], shade(paint, tones[i]))
        if i != 4:
            pen.fill_all(grid(body[i], [(0, 1)], [(0, 0.22)]), (50, 52, 56))
        if i in (0, 2):
            lamp = (235, 24, 24) if i == 0 else (255, 248, 214)
            pen.fill_all(grid(body[i], [(0.03, 0.24), (0.76, 0.97)], [(0.52, 0.86)]), lamp)
            pen.fill_all(grid(body[i], [(0.36, 0.64)], [(0.28, 0.5)]), (238, 238, 226))
        elif i in (1, 3):
            for wheel in wheels[:2] if i == 1 else wheels[2:]:
                pen.fill(world(wheel), (26, 26, 30))
                hub = wheel.mean(0)
                pen.fill(world(hub + (wheel - hub) * 0.5), (150, 152, 158))
    for i in far_to_near(cabin):
        pen.fill(cabin[i], shade(paint, tones[i]))
        panes = [(0.1, 0.9)] if i in (0, 2) else [(0.1, 0.48), (0.54, 0.88)]
        if i != 4:
            pen.fill_all(grid(cabin[i], panes, [(0.14, 0.84)]), (52, 66, 84))
            pen.fill_all(grid(cabin[i], panes, [(0.6, 0.84)]), (96, 118, 140))


def paint_pedestrian(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Somebody walking."""
    pen = canvas.pen("pedestrian", z)
    s = rng.uniform(1.12, 1.32)
    stride, shirt = rng.uniform(0.08, 0.26), pick(rng, _CLOTHES)
    trousers, skin = pick(rng, _TROUSERS), pick(rng, _SKINS, 0.05)

    def at(*points: tuple[float, float]) -> np.ndarray:
        return board(x, z, [(dx * s, y * s) for dx, y in points])

    for foot, tone in ((-stride, 0.8), (stride, 1.1)):
        pen.stroke(at((0, 0.85), (foot * 0.6, 0.45), (foot, 0.06)), 0.21 * s, shade(trousers, tone))
    pen.stroke(at((-0.25, 1.35), (-0.36, 0.85)), 0.14 * s, shade(shirt, 0.75))
    pen.fill(at((-0.3, 0.72), (0.3, 0.72), (0.3, 1.4), (0.1, 1.52), (-0.1, 1.52), (-0.3, 1.4)),
             shirt)  # fmt: skip
    pen.stroke(at((0.25, 1.35), (0.36, 0.88)), 0.14 * s, shade(shirt, 0.88))
    pen.disc(x, 1.71 * s, 0.17 * s, pick(rng, ((54, 38, 28), (24, 20, 20), (150, 106, 56))))
    pen.disc(x, 1.65 * s, 0.14 * s, skin)


def paint_bicyclist(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A rider with a helmet, seen from the side or obliquely."""
    pen = canvas.pen("bicyclist", z)
    s = rng.uniform(1.15, 1.3)
    ahead = s * rng.uniform(0.78, 1.0) * rng.choice((-1, 1))
    shirt, frame = pick(rng, _SPORTSWEAR), pick(rng, CAR_PAINTS[:2])

    def at(*points: tuple[float, float]) -> np.ndarray:
        return board(x, z, [(dx * ahead, y * s) for dx, y in points])

    for hub in (-0.54, 0.54):
        for radius, color in ((0.38, (24, 24, 28)), (0.29, (168, 172, 176)), (0.06, (40, 40, 44))):
            pen.fill(at(*circle(hub, 0.38, radius)), color)
    pen.stroke(
        at((-0.54, 0.38), (-0.2, 0.85), (0.4, 0.82), (0.0, 0.38), (-0.54, 0.38)), 0.13, frame
    )
    pen.stroke(at((0.54, 0.38), (0.38, 0.98), (0.5, 1.05)), 0.13, frame)
    pen.stroke(at((-0.18, 0.92), (0.2, 0.72), (0.04, 0.3)), 0.22 * s, pick(rng, _TROUSERS))
    pen.fill(
        at((-0.34, 0.92), (-0.02, 0.86), (0.34, 1.36), (0.24, 1.56), (-0.04, 1.52), (-0.3, 1.2)),
        shirt,
    )
    pen.stroke(at((0.2, 1.36), (0.46, 1.06)), 0.14 * s, shade(shirt, 0.8))
    head_x = x + 0.3 * ahead
    pen.disc(head_x, 1.66 * s, 0.16 * s, pick(rng, _SKINS, 0.05))
    helmet = [(dx, y) for dx, y in circle(0.3, 1.7, 0.2, corners=24) if y >= 1.69]
    pen.fill(at(*helmet), pick(rng, ((250, 232, 40), (255, 96, 30), (40, 200, 240))))
