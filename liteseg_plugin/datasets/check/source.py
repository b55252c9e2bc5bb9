"""What to check: a folder with lists, or the data sets of a config."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from liteseg_plugin.datasets.base import IGNORE_INDEX, SPLIT_NAMES
from liteseg_plugin.datasets.classes import read_names
from liteseg_plugin.datasets.image_format import ImageFormat
from liteseg_plugin.datasets.lists import Pair, find_list, no_list, read_list
from liteseg_plugin.datasets.validation import Fault
from liteseg_plugin.errors import DataError

if TYPE_CHECKING:
    from paddleseg.cvlibs import SegBuilder


@dataclass(frozen=True)
class Split:
    """Images and labels of one split, and the errors in its list."""

    name: str
    pairs: Sequence[Pair]
    faults: Sequence[Fault] = ()


@dataclass(frozen=True)
class DataSet:
    """What to check.

    Attributes:
        root: The folder.
        splits: Its splits.
        ignore_index: Label of ignored pixels.
        num_classes: Number of classes; None: one more than the largest value in the labels.
        num_classes_from: What states it, for messages.
        kind: The config's type of data set.
        batch_size: Images of a training batch in one process, if known.
        crop_wh: Width and height of a training crop in pixels, if known.
        pads: Whether crops are padded where an image is smaller.
        image_format: What the images are read as; None: as most of them are.
        channels: Number of channels that the user asks for; None: those of most images.
        separator: Separator of image and label in its lists.
        whole: Whether these are all splits, so that an image in none of them is reported.
    """

    root: str
    splits: Sequence[Split]
    ignore_index: int = IGNORE_INDEX
    num_classes: int | None = None
    num_classes_from: str = "--num_classes"
    kind: str = "Dataset"
    batch_size: int | None = None
    crop_wh: tuple[int, int] | None = None
    pads: bool = False
    separator: str = " "
    whole: bool = False
    image_format: ImageFormat | None = None
    channels: int | None = None


def from_folder(
    root: str | os.PathLike,
    *,
    separator: str = " ",
    num_classes: int | None = None,
    ignore_index: int = IGNORE_INDEX,
    batch_size: int | None = None,
    channels: int | None = None,
) -> DataSet:
    """Find the lists `train`, `val` and `test` (`.txt` or `.list`) of a folder.

    Args:
        root: The folder.
        separator: Separator of image and label in a line.
        num_classes: Number of classes; by default that of the lines of `labels.txt`, or 19 for
            Cityscapes' tree.
        ignore_index: Label of ignored pixels.
        batch_size: For the suggested `min_kept`.
        channels: Number of channels to read; by default those of most images.

    Raises:
        DataError: If there is no list, or one cannot be read.
    """
    if not os.path.isdir(root):
        raise DataError(f"folder not found: {root}")
    splits = []
    for name in SPLIT_NAMES:
        path = find_list(root, name)
        if path is None:
            continue
        pairs, faults = read_list(path, root, separator=separator, labelled=name != "test")
        if not pairs and not faults and name != "test":
            faults = [Fault("list", f"the list {path} of data set {root} is empty")]
        splits.append(Split(name, pairs, faults))
    if not splits:
        raise no_list("train, val or test (.txt or .list)", root)
    is_cityscapes = Path(root, "leftImg8bit").is_dir() and Path(root, "gtFine").is_dir()
    if num_classes is None:
        num_classes = 19 if is_cityscapes else len(read_names(root)) or None
    return DataSet(
        root=str(root),
        splits=splits,
        ignore_index=ignore_index,
        num_classes=num_classes,
        kind="Cityscapes" if is_cityscapes else "Dataset",
        batch_size=batch_size,
        separator=separator,
        whole=True,
        channels=channels,
    )


def from_config(builder: SegBuilder, path: str = "the config") -> DataSet:
    """Take `train_dataset` and `val_dataset` of a config, which messages name by its path.

    Raises:
        DataError: If a list cannot be used.
    """
    config = builder.config
    names = [name for name in ("train", "val") if getattr(config, f"{name}_dataset_cfg")]
    parts = {name: getattr(builder, f"{name}_dataset") for name in names}
    one = next(iter(parts.values()))
    crop_wh, pads, resized = None, False, False
    for transform in config.train_dataset_cfg.get("transforms", []):
        size = transform.get("crop_size", transform.get("target_size"))
        crop_wh = tuple(size) if isinstance(size, (list, tuple)) else crop_wh
        kind = str(transform.get("type"))
        resized |= kind.startswith("Resize") and kind != "ResizeStepScaling"
        pads |= kind == "RandomPaddingCrop" and not resized
    return DataSet(
        root=str(one.dataset_root),
        splits=[Split(name, [Pair(*pair) for pair in p.file_list]) for name, p in parts.items()],
        ignore_index=one.ignore_index,
        num_classes=one.num_classes,
        num_classes_from=path,
        kind=type(one).__name__,
        batch_size=config.batch_size,
        crop_wh=crop_wh,
        pads=pads,
        image_format=ImageFormat.of_config(config.train_dataset_cfg, config.model_cfg),
    )
