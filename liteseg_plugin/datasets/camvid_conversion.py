"""Conversion of CamVid's distributions to PaddleSeg's layout.

A label image holds one class index per pixel, or ``IGNORE_INDEX``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from liteseg_plugin.datasets import camvid, validation
from liteseg_plugin.datasets.base import IGNORE_INDEX, SPLIT_NAMES, Document
from liteseg_plugin.datasets.lists import Pair
from liteseg_plugin.errors import DataError
from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.system.parallel import process

_UNKNOWN = 254


def to_indices(label: np.ndarray, *, void_unknown: bool = False) -> np.ndarray:
    """Turn a label of any distribution into class indices.

    Args:
        label: Colours (H, W, 3 or 4), RGB, or SegNet's indices (H, W).
        void_unknown: Set colours without a class to `IGNORE_INDEX`.

    Returns:
        (H, W) of uint8: 0..10 and `IGNORE_INDEX`.

    Raises:
        DataError: If a colour or an index is not a class.
    """
    if label.ndim == 2:
        indices = np.where(label == camvid.SEGNET_VOID, IGNORE_INDEX, label)
        validation.check_label(indices, indices.shape, camvid.NUM_CLASSES, IGNORE_INDEX)
        return indices.astype(np.uint8)
    codes = label[..., :3].astype(np.int32) @ (1 << 16, 1 << 8, 1)
    classes = _class_of_color()[codes]
    unknown = codes[classes == _UNKNOWN]
    if unknown.size and not void_unknown:
        values, counts = np.unique(unknown, return_counts=True)
        most = np.argsort(-counts)[:8]
        colors = (f"{tuple(int(values[i]).to_bytes(3, 'big'))} ({counts[i]} pixels)" for i in most)
        raise DataError(
            f"{len(values)} colours that are not classes of CamVid: {', '.join(colors)} (RGB); "
            "--void_unknown makes such pixels void"
        )
    return np.where(classes == _UNKNOWN, IGNORE_INDEX, classes).astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _class_of_color() -> np.ndarray:
    """Return the class of each of the 2^24 colours."""
    table = np.full(1 << 24, _UNKNOWN, np.uint8)
    for _, color_rgb, becomes in camvid.LABEL_COLORS:
        index = IGNORE_INDEX if becomes is None else camvid.CLASS_NAMES.index(becomes)
        table[int.from_bytes(color_rgb, "big")] = index
    return table


def find_pairs(source: str | os.PathLike) -> dict[str, Pair]:
    """Find frames and labels of either distribution, by the frame's name.

    The SegNet edition has folders `train` and `trainannot`, `val` and `valannot`, `test` and
    `testannot`. The original has labels named `NAME_L.png`, anywhere below `source`, and frames
    named `NAME.png`, beside them or in another folder.

    Raises:
        DataError: If no frames are found, a label has no frame, or two files have one name.
    """
    source = Path(source)
    if not source.is_dir():
        raise DataError(f"folder not found: {source}")
    for root in (source, source / "CamVid"):
        folders = [(root / s, root / f"{s}annot") for s in SPLIT_NAMES]
        folders = [pair for pair in folders if all(folder.is_dir() for folder in pair)]
        if folders:
            frames = _by_name(path for folder, _ in folders for path in folder.iterdir())
            labels = _by_name(path for _, folder in folders for path in folder.iterdir())
            break
    else:
        everything = [path for path in sorted(source.rglob("*")) if path.is_file()]
        labels = _by_name(path for path in everything if path.stem.endswith("_L"))
        labels = {name[: -len("_L")]: path for name, path in labels.items()}
        frames = _by_name(path for path in everything if path.stem in labels)
    if not labels:
        raise DataError(
            f"{source} is not CamVid: neither labels named NAME_L.png (the original distribution) "
            "nor folders train and trainannot (SegNet's edition)"
        )
    alone = sorted(labels.keys() - frames.keys())
    if alone:
        raise DataError(f"{len(alone)} labels have no frame, the first is {labels[alone[0]]}")
    return {name: Pair(str(frames[name]), str(labels[name])) for name in sorted(labels)}


def _by_name(paths: Iterator[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() not in validation.IMAGE_SUFFIXES:
            continue
        if path.stem in found:
            raise DataError(f"two files with one name: {found[path.stem]} and {path}")
        found[path.stem] = path
    return found


@dataclass(frozen=True)
class Conversion(Document):
    """What :func:`convert` wrote.

    Attributes:
        dest: The folder.
        train: Number of frames, like ``val`` and ``test``.
        published: Number of frames of the published split, by split.
        left_out: Names of frames that are in no split.
    """

    dest: str
    train: int
    val: int
    test: int
    published: dict[str, int]
    left_out: list[str]


def convert(
    source: str | os.PathLike,
    dest: str | os.PathLike,
    *,
    resolution_wh: tuple[int, int] | None = None,
    void_unknown: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Conversion:
    """Write CamVid in PaddleSeg's layout.

    The layout: `images/NAME.png`, `annot/NAME.png` (8-bit class indices), `train.txt`, `val.txt`
    and `test.txt` by the published split with lines `images/NAME.png annot/NAME.png`, and
    `labels.txt`. The lists come last: where they are, everything else is.

    Args:
        source: The original distribution or SegNet's edition; see :func:`find_pairs`.
        dest: Folder to create.
        resolution_wh: Width and height in pixels to resize to; by default those of the source.
        void_unknown: Set colours without a class to void instead of raising an error.
        workers: Number of threads; default: one per processor.
        progress: Show a progress bar.

    Raises:
        DataError: If the source is not CamVid, or one of its files cannot be used.
        ValueError: If the resolution is not positive.
    """
    source, dest = Path(source), Path(dest)
    if resolution_wh is not None and min(resolution_wh) < 1:
        raise ValueError(f"--size must be a width and a height in pixels, got {resolution_wh}")
    inner, outer = dest.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise DataError(f"{dest} and {source} contain one another; choose another DEST")
    split_of = camvid.published_split()
    pairs = find_pairs(source)
    left_out = [name for name in pairs if name not in split_of]
    names = [name for name in pairs if name in split_of]
    if not names:
        raise DataError(
            f"none of the {len(pairs)} frames in {source} is in CamVid's published split, e.g. "
            f"{left_out[0]}"
        )
    for split in SPLIT_NAMES:
        (dest / f"{split}.txt").unlink(missing_ok=True)

    def convert_one(name: str) -> None:
        image, label = _read(pairs[name], void_unknown)
        if resolution_wh is not None and resolution_wh != image.shape[1::-1]:
            smaller = resolution_wh[0] < image.shape[1]
            method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            encoded = _png(cv2.resize(image, resolution_wh, interpolation=method))
            label = cv2.resize(label, resolution_wh, interpolation=cv2.INTER_NEAREST)
        elif pairs[name].image.lower().endswith(".png"):
            encoded = Path(pairs[name].image).read_bytes()
        else:
            encoded = _png(image)
        atomic_write(dest / "images" / f"{name}.png", encoded)
        atomic_write(dest / "annot" / f"{name}.png", _png(label))

    process(convert_one, names, description="CamVid", workers=workers, progress=progress)
    atomic_write(dest / "labels.txt", ("\n".join(camvid.CLASS_NAMES) + "\n").encode())
    counts = {}
    for split in SPLIT_NAMES:
        lines = [f"images/{n}.png annot/{n}.png\n" for n in names if split_of[n] == split]
        atomic_write(dest / f"{split}.txt", "".join(lines).encode())
        counts[split] = len(lines)
    published = {split: list(split_of.values()).count(split) for split in SPLIT_NAMES}
    return Conversion(str(dest), **counts, published=published, left_out=left_out)


def _read(pair: Pair, void_unknown: bool) -> tuple[np.ndarray, np.ndarray]:
    image = validation.read_image(pair.image, labelled=True)
    label = validation.read_label(str(pair.label))
    try:
        label = to_indices(label, void_unknown=void_unknown)
        validation.check_label(label, image.shape[:2], camvid.NUM_CLASSES, IGNORE_INDEX)
    except DataError as error:
        raise DataError(validation.about(*pair, error)) from None
    return image, label


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()
