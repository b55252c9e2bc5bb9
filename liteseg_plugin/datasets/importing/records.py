"""What a format is read into, and the report of an import."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from liteseg_plugin.errors import printable


class Note(NamedTuple):
    """What was dropped or changed, and why.

    Attributes:
        kind: A short word for programs, such as ``unknown-name``.
        file: The file that it is about.
        message: A readable sentence, without the name of the file.
    """

    kind: str
    file: str
    message: str


class Shape(NamedTuple):
    """The pixels of one shape.

    Attributes:
        name: Its class.
        left: Column of the first column of the mask.
        top: Row of the first row of the mask.
        mask: (h, w) of uint8; not 0 inside the shape.
    """

    name: str
    left: int
    top: int
    mask: np.ndarray

    @classmethod
    def of(cls, name: str, mask: np.ndarray) -> Shape:
        """Return a shape of a mask (H, W) of uint8 of the whole picture."""
        left, top, width, height = cv2.boundingRect(mask)
        return cls(name, left, top, mask[top : top + height, left : left + width].copy())

    def paint(self, label: np.ndarray, value: int) -> None:
        """Set the shape's pixels of a label (H, W)."""
        height, width = self.mask.shape
        part = label[self.top : self.top + height, self.left : self.left + width]
        part[self.mask > 0] = value


@dataclass(frozen=True)
class Annotated:
    """An image and its annotation.

    Attributes:
        image: The image; it may be missing.
        annotation: The file to name in messages; the image, where one file annotates many.
        shapes: Gives the shapes, in the order of drawing, for the image's height and width; and
            notes on those that cannot be drawn.
        size_wh: Width and height that the annotation gives for the image, if it does.
        split: That of the source, if it has splits.
        content: The image's file where the annotation holds a copy of it.
    """

    image: Path
    annotation: Path
    shapes: Callable[[tuple[int, int]], Iterator[Shape | Note]]
    size_wh: tuple[int, int] | None = None
    split: str | None = None
    content: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Reading:
    """What a format's reader found.

    Attributes:
        root: Folder of the images; names in the new data set are relative to it.
        annotated: Images and their annotations.
        names: Class names in the order of the source; alphabetical where it has none.
        notes: What cannot be used.
        ignored: Names whose pixels the format sets to the ignored label.
        dense: Whether labels hold every pixel, so that pixels without a class are ignored.
    """

    root: Path
    annotated: Sequence[Annotated]
    names: Sequence[str]
    notes: Sequence[Note] = ()
    ignored: Sequence[str] = ()
    dense: bool = False


@dataclass(frozen=True)
class Options:
    """How to read a source.

    Attributes:
        images: Folder of the images, if it is not the usual one of the format.
        labels: Folder of the labels, likewise.
        table: File of class names and colours of label images.
        label_suffix: What follows the image's name in the label's, ``_mask`` for ``a_mask.png``.
        line_width: Width in pixels of lines.
        class_names: Names of the classes in index order, as the user gave them.
    """

    images: Path | None = None
    labels: Path | None = None
    table: Path | None = None
    label_suffix: str = ""
    line_width: int = 10
    class_names: Sequence[str] = ()


@dataclass(frozen=True)
class ImportReport:
    """What an import made, and what it dropped.

    Attributes:
        format: Of the source.
        source: The source.
        dest: Folder of the new data set.
        images: Number of images in it.
        splits: Number of images by split.
        split_by: ``source`` (its own splits), ``sequences`` (kept together) or ``images``.
        classes: Class names in index order.
        shapes: Number of shapes drawn, by class.
        unlabelled: What pixels outside all shapes became: ``background`` or ``ignore``.
        unlabelled_share: Their share of all pixels, 0 to 1.
        notes: What was dropped or changed.
    """

    format: str
    source: str
    dest: str
    images: int
    splits: dict[str, int]
    split_by: str
    classes: list[str]
    shapes: dict[str, int]
    unlabelled: str
    unlabelled_share: float
    notes: list[Note]

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        return {**asdict(self), "notes": [note._asdict() for note in self.notes]}

    def text(self, *, shown: int = 5) -> str:
        """Return the report as lines for the terminal.

        Args:
            shown: Number of messages per kind; the others are only counted.
        """
        counts = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        classes = [
            f"{index} {printable(name)} ({self.shapes.get(name, 0)})"
            for index, name in enumerate(self.classes)
        ]
        value = 255 if self.unlabelled == "ignore" else self.unlabelled
        lines = [
            f"{printable(self.dest)}: {self.images} images ({counts})",
            f"classes: {', '.join(classes)} (number of shapes)",
            f"outside all shapes: {self.unlabelled_share:.1%} of the pixels, now {value}",
            {
                "source": "split: as in the source",
                "sequences": "split by sequences: frames that differ only in their last number",
                "images": "split by image: by their names, the images are too few sequences; if "
                "they are frames of a video, val and test hold neighbours of training frames",
            }[self.split_by],
        ]
        groups: dict[str, list[str]] = defaultdict(list)
        for note in self.notes:
            groups[note.kind].append(f"{note.file}: {note.message}")
        lines += [f"dropped or changed: {len(self.notes)}"] if self.notes else []
        for kind, messages in groups.items():
            lines += [f"  {kind}: {printable(message)}" for message in messages[:shown]]
            if len(messages) > shown:
                lines.append(f"  {kind}: {len(messages) - shown} more (--json: all)")
        return "\n".join(lines)
