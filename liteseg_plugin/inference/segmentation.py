"""What a model says about an image: labels, confidence, and what follows from them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from liteseg_plugin.datasets import outlines
from liteseg_plugin.datasets.base import IGNORE_INDEX, ClassInfo
from liteseg_plugin.datasets.outlines import Outline
from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.visualization.overlay import indexed_image, overlay, write_image

if TYPE_CHECKING:
    from liteseg_plugin.exported import ExportedModel

ADDED_WEIGHT = 0.4
"""Share of the colours in overlays; that of PaddleSeg's."""

WITHOUT_CONFIDENCE = (
    "the export gives labels only (output_op argmax), without confidence; export the model with "
    "--output_op confidence"
)


@dataclass(frozen=True)
class Segmentation:
    """A segmented image.

    Attributes:
        image: (H, W, 3) of uint8, BGR.
        labels: Class indices (H, W) of int32; 255 where a confidence was too small.
        classes: Names and colours, in index order.
        confidence: Largest probability of each pixel, (H, W) of float32, 0 to 1; None from an
            export that gives labels only.
        engine_ms: Milliseconds that the engine alone took.
    """

    image: np.ndarray
    labels: np.ndarray
    classes: Sequence[ClassInfo]
    confidence: np.ndarray | None = None
    engine_ms: float = float("nan")

    def confident(self, least: float) -> Segmentation:
        """Return a segmentation with label 255 where the confidence is below ``least``.

        Raises:
            DataError: If 255 is a class.
            ExportError: If there is no confidence.
        """
        if len(self.classes) > IGNORE_INDEX:
            raise DataError(f"class {IGNORE_INDEX} exists, so that no label is left for ignored")
        ignored = self._confidence() < least
        return replace(self, labels=np.where(ignored, IGNORE_INDEX, self.labels).astype("int32"))

    def overlay(self, *, weight: float = ADDED_WEIGHT) -> np.ndarray:
        """Return the image under the colours of its classes, (H, W, 3) of uint8, BGR.

        Args:
            weight: Share of the colours.
        """
        return overlay(self.image, self.labels, self.classes, weight=weight)

    def areas(self) -> dict[str, int]:
        """Return the number of pixels of each class that occurs, by name."""
        indices, counts = np.unique(self.labels, return_counts=True)
        known = indices < len(self.classes)
        pairs = zip(indices[known].tolist(), counts[known].tolist())
        return {self.classes[index].name: count for index, count in pairs}

    def polygons(self, *, tolerance: float = 1.0, min_area: int = 1) -> list[Outline]:
        """Return the outlines of the regions, with their holes, the largest first.

        Args:
            tolerance: Largest distance in pixels that simplification moves an outline.
            min_area: Pixels of the smallest region to return.
        """
        return outlines.find_outlines(
            self.labels, self.classes, tolerance=tolerance, min_area=min_area
        )

    def to_labelme(
        self, image_name: str, *, tolerance: float = 1.0, min_area: int = 1
    ) -> dict[str, Any]:
        """Return labelme's JSON document, to be corrected and imported as training data.

        Args:
            image_name: Path of the image, relative to the document's folder.
            tolerance: As :meth:`polygons` takes it, like the last argument.
            min_area: Of the smallest region.
        """
        return outlines.to_labelme(
            self.labels, self.classes, image_name, tolerance=tolerance, min_area=min_area
        )

    def save(
        self, path: str | os.PathLike, image_name: str | None = None, *, tolerance: float = 1.0
    ) -> None:
        """Write the file that the suffix of a path names.

        - ``.json``: labelme's document, with ``image_name``;
        - ``.png``: the label map, class indices with a palette;
        - ``.npz``: ``labels`` and ``confidence``;
        - another format of OpenCV, such as ``.jpg``: the overlay.

        Args:
            path: The file; it is complete or absent.
            image_name: Path of the image, relative to the folder of a ``.json``.
            tolerance: Of a ``.json``, as :meth:`polygons` takes it.

        Raises:
            DataError: If a ``.json`` is asked for without ``image_name``.
            OSError: If it cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix == ".json":
            if image_name is None:
                raise DataError(f"{path} needs image_name, the path of the image")
            document = self.to_labelme(image_name, tolerance=tolerance)
            atomic_write(path, json.dumps(document).encode(), durable=False)
        elif suffix == ".png":
            write_label_map(path, self.labels, self.classes)
        elif suffix == ".npz":
            content = BytesIO()
            known = {} if self.confidence is None else {"confidence": self.confidence}
            np.savez_compressed(content, labels=self.labels, **known)
            atomic_write(path, content.getvalue(), durable=False)
        else:
            write_image(path, self.overlay())

    def save_confidence(self, path: str | os.PathLike) -> None:
        """Write the confidence as a grey PNG of 8 bits: 255 is 1.

        Raises:
            ExportError: If there is no confidence.
            OSError: If it cannot be written.
        """
        write_image(path, self.grey_confidence())

    def grey_confidence(self) -> np.ndarray:
        """Return the confidence as grey values, (H, W) of uint8: 255 is 1.

        Raises:
            ExportError: If there is no confidence.
        """
        return cv2.convertScaleAbs(self._confidence(), alpha=255)

    def _confidence(self) -> np.ndarray:
        if self.confidence is None:
            raise ExportError(WITHOUT_CONFIDENCE)
        return self.confidence


def to_coco(
    segmentations: Sequence[Segmentation],
    image_names: Sequence[str],
    *,
    tolerance: float = 0.0,
    min_area: int = 1,
) -> dict[str, Any]:
    """Return segmentations of one model as COCO's JSON document.

    Args:
        segmentations: At least one.
        image_names: ``file_name`` of each image.
        tolerance: As :meth:`Segmentation.polygons` takes it, like the last argument.
        min_area: Of the smallest region.
    """
    labels = [segmentation.labels for segmentation in segmentations]
    classes = segmentations[0].classes
    return outlines.to_coco(labels, classes, image_names, tolerance=tolerance, min_area=min_area)


def write_label_map(
    path: str | os.PathLike, label: np.ndarray, classes: Sequence[ClassInfo]
) -> None:
    """Write class indices (H, W) as a PNG with a palette; the file is complete or absent."""
    atomic_write(path, encode_label_map(label, classes), durable=False)


def encode_label_map(label: np.ndarray, classes: Sequence[ClassInfo]) -> bytes:
    """Return class indices (H, W) as the content of a PNG with a palette."""
    encoded = BytesIO()
    indexed_image(label, classes).save(encoded, format="PNG")
    return encoded.getvalue()


def require_confidence(exported: ExportedModel) -> None:
    """Refuse an export that gives labels only.

    Raises:
        ExportError: If it does.
    """
    if exported.output_op == "argmax":
        raise ExportError(f"{exported.model.parent}: {WITHOUT_CONFIDENCE}")


def most_likely(scores: np.ndarray, *, logits: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and their probabilities.

    Class by class over a few rows, which stay in the cache: NumPy's argmax over the first axis
    takes several times as long.

    Args:
        scores: Of each class, (C, H, W).
        logits: Whether they are logits; else probabilities.

    Returns:
        Class indices (H, W) of int32, and their probabilities (H, W) of float32.
    """
    _, height, width = scores.shape
    labels = np.zeros((height, width), np.int32)
    best = np.empty((height, width), np.float32)
    rows = max(1, _STRIP_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        strip = scores[:, top : top + rows]
        label, largest = labels[top : top + rows], best[top : top + rows]
        largest[:] = strip[0]
        for index, score in enumerate(strip[1:], start=1):
            larger = score > largest
            np.copyto(label, index, where=larger)
            np.copyto(largest, score, where=larger)
        if logits:
            largest[:] = 1 / np.exp(strip - largest).sum(axis=0)
    return labels, best


_STRIP_PIXELS = 1 << 14
