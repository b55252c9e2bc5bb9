"""The 11 classes of the SegNet edition of CamVid.

Source: Brostow et al., "Semantic object classes in video" (2009), as regrouped for SegNet
(Badrinarayanan et al., 2015). A label image holds one class index a pixel, or `IGNORE_INDEX`.
The conversion of the raw 32-class colour labels is to be added by a later issue.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class CamVidClass(NamedTuple):
    """One class; its index is its place in `CLASSES`.

    Attributes:
        name: as in the data set's `labels.txt`.
        color_rgb: colour in the label pictures, 0..255 each.
    """

    name: str
    color_rgb: tuple[int, int, int]


CLASSES: tuple[CamVidClass, ...] = (
    CamVidClass("sky", (128, 128, 128)),
    CamVidClass("building", (128, 0, 0)),
    CamVidClass("pole", (192, 192, 128)),
    CamVidClass("road", (128, 64, 128)),
    CamVidClass("sidewalk", (0, 0, 192)),
    CamVidClass("tree", (128, 128, 0)),
    CamVidClass("sign_symbol", (192, 128, 128)),
    CamVidClass("fence", (64, 64, 128)),
    CamVidClass("car", (64, 0, 128)),
    CamVidClass("pedestrian", (64, 64, 0)),
    CamVidClass("bicyclist", (0, 128, 192)),
)

IGNORE_INDEX: int = 255
NUM_CLASSES: int = len(CLASSES)
CLASS_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)
# (11, 3), row i is the RGB colour of class i.
PALETTE_RGB: np.ndarray = np.array([c.color_rgb for c in CLASSES], dtype=np.uint8)
