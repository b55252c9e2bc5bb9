"""What the header of an image file says: how many channels, of which values."""

from __future__ import annotations

import os
from typing import NamedTuple

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; those of a palette are colours
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OF_MODES = {"1": 1, "L": 1, "LA": 2, "I": 1, "I;16": 1, "I;16B": 1, "F": 1, "RGBA": 4}

# Tags of TIFF, and the value that stands for a missing one.
_WIDTH, _HEIGHT = 256, 257
_BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _FORMAT = 258, 262, 277, 284, 339
_KINDS = {2: "signed integers", 3: "floats"}
_PALETTE, _COLOURS = 3, (2, 6)


class StoredImage(NamedTuple):
    """How a file stores an image.

    Attributes:
        channels: Number of channels; 3 for a palette, whose colours count.
        bits: Of a value; 8 for fewer.
        kind: ``integers``, ``signed integers``, ``floats`` or ``palette``.
        bands: Whether it is a TIFF with channels that OpenCV reads as others, or not at all.
    """

    channels: int = 3
    bits: int = 8
    kind: str = "integers"
    bands: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is grey or RGB of 8 bits, as most images are."""
        return self.channels in (1, 3) and self.bits == 8 and self.kind in ("integers", "palette")

    @property
    def fault(self) -> str | None:
        """What makes its values unusable; None if nothing does."""
        if self.kind in ("integers", "palette") and self.bits <= 16:
            return None
        return f"it has {self}; only unsigned integers of 8 or 16 bits are read: scale it to uint16"

    def __str__(self) -> str:
        """Return it in words."""
        if self.kind == "palette":
            return "a palette"
        return f"{self.channels} channel{'s'[: self.channels - 1]} of {self.bits}-bit {self.kind}"

    @classmethod
    def of(cls, path: str | os.PathLike) -> StoredImage:
        """Read the header of a file; what is not an image counts as 8-bit RGB.

        Raises:
            OSError: If the file cannot be read.
        """
        with open(path, "rb") as file:
            head = file.read(26)
            if head.startswith(_PNG) and head[25:]:
                channels = _PNG_CHANNELS.get(head[25], 3)
                kind = "palette" if head[25] == _PALETTE else "integers"
                return cls(channels, max(8, head[24]), kind)
            if head.startswith(_TIFF):
                return cls._of_tiff(tiff_tags(path))
        try:
            with Image.open(path) as image:
                mode = image.mode
        except Exception:  # reading the image says what is wrong
            return cls()
        channels = _OF_MODES.get(mode, 3)
        kind = {"P": "palette", "F": "floats"}.get(mode, "integers")
        return cls(channels, 16 if mode.startswith("I") else 8, kind)

    @classmethod
    def _of_tiff(cls, tags: ImageFileDirectory_v2) -> StoredImage:
        channels, photometric = tags.get(_SAMPLES, 1), tags.get(_PHOTOMETRIC, 1)
        bits = max(8, *_numbers(tags, _BITS, 1))
        kind = _KINDS.get(max(_numbers(tags, _FORMAT, 1)), "integers")
        if photometric == _PALETTE:
            return cls(3, 8, "palette")
        contiguous = tags.get(_PLANES, 1) == 1
        # OpenCV reads 8 bits by libtiff's conversion to RGBA, which multiplies colours by alpha.
        as_stored = photometric in _COLOURS and (
            channels == 3 if bits == 8 else channels in (3, 4) and contiguous
        )
        return cls(channels, bits, kind, bands=channels > 1 and not as_stored)


def tiff_tags(path: str | os.PathLike) -> ImageFileDirectory_v2:
    """Return the tags of the first image of a TIFF; empty if they cannot be read."""
    with open(path, "rb") as file:
        head = file.read(8)
        head += file.read(8) if head[2:4] in (b"+\0", b"\0+") else b""
        try:
            tags = ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
        except Exception:  # a hostile file may raise anything
            return ImageFileDirectory_v2()
        return tags


def tiff_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return width and height of a TIFF; 0 if they cannot be read."""
    tags = tiff_tags(path)
    return tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)


def _numbers(tags: ImageFileDirectory_v2, tag: int, missing: int) -> tuple[int, ...]:
    found = tags.get(tag, missing)
    return found if isinstance(found, tuple) else (found,)
