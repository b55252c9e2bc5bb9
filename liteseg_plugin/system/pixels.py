"""The bound on the pixels of an image, which is checked before an image is decoded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from PIL import Image

from liteseg_plugin.errors import LitesegError, TooLargeError, printable

MOST_PIXELS = 178_956_970
"""Pixels of an image, unless ``--max_pixels`` says otherwise: half a gigabyte, once decoded."""

_VARIABLE = "LITESEG_MAX_PIXELS"  # a variable, as loader processes inherit it
# OpenCV reads it when it is imported. A hostile file can have another size for OpenCV than for
# Pillow, by which sizes are checked.
_OPENCV = "OPENCV_IO_MAX_IMAGE_PIXELS"


def max_pixels(default: int = MOST_PIXELS) -> int:
    """Return the bound: that of ``--max_pixels``, or else ``default``."""
    return int(os.environ.get(_VARIABLE, default))


def check_pixels(name: object, width: int, height: int, default: int = MOST_PIXELS) -> None:
    """Check the size of an image, in pixels, as its header says.

    ``name`` is what the message calls the image, ``default`` the bound without ``--max_pixels``.

    Raises:
        TooLargeError: If it has more pixels.
    """
    most = max_pixels(default)
    if width * height > most:
        raise TooLargeError(
            f"{printable(name)} is too large: {width} x {height} pixels; the limit is {most} "
            "pixels in all, and --max_pixels sets it"
        )


def variables() -> dict[str, str]:
    """Return the environment variables that hold the bound, for processes of other machines."""
    return {name: os.environ[name] for name in (_VARIABLE, _OPENCV) if name in os.environ}


@contextlib.contextmanager
def limited(pixels: int | None) -> Iterator[None]:
    """Set the bound for a command, and for the processes that it starts; None: the default.

    Raises:
        LitesegError: If it is not positive.
    """
    if pixels is not None and pixels < 1:
        raise LitesegError(f"--max_pixels must be at least 1, got {pixels}")
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max(pixels or 0, before or 0)  # whose double is its own limit
    variables = {_VARIABLE: pixels, _OPENCV: pixels or MOST_PIXELS}
    kept = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(n) for name, n in variables.items() if n is not None})
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
