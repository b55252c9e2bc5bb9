"""labelme: a JSON file beside each image.

Shapes are drawn as labelme draws them (``labelme.utils.shapes_to_label``): in the order of the
file, later ones over earlier ones, borders included.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from liteseg_plugin.datasets.importing import drawing
from liteseg_plugin.datasets.importing.drawing import BadShape, Draw, draw_shapes, points_of
from liteseg_plugin.datasets.importing.files import Images, find_files, read_json
from liteseg_plugin.datasets.importing.records import Annotated, Note, Options, Reading
from liteseg_plugin.datasets.outlines import IGNORED_NAME
from liteseg_plugin.errors import DataError


def read(source: Path, options: Options) -> Reading:
    """Read a folder of labelme's files.

    Raises:
        DataError: If it holds none.
    """
    images = Images(options.images or source)
    annotated, notes, names, described = [], [], set(), set()
    files = find_files(options.labels or source, ".json")
    for file in files:
        try:
            content = read_json(file)
            entry = _annotated(file, content, images, options)
            names |= {str(shape["label"]) for shape in content["shapes"]}
        except DataError as error:
            notes.append(Note("unreadable", str(file), str(error)))
            continue
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"it is not a file of labelme ({error!r})"
            notes.append(Note("unreadable", str(file), reason))
            continue
        if isinstance(entry, Note):
            notes.append(entry)
        else:
            annotated.append(entry)
            described.add(entry.image)
    if not annotated:
        first = f": {notes[0].file}: {notes[0].message}" if notes else ""
        raise DataError(f"{source} holds no usable file of labelme (.json){first}")
    notes += [
        Note("no-annotation", str(path), "the image has no .json")
        for path in images.paths
        if path not in described
    ]
    return Reading(images.root, annotated, sorted(names - {IGNORED_NAME}), notes, [IGNORED_NAME])


def _annotated(file: Path, content: Any, images: Images, options: Options) -> Annotated | Note:
    name = content.get("imagePath") or file.name
    image = images.named(str(name), file.parent, file)
    content_of: Callable[[], bytes] | None = None
    if isinstance(image, Note):
        data = content.get("imageData")
        if not data:
            return image
        content_of, image = partial(_decoded, file), file.with_suffix(".png")
    shapes = [(str(shape["label"]), _draw(shape, options)) for shape in content["shapes"]]
    size = content.get("imageWidth"), content.get("imageHeight")
    size_wh = (int(size[0]), int(size[1])) if all(isinstance(n, int) for n in size) else None
    shapes_of = partial(draw_shapes, file, shapes)
    return Annotated(image, file, shapes_of, size_wh, content=content_of)


def _decoded(file: Path) -> bytes:
    """Return the image that a file holds; it is read again, to hold only one in memory."""
    try:
        return base64.b64decode(read_json(file)["imageData"])
    except (binascii.Error, TypeError, ValueError) as error:
        raise DataError(f"{file}: its imageData is not an image: {error}") from error


def _draw(shape: dict, options: Options) -> Draw:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind in ("polygon", "oriented_rectangle"):
        return drawing.polygon(points)
    if kind == "rectangle":
        return drawing.rectangle(points)
    if kind == "circle":
        return drawing.circle(points)
    if kind in ("line", "linestrip"):
        return drawing.line(points, options.line_width)
    if kind == "mask":
        return lambda size_hw: _mask(shape)(size_hw)
    return partial(drawing.refuse, "shape-type", f"a {kind} has no area")


def _mask(shape: dict) -> Draw:
    left, top = points_of(shape["points"], 2)[0].astype(int)
    try:
        encoded = np.frombuffer(base64.b64decode(shape["mask"]), np.uint8)
        mask = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    except (KeyError, TypeError, ValueError, cv2.error):
        mask = None
    if mask is None:
        raise BadShape("unreadable", "its mask is not a PNG")
    return drawing.placed(lambda: mask, int(left), int(top))
