"""What a check found, as a document and as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.check.channels import Channel
from liteseg_plugin.datasets.image_format import RGB, ImageFormat
from liteseg_plugin.errors import printable
from liteseg_plugin.system.parallel import per_second

WEIGHT_FORMULA = (
    "ENet (arXiv 1606.02147): 1 / ln(1.02 + share of the labelled pixels), divided by their mean "
    "over the labelled pixels, so that the loss keeps its size"
)

_ALWAYS_SHOWN = 40
"""Classes beyond these have a line only if a label holds them."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with a data set.

    Attributes:
        kind: A short word for programs, such as ``label-range``.
        split: Where it is; None for the whole data set.
        image: Path of the image; None if it is not about one.
        label: Path of the label; None likewise.
        message: A readable sentence.
    """

    kind: str
    split: str | None
    image: str | None
    label: str | None
    message: str


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs.

    Attributes:
        index: Of the class.
        info: Name and colour.
        pixels: Number of pixels by split.
        images: Number of images with the class by split.
        share: Share of the labelled pixels, 0 to 1, of ``train`` if there is such a split.
        weight: Suggested weight in the loss, by ``WEIGHT_FORMULA``.
    """

    index: int
    info: ClassInfo
    pixels: dict[str, int]
    images: dict[str, int]
    share: float
    weight: float

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        document = asdict(self)
        del document["info"]
        return {**self.info.to_json(), **document}


@dataclass(frozen=True)
class Size:
    """Width and height of images in pixels, and the number of images of this size."""

    width: int
    height: int
    images: int


@dataclass(frozen=True)
class MinKept:
    """Suggested ``min_kept`` of OHEM.

    Attributes:
        width: Of a training image in pixels.
        height: Likewise.
        batch_size: Images of a batch; None if it is not known.
        per_image: Pixels to keep of each image.
        value: Pixels to keep of a batch; None without ``batch_size``.
    """

    width: int
    height: int
    batch_size: int | None
    per_image: int
    value: int | None


@dataclass(frozen=True)
class Sample:
    """A pair to show: the paths of image and label, and their split."""

    split: str
    image: str
    label: str


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        data: The data set's folder.
        images: Number of images.
        seconds: Time that the check took.
        splits: Number of images by split.
        num_classes: Number of classes.
        ignore_index: Label of ignored pixels.
        errors: What stops a training.
        warnings: What does not.
        sizes: Sizes of the images, the most frequent first.
        classes: The classes in index order.
        ignored_share: Share of ignored pixels, 0 to 1.
        min_kept: A suggestion; None if no image can be read.
        samples: Pairs to show, evenly over the splits.
        image_format: What the images are read as.
        format_reason: Why, in words.
        channels: Mean and standard deviation of each channel, of ``train`` if there is such a
            split; for three channels of red, green and blue.
    """

    data: str
    images: int
    seconds: float
    splits: dict[str, int]
    num_classes: int
    ignore_index: int
    errors: list[Finding]
    warnings: list[Finding]
    sizes: list[Size]
    classes: list[ClassCount]
    ignored_share: float
    min_kept: MinKept | None
    samples: list[Sample]
    image_format: ImageFormat = RGB
    format_reason: str = ""
    channels: list[Channel] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    @property
    def images_per_second(self) -> float:
        """How fast the images were checked."""
        return per_second(self.images, self.seconds)

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        return {
            "ok": self.ok,
            **asdict(self),
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
            "classes": [entry.to_json() for entry in self.classes],
            "weight_formula": WEIGHT_FORMULA,
        }

    def text(self, *, shown: int = 5) -> str:
        """Return the report as lines for the terminal.

        Args:
            shown: Number of messages per kind; the others are only counted.
        """
        counts = ", ".join(f"{name} {n}" for name, n in self.splits.items())
        sizes = [f"{size.width}x{size.height} ({size.images})" for size in self.sizes]
        lines = [
            f"{printable(self.data)}: {self.images} images ({counts}) in {self.seconds:.1f} s, "
            f"{self.images_per_second:.0f} per second",
            f"sizes: {', '.join(sizes[:6])}{' ...' if len(sizes) > 6 else ''}",
            f"images: {self.image_format}, {self.format_reason}",
            "mean and std of 0 to 1, by channel: "
            + ", ".join(f"{c.mean:g} {c.std:g}" for c in self.channels),
            f"{'class':>6} {'name':16}{'share':>9}{'images':>8}{'weight':>8}",
        ]
        lines += [
            f"{entry.index:6} {printable(entry.info.name)[:16]:16}{entry.share:9.3%}"
            f"{sum(entry.images.values()):8}{entry.weight:8.2f}"
            for entry in self.classes
            if entry.index < _ALWAYS_SHOWN or any(entry.images.values())
        ]
        if len(lines) - 5 < len(self.classes):
            absent = len(self.classes) - len(lines) + 5
            lines.append(f"   ... {absent} more classes, which no label holds")
        lines.append(f"ignored ({self.ignore_index}): {self.ignored_share:.1%} of the pixels")
        lines.append(f"weights: {WEIGHT_FORMULA}")
        if self.min_kept:
            kept = self.min_kept
            value = kept.value or f"{kept.per_image} for each image of a batch"
            batch = f", batch {kept.batch_size}" if kept.value else ""
            size = f"{kept.width}x{kept.height}{batch}"
            lines.append(f"min_kept of OHEM: {value} (a sixteenth of the pixels at {size})")
        for severity, findings in (("errors", self.errors), ("warnings", self.warnings)):
            lines.append(f"{severity}: {len(findings)}")
            for kind, messages in messages_by_kind(findings).items():
                lines += [f"  {kind}: {printable(message)}" for message in messages[:shown]]
                if len(messages) > shown:
                    lines.append(f"  {kind}: {len(messages) - shown} more (--json or --html: all)")
        return "\n".join(lines)


def messages_by_kind(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """Group the messages of findings by their kind."""
    groups = defaultdict(list)
    for finding in findings:
        groups[finding.kind].append(finding.message)
    return dict(groups)
