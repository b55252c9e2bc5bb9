"""Validation of images and labels, with the messages that every command prints.

Training, evaluation and prediction raise these as :class:`DataError` when they meet them;
``liteseg data check`` collects them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image

from liteseg_plugin.datasets.stored_image import StoredImage, tiff_size
from liteseg_plugin.errors import DataError
from liteseg_plugin.system.files import is_lfs_pointer
from liteseg_plugin.system.pixels import check_pixels

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_NO_IMAGE = "it is not an image, or is truncated"
_LFS_POINTER = "it is a Git LFS pointer, not the image; run `git lfs pull` in its repository"
_END_OF_JPEG = b"\xff\xd9"
_ORIENTATION = 0x0112  # the tag of EXIF and of TIFF
_SHOWN_VALUES = 8


class Fault(NamedTuple):
    """A fault of a file.

    Attributes:
        kind: A short word for programs, such as ``label-range``.
        message: A readable sentence.
    """

    kind: str
    message: str


# --- files ---------------------------------------------------------------------------------------


def _absent(kind: str, path: str | os.PathLike) -> DataError:
    """Return the error of a path that is not of a file."""
    if os.path.isdir(path):
        return DataError(f"{kind} {path} is a folder, not a file")
    return DataError(f"{kind} not found: {path}")


def check_image_file(path: str | os.PathLike) -> int:
    """Find what OpenCV decodes silently: truncated images and decompression bombs.

    OpenCV fills the missing part of a JPEG with grey. Such a file lacks the end-of-image marker;
    where there is none at the end (some cameras append data), Pillow decodes the file to see.

    Returns:
        The orientation of EXIF, or of a TIFF: 1 for upright images and for images without one.

    Raises:
        DataError: If there is no file, or it is truncated, or has more pixels than
            :mod:`liteseg_plugin.system.pixels` allows.
    """
    if not os.path.isfile(path):
        raise _absent("image", path)
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            check_pixels(path, *image.size)
            if image.format in ("JPEG", "MPO"):
                file.seek(-len(_END_OF_JPEG), os.SEEK_END)
                if file.read() != _END_OF_JPEG:
                    file.seek(0)
                    Image.open(file).load()
            if image.format == "TIFF":
                _check_tiff(path)
            return _orientation(image, file)
    except DataError:
        raise
    except Image.UnidentifiedImageError:
        _check_tiff(path)
        return 1  # OpenCV knows formats that Pillow does not, and gives nothing for all others
    except Exception as error:  # a hostile file may raise anything
        raise DataError(f"cannot read image {path}: {_reason(error)}") from error


def _check_tiff(path: str | os.PathLike) -> None:
    """Refuse what OpenCV cuts to 8 bits, and, where Pillow does not know its channels, its size."""
    check_pixels(path, *tiff_size(path))
    fault = StoredImage.of(path).fault
    if fault:
        raise DataError(f"cannot read image {path}: {fault}")


def _orientation(image: Any, file: BinaryIO) -> int:
    """Return the orientation that OpenCV applies. Pillow's ``getexif`` would decode a PNG."""
    if image.format == "TIFF":
        found = image.tag_v2.get(_ORIENTATION)
    else:
        block = _exif_of_png(file) if image.format == "PNG" else image.info.get("exif")
        if not block:
            return 1
        exif = Image.Exif()
        with contextlib.suppress(Exception):  # OpenCV, too, leaves an image whose EXIF is broken
            exif.load(block)
        found = exif.get(_ORIENTATION)
    return found if found in range(1, 9) else 1


