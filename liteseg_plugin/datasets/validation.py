"""What can be wrong with lists, images and labels, in the words that every command uses.

Training, evaluation and prediction raise these as :class:`DataError` when they meet them (see
``diagnostics.py``); ``liteseg data check`` collects them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from liteseg_plugin.errors import DataError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_NO_IMAGE = "it is no image, or is cut short"
_END_OF_JPEG = b"\xff\xd9"
_SHOWN_VALUES = 8


class Fault(NamedTuple):
    """Something wrong.

    Attributes:
        kind: A short word for programs, such as ``label-range``.
        message: A sentence for people.
    """

    kind: str
    message: str


# --- files ---------------------------------------------------------------------------------------


def check_image_file(path: str | os.PathLike) -> None:
    """Find what OpenCV would decode without a word: images cut short, and bombs.

    OpenCV fills what is missing of a JPEG with grey. Such a file lacks the end-of-image marker;
    where there is none at the end (some cameras append data), Pillow decodes the file to see.

    Raises:
        DataError: If there is no file, or it is cut short, or larger than Pillow's limit of about
            179 million pixels.
    """
    if not os.path.isfile(path):
        raise DataError(f"image not found: {path}")
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            if image.format in ("JPEG", "MPO"):
                file.seek(-len(_END_OF_JPEG), os.SEEK_END)
                if file.read() != _END_OF_JPEG:
                    file.seek(0)
                    Image.open(file).load()
    except Image.UnidentifiedImageError:
        pass  # OpenCV knows formats that Pillow does not, and gives nothing for all others
    except Exception as error:  # a hostile file may raise anything
        raise DataError(f"cannot read image {path}: {_reason(error)}") from error


def read_image(path: str | os.PathLike, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Read an image as training does, but whole or not at all.

    Args:
        path: The image.
        flags: OpenCV's.

    Returns:
        (H, W, 3) of uint8, BGR, by default.

    Raises:
        DataError: If it is not there, no image, cut short, or too large.
    """
    check_image_file(path)
    try:
        # Not cv2.imread, which ends the process where a name is not UTF-8.
        image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise DataError(f"cannot read image {path}: {_NO_IMAGE}")
    return image


def read_label(path: str | os.PathLike) -> np.ndarray:
    """Read a label as training does: the indices of a palette image, not its colours.

    Returns:
        (H, W), or (H, W, C) for an image of several channels.

    Raises:
        DataError: If it is not there, no image, cut short, or too large.
    """
    if not os.path.isfile(path):
        raise DataError(f"label not found: {path}")
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except Exception as error:  # a hostile file may raise anything
        raise DataError(f"cannot read label {path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return _NO_IMAGE
    named = isinstance(error, (OSError, ValueError, SyntaxError, Image.DecompressionBombError))
    return str(error) if named and str(error) else f"{type(error).__name__}: {error}"


# --- contents ------------------------------------------------------------------------------------


def label_faults(
    label: np.ndarray, image_hw: tuple[int, int], num_classes: int, ignore_index: int
) -> Iterator[Fault]:
    """Find what makes a label unfit to train with or to evaluate on.

    Args:
        label: As :func:`read_label` gives it.
        image_hw: Height and width of its image, in pixels.
        num_classes: Number of classes.
        ignore_index: Label of pixels that do not count.

    Yields:
        Faults, without the names of the files; :func:`about` adds them.
    """
    if label.ndim != 2:
        yield Fault(
            "label-channels",
            f"the label has {label.shape[-1]} channels (a colour image?); labels hold one class "
            "index for each pixel",
        )
        return
    if label.shape != tuple(image_hw):
        yield Fault(
            "size",
            f"image and label differ in size: {image_hw[1]}x{image_hw[0]} and "
            f"{label.shape[1]}x{label.shape[0]} (width x height)",
        )
    if label.dtype == np.uint8:
        outside = cv2.countNonZero(cv2.inRange(label, num_classes, 255))
        if outside and ignore_index >= num_classes:
            outside -= cv2.countNonZero(cv2.inRange(label, ignore_index, ignore_index))
        if not outside:
            return
    values, counts = np.unique(label, return_counts=True)
    wrong = [
        f"{value} ({count} pixels)"
        for value, count in zip(values.tolist(), counts)
        if not 0 <= value < num_classes and value != ignore_index
    ]
    if wrong:
        more = len(wrong) - _SHOWN_VALUES
        yield Fault(
            "label-range",
            f"label values out of range: {', '.join(wrong[:_SHOWN_VALUES])}"
            f"{f' and {more} more values' if more > 0 else ''}; with num_classes {num_classes} "
            f"they are 0 to {num_classes - 1}, or {ignore_index} for pixels that do not count",
        )


class SampleCheck:
    """A first transform: image and label of one size, label values of the classes.

    Args:
        num_classes: Number of classes.
        ignore_index: Label of pixels that do not count.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self._num_classes = num_classes
        self._ignore_index = ignore_index

    def __call__(self, data: dict) -> dict:
        """Return the sample as it is.

        Raises:
            DataError: If its label does not fit its image or the classes.
        """
        label = data.get("label")
        if isinstance(label, np.ndarray):
            size_hw = data["img"].shape[:2]
            for fault in label_faults(label, size_hw, self._num_classes, self._ignore_index):
                raise DataError(fault.message)
        return data


def about(image: str | os.PathLike, label: str | os.PathLike | None, what: object) -> str:
    """Say of which files something is true."""
    return f"{image}: {what}" if label is None else f"{label} of image {image}: {what}"


# --- lists ---------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Paths of an image and of its label; None where a list names only images."""

    image: str
    label: str | None


def read_list(
    path: str | os.PathLike,
    root: str | os.PathLike,
    *,
    separator: str = " ",
    labelled: bool = True,
) -> tuple[list[Pair], list[Fault]]:
    """Read a list of images and labels, as PaddleSeg's ``Dataset`` does.

    Args:
        path: The list; each line names an image and its label, relative to ``root``.
        root: The data set's folder.
        separator: What stands between the two.
        labelled: Whether every line needs a label; those of a test list do not.

    Returns:
        The pairs, and what is wrong with other lines.

    Raises:
        DataError: If the list cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read list {path}: {error}") from error
    pairs, faults = [], []
    for number, line in enumerate(lines, start=1):
        names = line.strip().split(separator)
        if len(names) == 2:
            pairs.append(Pair(*(os.path.join(root, name) for name in names)))
        elif labelled or not line.strip():
            faults.append(
                Fault(
                    "list",
                    f"line {number} of list {path} is {line.strip()!r}, not an image and a label "
                    f"separated by {separator!r}",
                )
            )
        else:
            pairs.append(Pair(os.path.join(root, names[0]), None))
    return pairs, faults
