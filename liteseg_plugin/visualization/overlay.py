"""Overlays, label images and legends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import DataError, printable
from liteseg_plugin.system.files import atomic_write

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_OVERLAY_ROWS = 64
_Written = TypeVar("_Written")


def indexed_image(label: np.ndarray, classes: Sequence[ClassInfo]) -> Image.Image:
    """Return class indices (H, W) as a palette image.

    Raises:
        DataError: If an index does not fit 8 bits.
    """
    highest = int(label.max())
    if highest > 255:
        raise DataError(f"class {highest} does not fit a label image, which is 8-bit: 0 to 255")
    indexed = Image.fromarray(label.astype(np.uint8))
    # Pillow writes as many bits as the palette needs: it must have a colour for every index.
    palette = [value for entry in classes for value in entry.color_rgb]
    indexed.putpalette([*palette, *bytes(max(0, 3 * (highest + 1) - len(palette)))])
    return indexed


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image (H, W, 3) of uint8, BGR, in the format of the file's suffix.

    Its folder is created if missing. The file is complete or absent.

    Raises:
        DataError: If no image format has the suffix.
        OSError: If it cannot be written.
    """
    # Not cv2.imwrite, which silently leaves half a file on a full disk.
    try:
        encoded, content = cv2.imencode(Path(path).suffix, image)
    except cv2.error:
        raise DataError(
            f"{printable(path)}: no image format is {Path(path).suffix!r}; use .png or .jpg"
        ) from None
    if not encoded:
        raise OSError(f"cannot write {printable(path)}")
    atomic_write(path, content.data, durable=False)


def overlay(
    image: np.ndarray,
    label: np.ndarray,
    classes: Sequence[ClassInfo],
    *,
    weight: float = 0.55,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Blend an image with the colours of its labels.

    Args:
        image: (H, W, 3) of uint8, BGR.
        label: Class indices (H, W); indices without a class stay uncoloured.
        classes: In index order.
        weight: Share of the label's colour.
        out: Where to write it, such as ``image`` itself; None for an array of its own.

    Returns:
        (H, W, 3) of uint8, BGR.
    """
    blended = np.empty_like(image) if out is None else out
    for top in range(0, len(image), _OVERLAY_ROWS):  # all at once would take ten times its memory
        rows = slice(top, top + _OVERLAY_ROWS)
        part, colors = image[rows], colorize(label[rows], classes)
        mixed = cv2.addWeighted(part, 1 - weight, colors, weight, 0)
        blended[rows] = np.where((label[rows] < len(classes))[..., np.newaxis], mixed, part)
    return blended


def colorize(label: np.ndarray, classes: Sequence[ClassInfo]) -> np.ndarray:
    """Return the colours (H, W, 3), BGR, of class indices (H, W); black where there is no class."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = [entry.color_bgr for entry in classes]
    return palette[np.clip(label, 0, 255)]


def side_by_side(images: Sequence[np.ndarray], captions: Sequence[str], scale: int) -> np.ndarray:
    """Put images (H, W, 3) of uint8, BGR, in a row, ``scale`` times as large, under captions."""
    columns = []
    for image, caption in zip(images, captions):
        large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        bar = np.full((26, large.shape[1], 3), 255, np.uint8)
        cv2.putText(bar, caption, (8, 18), _FONT, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
        columns += [np.vstack([bar, large]), np.full((large.shape[0] + 26, 6, 3), 255, np.uint8)]
    return np.hstack(columns[:-1])


def legend_bar(classes: Sequence[ClassInfo], width: int) -> np.ndarray:
    """Draw colour and name of classes, in as many rows as ``width`` pixels require.

    Returns:
        (height, width, 3) of uint8, BGR.
    """
    row_height, size, x, rows, places = 18, 0.4, 6, 1, []
    for entry in classes:
        (text_width, _), _ = cv2.getTextSize(entry.name, _FONT, size, 1)
        if x > 6 and x + text_width + 18 > width:
            rows, x = rows + 1, 6
        places.append((x, rows - 1))
        x += text_width + 28
    canvas = np.full((rows * row_height + 6, width, 3), 255, np.uint8)
    for entry, (x, row) in zip(classes, places):
        y = row * row_height + 4
        cv2.rectangle(canvas, (x, y + 2), (x + 10, y + 12), entry.color_bgr, cv2.FILLED)
        cv2.putText(canvas, entry.name, (x + 14, y + 12), _FONT, size, (40, 40, 40), 1, cv2.LINE_AA)
    return canvas