def _exif_of_png(file: BinaryIO) -> bytes | None:
    """Return the chunk eXIf, which may stand before the pixels or behind them."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = 8
        while start + 8 <= len(content):
            length, kind = struct.unpack_from(">I4s", content, start)
            if kind == b"eXIf":
                return content[start + 8 : start + 8 + length]
            start += 12 + length
    return None


def read_image(
    path: str | os.PathLike, flags: int = cv2.IMREAD_COLOR, *, labelled: bool = False
) -> np.ndarray:
    """Read an image as training does; a truncated image is an error.

    Args:
        path: The image.
        flags: OpenCV's.
        labelled: Whether it has a label, so that it must be upright.

    Returns:
        (H, W, 3) of uint8, BGR, by default.

    Raises:
        DataError: If it is missing, invalid, truncated, too large, or labelled and not upright.
    """
    orientation = check_image_file(path)
    if labelled:
        for fault in orientation_faults(orientation):
            raise DataError(about(path, None, fault.message))
    try:
        # Not cv2.imread, which ends the process where a name is not UTF-8.
        image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise DataError(f"cannot read image {path}: {_no_image(path)}")
    return image


def read_label(path: str | os.PathLike) -> np.ndarray:
    """Read a label as training does: the stored values, at any bit depth.

    The indices of a palette image, not its colours; samples of 1, 2 or 4 bits as they are, which
    Pillow scales to 0..255; 16 bits as they are, too, though Paddle takes uint16 for bfloat16.

    Returns:
        (H, W), or (H, W, C) for an image of several channels; uint8, or int32 where the values of
        one channel are not all 0..255.

    Raises:
        DataError: If it is missing, not an image, truncated, too large, or holds fractions.
    """
    return read_label_and_depth(path)[0]


def read_label_and_depth(path: str | os.PathLike) -> tuple[np.ndarray, str | None]:
    """Read a label, and say how it is stored if PaddleSeg alone would not read these values.

    Returns:
        What :func:`read_label` returns, and such as ``16-bit grey``, or None.

    Raises:
        DataError: As :func:`read_label`.
    """
    if not os.path.isfile(path):
        raise _absent("label", path)
    try:
        with Image.open(path) as image:
            check_pixels(path, *image.size)
            # How the file's samples are stored, by Pillow's name, is known until they are decoded.
            details = image.tile[0][3] if image.tile else ""
            stored = details if isinstance(details, str) else (details or ("",))[0]
            values = np.asarray(image)
            return _as_indices(values, str(stored))
    except DataError:
        raise
    except Exception as error:  # a hostile file may raise anything
        unidentified = isinstance(error, Image.UnidentifiedImageError)
        reason = _no_image(path) if unidentified else _reason(error)
        raise DataError(f"cannot read label {path}: {reason}") from error


def _as_indices(values: np.ndarray, stored: str) -> tuple[np.ndarray, str | None]:
    if values.dtype == bool:
        return values.astype(np.uint8), "1-bit"
    for bits in (2, 4):
        if stored.startswith(f"L;{bits}"):
            return values // (255 // (2**bits - 1)), f"{bits}-bit grey"
    if values.dtype == np.uint8 or values.ndim != 2:
        return values, None
    depth = "16-bit grey" if values.dtype.kind == "u" else None
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise ValueError("its values are not whole numbers")
    for kind in (np.uint8, np.int32):
        limits = np.iinfo(kind)
        if limits.min <= values.min() and values.max() <= limits.max:
            return values.astype(kind), depth
    raise ValueError(f"it holds values up to {values.max():g}")


def _no_image(path: str | os.PathLike) -> str:
    return _LFS_POINTER if is_lfs_pointer(path) else _NO_IMAGE


def _reason(error: Exception) -> str:
    named = isinstance(error, (OSError, ValueError, SyntaxError, Image.DecompressionBombError))
    return str(error) if named and str(error) else f"{type(error).__name__}: {error}"


# --- contents ------------------------------------------------------------------------------------


def orientation_faults(orientation: int) -> Iterator[Fault]:
    """Find an orientation that OpenCV applies to the image but not to its label.

    Yields:
        The fault, without the name of the file.
    """
    if orientation != 1:
        yield Fault(
            "orientation",
            f"EXIF orientation {orientation} turns or mirrors the image when it is read, but not "
            "its label; save the image upright, or remove the tag if the label fits without it",
        )


def grey_channel(label: np.ndarray) -> np.ndarray | None:
    """Return the channel (H, W) of a grey image that is stored as colours, else None.

    Args:
        label: (H, W, C); a fourth channel, transparency, does not count.
    """
    if label.ndim == 3 and (label[..., :3] == label[..., :1]).all():
        return label[..., 0]
    return None


def label_faults(
    label: np.ndarray, image_hw: tuple[int, ...], num_classes: int, ignore_index: int
) -> Iterator[Fault]:
    """Find what makes a label invalid for training and evaluation.

    Args:
        label: As :func:`read_label` gives it.
        image_hw: Height and width of its image, in pixels.
        num_classes: Number of classes.
        ignore_index: Label of ignored pixels.

    Yields:
        Faults, without the names of the files; :func:`about` adds them.
    """
    if label.ndim != 2:
        if grey_channel(label) is None:
            way_out = " (a colour image?); `liteseg data import colors` converts colours to classes"
        else:
            way_out = (
                " of equal values; `liteseg data relabel` writes one channel, with --map 255=1 for "
                "masks of 0 and 255"
            )
        yield Fault(
            "label-channels",
            f"the label has {label.shape[-1]} channels{way_out}: labels hold one class index for "
            "each pixel",
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
            f"they are 0 to {num_classes - 1}, or {ignore_index} for ignored pixels",
        )


def check_label(
    label: np.ndarray, image_hw: tuple[int, ...], num_classes: int, ignore_index: int
) -> None:
    """Raise the first fault of :func:`label_faults`, with the same arguments.

    Raises:
        DataError: With the first fault, without the names of the files.
    """
    for fault in label_faults(label, image_hw, num_classes, ignore_index):
        raise DataError(fault.message)


def about(image: str | os.PathLike, label: str | os.PathLike | None, what: object) -> str:
    """Add the names of the files to a message."""
    return f"{image}: {what}" if label is None else f"{label} of image {image}: {what}"
