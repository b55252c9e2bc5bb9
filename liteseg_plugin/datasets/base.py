"""What every data set has: classes, splits, and an ignored label."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

IGNORE_INDEX = 255
"""PaddleSeg's default label of ignored pixels."""

SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Document:
    """A record whose fields are its document for JSON."""

    def to_json(self) -> dict[str, Any]:
        """Return the document."""
        return asdict(self)


@dataclass(frozen=True)
class ClassInfo:
    """Name and colour of a class; its index is its place in the list of classes.

    Attributes:
        name: As in ``labels.txt``.
        color_rgb: Red, green and blue, 0 to 255.
    """

    name: str
    color_rgb: tuple[int, int, int]

    @property
    def color_bgr(self) -> tuple[int, int, int]:
        """The colour in OpenCV's order."""
        red, green, blue = self.color_rgb
        return blue, green, red

    @property
    def css(self) -> str:
        """The colour as CSS writes it."""
        return "rgb({}, {}, {})".format(*self.color_rgb)

    def to_json(self) -> dict[str, Any]:
        """Return ``{"name": "road", "color": [128, 64, 128]}``."""
        return {"name": self.name, "color": list(self.color_rgb)}

    @classmethod
    def from_json(cls, entry: Any) -> ClassInfo:
        """Read what :meth:`to_json` returns.

        Raises:
            ValueError: If it is something else.
        """
        known = entry if isinstance(entry, dict) else {}
        name, color = known.get("name"), known.get("color")
        if (
            not isinstance(name, str)
            or not isinstance(color, list)
            or len(color) != 3
            or not all(type(value) is int and 0 <= value <= 255 for value in color)
        ):
            raise ValueError(
                f"class {entry!r}: it must have a name, and a color of three whole numbers from 0 "
                "to 255"
            )
        return cls(name, (color[0], color[1], color[2]))
