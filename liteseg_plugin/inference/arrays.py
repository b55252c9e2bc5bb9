"""Images as callers hand them over: arrays, paths and PIL images."""

from __future__ import annotations

import os
from typing import Union

import numpy as np
from PIL import Image

from liteseg_plugin.datasets.image_format import RGB, ImageFormat
from liteseg_plugin.errors import DataError

AnyImage = Union[np.ndarray, str, "os.PathLike[str]", Image.Image]

TAKEN = "an image must be (H, W, 3) of uint8 in BGR, the path of an image, or a PIL image"
_PIL_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def conversion_of(image: np.ndarray) -> str:
    """Say what makes an image of an array that is not one."""
    if image.dtype != np.uint8:
        return "; convert it to values from 0 to 255 of uint8"
    if image.ndim == 2 or image.shape[2:] == (1,):
        return "; cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) converts it"
    if image.shape[2:] == (4,):
        return "; cv2.cvtColor(image, cv2.COLOR_BGRA2BGR) converts it"
    return ""


def as_array(image: AnyImage, image_format: ImageFormat = RGB) -> np.ndarray:
    """Return an image as an array, as :meth:`Predictor.read` gives it; an array stays as it is.

    Raises:
        DataError: If a path cannot be read, or it is none of these.
    """
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, (str, os.PathLike)):
        return image_format.read(image)
    if isinstance(image, Image.Image):
        if not image_format.is_rgb:
            stored = image.convert("RGB") if image.mode == "P" else image
            array = np.asarray(stored)
            return array[..., ::-1] if array.shape[2:] == (3,) else array
        if image.mode not in _PIL_MODES:
            raise DataError(f"a PIL image of mode {image.mode} has no 8-bit colours; convert it")
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
    if image is None:
        raise DataError(
            "the image is None, which cv2.imread returns for a file that is missing or not an "
            "image; give the path instead, and the error says what is wrong with the file"
        )
    raise DataError(f"{TAKEN}, got {type(image).__name__}")
