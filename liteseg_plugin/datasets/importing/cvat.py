"""CVAT's "CVAT for images 1.1": an XML file; shapes of a higher ``z_order`` cover others."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import numpy as np

from liteseg_plugin.datasets.base import SPLIT_NAMES
from liteseg_plugin.datasets.importing import drawing
from liteseg_plugin.datasets.importing.drawing import BadShape, Draw, draw_shapes, points_of
from liteseg_plugin.datasets.importing.files import Images, find_files, read_xml
from liteseg_plugin.datasets.importing.records import Annotated, Note, Options, Reading
from liteseg_plugin.errors import DataError
from liteseg_plugin.system.pixels import check_pixels

_SHAPES = ("polygon", "box", "ellipse", "polyline", "mask", "points", "cuboid", "skeleton")
_ELLIPSE_CORNERS = 72


def read(source: Path, options: Options) -> Reading:
    """Read an XML file of CVAT's, or those in a folder.

    Raises:
        DataError: If there are none.
    """
    folder = source.parent if source.is_file() else source
    images = Images(options.images or folder)
    files = [source] if source.is_file() else find_files(options.labels or source, ".xml")
    annotated: list[Annotated] = []
    notes: list[Note] = []
    names: dict[str, None] = {}
    for file in files:
        root = read_xml(file)
        if root.tag != "annotations" or root.find("image") is None:
            reason = "it is not of CVAT for images: <annotations> with <image>"
            notes.append(Note("unreadable", str(file), reason))
            continue
        names |= {str(label.text): None for label in root.iterfind("./meta//label/name")}
        for entry in root.iterfind("image"):
            shapes = [shape for shape in entry if shape.tag in _SHAPES]
            names |= {shape.get("label", ""): None for shape in shapes}
            found = images.named(entry.get("name", ""), file.parent, file)
            if isinstance(found, Note):
                notes.append(found)
                continue
            shapes.sort(key=lambda shape: int(shape.get("z_order") or 0))
            entries = [(shape.get("label", ""), partial(_draw, shape, options)) for shape in shapes]
            width, height = entry.get("width"), entry.get("height")
            size = (int(width), int(height)) if width and height else None
            subset = (entry.get("subset") or "").lower()
            split = subset if subset in SPLIT_NAMES else None
            shapes_of = partial(draw_shapes, found, entries)
            annotated.append(Annotated(found, found, shapes_of, size, split))
    if not annotated:
        first = f": {notes[0].file}: {notes[0].message}" if notes else ""
        raise DataError(f"{source} holds no usable file of CVAT for images (.xml){first}")
    return Reading(images.root, annotated, [*names], notes)


def _draw(shape: ET.Element, options: Options, size_hw: tuple[int, int]) -> np.ndarray:
    try:
        return _kind(shape, options)(size_hw)
    except ValueError as error:
        raise BadShape("unreadable", f"a value of <{shape.tag}> is invalid: {error}") from None


def _kind(shape: ET.Element, options: Options) -> Draw:
    if shape.tag == "polygon":
        return drawing.polygon(_points(shape))
    if shape.tag == "polyline":
        return drawing.line(_points(shape), options.line_width)
    if shape.tag == "box":
        left, top, right, bottom = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        degrees = float(shape.get("rotation") or 0)
        if not degrees:
            return drawing.rectangle(corners[[0, 2]])
        return drawing.polygon(drawing.rotated(corners, corners.mean(0).tolist(), degrees))
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = _numbers(shape, "cx", "cy", "rx", "ry")
        angles = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
        corners = np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], 1)
        degrees = float(shape.get("rotation") or 0)
        return drawing.polygon(drawing.rotated(corners, (x, y), degrees))
    if shape.tag == "mask":
        left, top = _numbers(shape, "left", "top")
        return drawing.placed(partial(_mask, shape), int(left), int(top))
    raise BadShape("shape-type", f"<{shape.tag}> has no area")


def _points(shape: ET.Element) -> np.ndarray:
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";") if pair.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise BadShape("not-points", "its points are not pairs of numbers")
    return points_of(pairs)


def _numbers(shape: ET.Element, *names: str) -> list[float]:
    values = [shape.get(name) for name in names]
    if None in values:
        raise BadShape("unreadable", f"<{shape.tag}> lacks one of {', '.join(names)}")
    return points_of([float(str(value)) for value in values]).ravel().tolist()


def _mask(shape: ET.Element) -> np.ndarray:
    """Return a mask of run lengths, row by row, that start with the pixels outside."""
    width, height = (int(n) for n in _numbers(shape, "width", "height"))
    runs = np.array([int(n) for n in shape.get("rle", "").split(",") if n.strip()], np.int64)
    check_pixels("a <mask>", width, height)
    if width < 1 or height < 1 or (runs < 0).any() or runs.sum() != width * height:
        raise BadShape("run-lengths", "its run lengths do not fill its width and height")
    values = np.arange(len(runs), dtype=np.uint8) % 2
    return np.repeat(values, runs).reshape(height, width)
