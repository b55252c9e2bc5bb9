"""Names and colours of a data set's classes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from liteseg_plugin.datasets import camvid, cityscapes
from liteseg_plugin.datasets.base import IGNORE_INDEX, ClassInfo
from liteseg_plugin.errors import ConfigError
from liteseg_plugin.system.text import read_text

# Class names with their own colours.
_KNOWN = {
    camvid.CLASS_NAMES: list(camvid.CLASSES),
    cityscapes.CLASS_NAMES: [ClassInfo(c.name, c.color_rgb) for c in cityscapes.CLASSES],
}


def read_names(root: str | os.PathLike) -> list[str]:
    """Return the lines of `labels.txt` in a data set's folder, or nothing if it is missing.

    Raises:
        ConfigError: If it is not UTF-8.
    """
    labels = Path(root, "labels.txt")
    lines = read_text(labels).splitlines() if labels.is_file() else []
    return [line.strip() for line in lines if line.strip()]


def describe_classes(dataset_config: dict, num_classes: int) -> list[ClassInfo]:
    """Return names and colours of the classes of a config's `val_dataset`, in index order.

    Names are those of Cityscapes for its data set, else of `labels.txt` in the folder (one a
    line), else the numbers; colours are CamVid's and Cityscapes' for their classes, else
    PaddleSeg's colour map.

    Raises:
        ConfigError: If there are more classes than 8-bit label maps hold, or `labels.txt` is not
            UTF-8.
    """
    ignore_index = dataset_config.get("ignore_index", IGNORE_INDEX)
    # In a label map 255 would be both the last of 256 classes and an ignored pixel.
    most = 255 if ignore_index == 255 else 256
    if num_classes > most:
        raise ConfigError(
            f"num_classes {num_classes}: label maps are 8-bit and hold up to {most} classes "
            f"(ignore_index is {ignore_index}); merge classes"
        )
    root = dataset_config.get("dataset_root", ".")
    names = read_names(root)
    if dataset_config.get("type") == "Cityscapes":
        names = list(cityscapes.CLASS_NAMES)
    if len(names) != num_classes:
        if names:
            warnings.warn(
                f"{Path(root, 'labels.txt')} names {len(names)} classes, not {num_classes}; "
                "numbers are used",
                stacklevel=2,
            )
        return numbered_classes(num_classes)
    known = _KNOWN.get(tuple(names), [])
    return [*known] or [ClassInfo(name, _color(index)) for index, name in enumerate(names)]


def numbered_classes(count: int) -> list[ClassInfo]:
    """Return classes that have numbers for names, and PaddleSeg's colours."""
    return [ClassInfo(str(index), _color(index)) for index in range(count)]


def recolored(classes: Sequence[ClassInfo], values: Sequence[int]) -> list[ClassInfo]:
    """Return the classes, the first ones with other colours.

    Args:
        classes: As :func:`describe_classes` gives them.
        values: Red, green and blue of the first class, of the second, ...

    Raises:
        ConfigError: If these are not three values from 0 to 255 a class.
    """
    count = len(values) // 3
    if len(values) % 3 or count > len(classes) or not all(0 <= v <= 255 for v in values):
        raise ConfigError(
            f"{len(values)} colour values {list(values)}: give red, green and blue, 0 to 255, for "
            f"up to {len(classes)} classes"
        )
    colors = zip(values[::3], values[1::3], values[2::3])
    changed = [replace(entry, color_rgb=color) for entry, color in zip(classes, colors)]
    return [*changed, *classes[count:]]


def _color(index: int) -> tuple[int, int, int]:
    """Return PaddleSeg's colour (`get_color_map_list`): VOC's without the black at its start."""
    color, rest, bit = [0, 0, 0], index + 1, 7
    while rest:
        for channel in range(3):
            color[channel] |= (rest >> channel & 1) << bit
        rest, bit = rest >> 3, bit - 1
    return color[0], color[1], color[2]
