"""Pictures that anybody may have sent to the page: where they lie, and how they are read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps

from liteseg_plugin.errors import DataError, TooLargeError
from liteseg_plugin.system.pixels import check_pixels

MAX_SIDE = 8192
"""Longest side of an upload, in pixels."""
MAX_PIXELS = 16_000_000
"""Largest upload: ONNX Runtime takes 2.5 GB for it with 11 classes."""
FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
"""Formats of uploads, as Pillow names them."""


def uploaded(path: object, folder: Path) -> str:
    """Return the real path of a file in the folder of uploads.

    Args:
        path: What a client named.
        folder: Where uploads and samples lie, without symbolic links.

    Raises:
        DataError: If it is not a regular file there. The message does not tell whether it exists.
    """
    with contextlib.suppress(OSError, ValueError):  # a string that cannot be a path
        # The file system is not asked about paths outside of the folder.
        if isinstance(path, str) and Path(os.path.normpath(path)).is_relative_to(folder):
            real = Path(os.path.realpath(os.path.normpath(path)))
            if real.is_relative_to(folder) and real.is_file():
                return str(real)
    raise DataError(
        "the picture was not uploaded to this page, or has been deleted since: upload it again"
    )


def read_upload(file: str | os.PathLike | BinaryIO) -> np.ndarray:
    """Read a picture from an untrusted client.

    Pillow decodes it, at the size that was checked. OpenCV would read the header itself, and a
    hostile file can have a different size there; other files have the same pixels in both.

    Args:
        file: Its path, or its content.

    Returns:
        (H, W, 3) of uint8, BGR; 16 bits become 8, grey becomes three channels, alpha is dropped.

    Raises:
        DataError: If it is not of ``FORMATS``, or truncated.
        TooLargeError: If it is larger than servers take; known from its header, before anything is
            decoded.
    """
    name = Path(file).name if isinstance(file, (str, os.PathLike)) else "upload"
    try:
        with Image.open(file, formats=FORMATS) as opened:
            width, height = opened.size
            check_pixels(name, width, height, MAX_PIXELS)
            if max(width, height) > MAX_SIDE:
                raise TooLargeError(
                    f"{name} is too large: {width} x {height} pixels; servers take up to "
                    f"{MAX_SIDE} a side; use liteseg infer for larger ones"
                )
            image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits of grey, which convert() clips
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{name} is too large: {error}") from error
    except Exception as error:  # a hostile file may raise anything
        raise DataError(
            f"cannot read image {name}: it is not a PNG, JPEG, WebP or BMP file, or is truncated"
        ) from error
