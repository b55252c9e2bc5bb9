"""CamVid: its 11 classes, the colours of its labels, and the published split.

Source: Brostow et al., "Semantic object classes in video" (2009), 701 frames of 960x720 with
labels in 32 colours; as regrouped into 11 classes, and split, for SegNet (Badrinarayanan et al.,
2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from liteseg_plugin.datasets.base import ClassInfo

CLASSES: tuple[ClassInfo, ...] = (
    ClassInfo("sky", (128, 128, 128)),
    ClassInfo("building", (128, 0, 0)),
    ClassInfo("pole", (192, 192, 128)),
    ClassInfo("road", (128, 64, 128)),
    ClassInfo("sidewalk", (0, 0, 192)),
    ClassInfo("tree", (128, 128, 0)),
    ClassInfo("sign_symbol", (192, 128, 128)),
    ClassInfo("fence", (64, 64, 128)),
    ClassInfo("car", (64, 0, 128)),
    ClassInfo("pedestrian", (64, 64, 0)),
    ClassInfo("bicyclist", (0, 128, 192)),
)

NUM_CLASSES: int = len(CLASSES)
CLASS_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)
# (11, 3), row i is the RGB colour of class i.
PALETTE_RGB: np.ndarray = np.array([c.color_rgb for c in CLASSES], dtype=np.uint8)


class LabelColor(NamedTuple):
    """One colour of a label image, and its class.

    Attributes:
        name: as in the original distribution.
        color_rgb: 0..255 each.
        becomes: a name of `CLASS_NAMES`, or None for `IGNORE_INDEX`.
    """

    name: str
    color_rgb: tuple[int, int, int]
    becomes: str | None


# Child and OtherMoving count as pedestrian and car in other groupings; in SegNet's own labels of
# the frames that show them they are void.
LABEL_COLORS: tuple[LabelColor, ...] = (
    LabelColor("Sky", (128, 128, 128), "sky"),
    LabelColor("Building", (128, 0, 0), "building"),
    LabelColor("Wall", (64, 192, 0), "building"),
    LabelColor("Bridge", (0, 128, 64), "building"),
    LabelColor("Tunnel", (64, 0, 64), "building"),
    LabelColor("Archway", (192, 0, 128), "building"),
    LabelColor("Column_Pole", (192, 192, 128), "pole"),
    LabelColor("TrafficCone", (0, 0, 64), "pole"),
    LabelColor("Road", (128, 64, 128), "road"),
    LabelColor("LaneMkgsDriv", (128, 0, 192), "road"),
    LabelColor("LaneMkgsNonDriv", (192, 0, 64), "road"),
    LabelColor("Sidewalk", (0, 0, 192), "sidewalk"),
    LabelColor("ParkingBlock", (64, 192, 128), "sidewalk"),
    LabelColor("RoadShoulder", (128, 128, 192), "sidewalk"),
    LabelColor("Tree", (128, 128, 0), "tree"),
    LabelColor("VegetationMisc", (192, 192, 0), "tree"),
    LabelColor("SignSymbol", (192, 128, 128), "sign_symbol"),
    LabelColor("Misc_Text", (128, 128, 64), "sign_symbol"),
    LabelColor("TrafficLight", (0, 64, 64), "sign_symbol"),
    LabelColor("Fence", (64, 64, 128), "fence"),
    LabelColor("Car", (64, 0, 128), "car"),
    LabelColor("SUVPickupTruck", (64, 128, 192), "car"),
    LabelColor("Truck_Bus", (192, 128, 192), "car"),
    LabelColor("Train", (192, 64, 128), "car"),
    LabelColor("Pedestrian", (64, 64, 0), "pedestrian"),
    LabelColor("CartLuggagePram", (64, 0, 192), "pedestrian"),
    LabelColor("Animal", (64, 128, 64), "pedestrian"),
    LabelColor("Bicyclist", (0, 128, 192), "bicyclist"),
    LabelColor("MotorcycleScooter", (192, 0, 192), "bicyclist"),
    LabelColor("Child", (192, 128, 64), None),
    LabelColor("OtherMoving", (128, 64, 64), None),
    LabelColor("Void", (0, 0, 0), None),
    # Two colours of SegNet's demonstration only.
    LabelColor("Pavement", (60, 40, 222), "sidewalk"),
    LabelColor("Road_marking", (255, 69, 0), "road"),
)
SEGNET_VOID: int = 11
"""Void in the index labels of the SegNet edition."""


class FrameRange(NamedTuple):
    """Frames of a video: their names are `prefix` and a number of as many digits as `first`."""

    split: str
    prefix: str
    first: str
    last: str
    step: int

    def names(self) -> Iterator[str]:
        """Give the names of the frames, without their extension."""
        for number in range(int(self.first), int(self.last) + 1, self.step):
            yield f"{self.prefix}{number:0{len(self.first)}d}"


# The published split: 367 frames to train on, 101 to validate on, 233 to test on.
SPLIT: tuple[FrameRange, ...] = (
    FrameRange("train", "0001TP_", "006690", "008520", 30),
    FrameRange("train", "0006R0_f", "00930", "03930", 30),
    FrameRange("train", "0016E5_", "00390", "00870", 30),
    FrameRange("train", "0016E5_", "00901", "00901", 1),
    FrameRange("train", "0016E5_", "00930", "02400", 30),
    FrameRange("train", "0016E5_", "04350", "07920", 30),
    FrameRange("train", "0016E5_", "08190", "08640", 30),
    FrameRange("val", "0016E5_", "07959", "08159", 2),
    FrameRange("test", "0001TP_", "008550", "010380", 30),
    FrameRange("test", "Seq05VD_f", "00000", "05100", 30),
)


def published_split() -> dict[str, str]:
    """Return the split of each of the 701 frames, by its name without extension."""
    return {name: frames.split for frames in SPLIT for name in frames.names()}
