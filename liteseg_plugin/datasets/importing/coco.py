"""COCO: JSON files with polygons and run lengths, drawn by pycocotools.

Crowds are drawn first: they are coarse outlines of groups, which single objects of any class may
stand in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from liteseg_plugin.datasets.base import SPLIT_NAMES
from liteseg_plugin.datasets.importing.drawing import BadShape, draw_shapes, points_of
from liteseg_plugin.datasets.importing.files import Images, find_files, read_json
from liteseg_plugin.datasets.importing.records import Annotated, Note, Options, Reading
from liteseg_plugin.errors import DataError

_PARTS = {"images", "annotations", "categories"}


def read(source: Path, options: Options) -> Reading:
    """Read a JSON file of COCO's, or those in a folder.

    Raises:
        DataError: If there are none, or pycocotools is not installed.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise DataError(
            "pycocotools is not installed: pip install 'liteseg_plugin[coco]'"
        ) from None
    folder = source
    if source.is_file():
        folder = source.parents[1] if source.parent.name == "annotations" else source.parent
    images = Images(options.images or folder)
    files = [source] if source.is_file() else find_files(options.labels or source, ".json")
    annotated: list[Annotated] = []
    notes: list[Note] = []
    ids: dict[str, int] = {}  # the first one of each name: files may number classes differently
    for file in files:
        content = read_json(file)
        if not isinstance(content, dict) or not _PARTS <= content.keys():
            reason = "it has no images, annotations and categories, as COCO's files have"
            notes.append(Note("unreadable", str(file), reason))
            continue
        try:
            for entry in content["categories"]:
                ids.setdefault(str(entry["name"]), int(entry["id"]))
            more, problems = _annotations(file, content, images)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{file} is not a file of COCO's: {error!r}") from error
        annotated += more
        notes += problems
    if not annotated:
        first = f": {notes[0].file}: {notes[0].message}" if notes else ""
        raise DataError(f"{source} holds no usable file of COCO's (.json){first}")
    return Reading(images.root, annotated, sorted(ids, key=ids.__getitem__), notes)


def _annotations(file: Path, content: dict, images: Images) -> tuple[list[Annotated], list[Note]]:
    names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    of_image: dict[Any, list[dict]] = defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    split = next((s for s in SPLIT_NAMES if re.search(rf"(^|[_-]){s}\d*$", file.stem)), None)
    annotated, notes = [], []
    for entry in content["images"]:
        found = images.named(str(entry["file_name"]), file.parent, file)
        shapes = sorted(of_image.pop(entry["id"], []), key=lambda a: not a.get("iscrowd"))
        if isinstance(found, Note):
            notes.append(found)
            continue
        entries = [
            (names.get(a["category_id"], f"category {a['category_id']}"), partial(_draw, a))
            for a in shapes
        ]
        size = entry.get("width"), entry.get("height")
        size_wh = (int(size[0]), int(size[1])) if all(size) else None
        shapes_of = partial(draw_shapes, found, entries)
        annotated.append(Annotated(found, found, shapes_of, size_wh, split))
    for number, rest in of_image.items():
        message = f"{len(rest)} annotations of image id {number}, which is not in its images"
        notes.append(Note("missing-image", str(file), message))
    return annotated, notes


def _draw(annotation: dict, size_hw: tuple[int, int]) -> np.ndarray:
    from pycocotools import mask

    outlines = annotation.get("segmentation")
    if not outlines:
        raise BadShape("no-outline", "it has a box but no segmentation")
    height, width = size_hw
    try:
        if isinstance(outlines, dict):
            runs = outlines
            if [int(n) for n in runs["size"]] != [height, width]:
                raise BadShape("size", f"its run lengths are of {runs['size']}, not {[*size_hw]}")
            if isinstance(runs["counts"], list):
                if sum(runs["counts"]) != height * width or min(runs["counts"]) < 0:
                    raise BadShape("run-lengths", "its run lengths do not fill the picture")
                runs = mask.frPyObjects(runs, height, width)
            return np.ascontiguousarray(mask.decode(runs))
        rings = [points_of(ring).ravel().tolist() for ring in outlines]
        rings = [ring for ring in rings if len(ring) >= 6]
        if not rings:
            raise BadShape("few-points", "its polygons have fewer than 3 points")
        # Not merge() of its results, which is quadratic in them.
        return np.ascontiguousarray(mask.decode(mask.frPyObjects(rings, height, width)).max(2))
    except (KeyError, TypeError, ValueError) as error:
        raise BadShape("unreadable", f"its segmentation is not COCO's: {error!r}") from None
