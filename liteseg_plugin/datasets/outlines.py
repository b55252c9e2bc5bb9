"""Outlines of a label map's regions, and the files that annotation tools read them from."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from liteseg_plugin.datasets.base import IGNORE_INDEX, ClassInfo

IGNORED_NAME = "__ignore__"
"""labelme's name for pixels without a class."""


@dataclass(frozen=True)
class Outline:
    """The outline of a connected region of one class.

    Points are x and y in pixels, (N, 2) of float64. A pixel's centre has whole coordinates in
    ``points`` and ``holes``, which run through the region's outermost pixels.

    Attributes:
        index: The class.
        name: Its name.
        points: The outer outline.
        holes: Outlines of its holes.
        area: Pixels of the region, without its holes.
    """

    index: int
    name: str
    points: np.ndarray
    holes: tuple[np.ndarray, ...]
    area: int

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        return {
            "class": self.name,
            "index": self.index,
            "points": self.points.tolist(),
            "holes": [hole.tolist() for hole in self.holes],
            "area": self.area,
        }


@dataclass(frozen=True)
class _Region:
    """A connected region: its outlines as OpenCV finds them, and its mask in its bounding box."""

    index: int
    outer: np.ndarray
    holes: tuple[np.ndarray, ...]
    left: int
    top: int
    mask: np.ndarray
    area: int
    filled_area: int


def find_outlines(
    labels: np.ndarray,
    classes: Sequence[ClassInfo],
    *,
    tolerance: float = 1.0,
    min_area: int = 1,
) -> list[Outline]:
    """Return the outlines of a label map's regions, the largest first.

    Drawn in this order without their holes, they give the label map again: what lies in a hole
    is smaller, and is drawn later.

    Args:
        labels: Class indices (H, W); others have no outline.
        classes: Names, in index order.
        tolerance: Largest distance in pixels that simplification moves an outline; 0 keeps it.
        min_area: Pixels of the smallest region to return.
    """
    return [
        Outline(
            region.index,
            classes[region.index].name,
            _simplified(region.outer, tolerance),
            tuple(_simplified(hole, tolerance) for hole in region.holes),
            region.area,
        )
        for region in _regions(labels, range(len(classes)), min_area)
    ]


def to_labelme(
    labels: np.ndarray,
    classes: Sequence[ClassInfo],
    image_name: str,
    *,
    tolerance: float = 1.0,
    min_area: int = 1,
) -> dict[str, Any]:
    """Return a label map as labelme's JSON document, without the image.

    labelme has no holes: shapes stand in the order of drawing, and later ones cover earlier ones.
    Ignored pixels (255) are shapes, too.

    Args:
        labels: As :func:`find_outlines` takes them, like the other arguments.
        classes: Names.
        image_name: The image's path, relative to the document's folder.
        tolerance: Of the simplification.
        min_area: Of the smallest region.
    """
    names = {IGNORE_INDEX: IGNORED_NAME} | dict(enumerate(entry.name for entry in classes))
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {
                "label": names[region.index],
                "points": _cornered(_simplified(region.outer, tolerance)).tolist(),
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            }
            for region in _regions(labels, names, min_area)
        ],
        "imagePath": image_name,
        "imageData": None,
        "imageHeight": labels.shape[0],
        "imageWidth": labels.shape[1],
    }


def to_coco(
    labels: Sequence[np.ndarray],
    classes: Sequence[ClassInfo],
    image_names: Sequence[str],
    *,
    tolerance: float = 0.0,
    min_area: int = 1,
) -> dict[str, Any]:
    """Return label maps as COCO's JSON document, each region one annotation.

    A region without holes is a polygon; one with holes, run lengths, as polygons have no holes.

    Args:
        labels: Of each image, as :func:`find_outlines` takes them, like the other arguments.
        classes: Names; ids start at 1.
        image_names: ``file_name`` of each image.
        tolerance: Of the simplification; simplified regions overlap or leave gaps.
        min_area: Of the smallest region.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (label, name) in enumerate(zip(labels, image_names), start=1):
        height, width = label.shape
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for region in _regions(label, range(len(classes)), min_area):
            box_height, box_width = region.mask.shape
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": region.index + 1,
                    "segmentation": _coco_outline(region, (height, width), tolerance),
                    "area": region.area,
                    "bbox": [region.left, region.top, box_width, box_height],
                    "iscrowd": 0,
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": index, "name": entry.name} for index, entry in enumerate(classes, start=1)
        ],
    }


def _regions(labels: np.ndarray, indices: Container[int], min_area: int) -> list[_Region]:
    found = []
    for index in np.unique(labels).tolist():
        if index not in indices:
            continue
        mask = (labels == index).astype(np.uint8)
        contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for place, contour in enumerate(contours):
            _, _, child, parent = hierarchy[0][place]
            if parent >= 0:  # a hole
                continue
            holes = []
            while child >= 0:
                holes.append(contours[child])
                child = hierarchy[0][child][0]
            left, top, width, height = cv2.boundingRect(contour)
            own = np.zeros((height, width), np.uint8)
            cv2.drawContours(own, [contour - (left, top)], 0, 1, cv2.FILLED)
            filled = int(np.count_nonzero(own))
            own &= mask[top : top + height, left : left + width]
            if holes:  # another region of the class may stand in a hole
                _, parts = cv2.connectedComponents(own)
                x, y = contour[0, 0] - (left, top)
                own = (parts == parts[y, x]).astype(np.uint8)
            area = int(np.count_nonzero(own))
            if area >= min_area:
                found.append(_Region(index, contour, tuple(holes), left, top, own, area, filled))
    return sorted(found, key=lambda region: -region.filled_area)


def _simplified(contour: np.ndarray, tolerance: float) -> np.ndarray:
    if tolerance:
        contour = cv2.approxPolyDP(contour, tolerance, True)
    return contour[:, 0].astype(np.float64)


def _cornered(points: np.ndarray) -> np.ndarray:
    """Repeat points of a region of one or two pixels: a polygon has three."""
    return np.resize(points, (3, 2)) if len(points) < 3 else points


def _coco_outline(region: _Region, size_hw: tuple[int, int], tolerance: float) -> Any:
    if region.holes:
        return {"size": [*size_hw], "counts": _run_lengths(region, size_hw)}
    # COCO's pixels begin at whole coordinates and end at the next ones. Outlines of the doubled
    # mask run a quarter of a pixel inside the region's edge.
    doubled = cv2.resize(region.mask, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    (contour,), _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    points = (_simplified(contour, 2 * tolerance) + 0.5) / 2 + (region.left, region.top)
    return [_cornered(points).ravel().tolist()]


def _run_lengths(region: _Region, size_hw: tuple[int, int]) -> list[int]:
    """Return lengths of runs, column by column, which start with pixels outside."""
    whole = np.zeros(size_hw, np.uint8)
    height, width = region.mask.shape
    whole[region.top : region.top + height, region.left : region.left + width] = region.mask
    values = whole.ravel(order="F")
    changes = np.flatnonzero(np.diff(values, prepend=0))
    return np.diff(changes, prepend=0, append=values.size).tolist()
