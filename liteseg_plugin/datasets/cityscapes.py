"""Cityscapes: its 19 classes, and the files that training needs in addition.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding" (2016). The
published labels name 34 labels by their `id`; the benchmark, and so training, has 19 classes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from liteseg_plugin.datasets.base import IGNORE_INDEX, SPLIT_NAMES, Document
from liteseg_plugin.datasets.validation import read_label
from liteseg_plugin.errors import DataError
from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.system.parallel import process
from liteseg_plugin.system.pixels import check_pixels


class CityscapesLabel(NamedTuple):
    """One label of the annotation.

    Attributes:
        name: as in the polygons.
        id: value in `*_labelIds.png`; -1 (licence plate) does not occur there.
        train_id: class index in training, or `IGNORE_INDEX`.
        color_rgb: 0..255 each.
    """

    name: str
    id: int
    train_id: int
    color_rgb: tuple[int, int, int]


LABELS: tuple[CityscapesLabel, ...] = (
    CityscapesLabel("unlabeled", 0, 255, (0, 0, 0)),
    CityscapesLabel("ego vehicle", 1, 255, (0, 0, 0)),
    CityscapesLabel("rectification border", 2, 255, (0, 0, 0)),
    CityscapesLabel("out of roi", 3, 255, (0, 0, 0)),
    CityscapesLabel("static", 4, 255, (0, 0, 0)),
    CityscapesLabel("dynamic", 5, 255, (111, 74, 0)),
    CityscapesLabel("ground", 6, 255, (81, 0, 81)),
    CityscapesLabel("road", 7, 0, (128, 64, 128)),
    CityscapesLabel("sidewalk", 8, 1, (244, 35, 232)),
    CityscapesLabel("parking", 9, 255, (250, 170, 160)),
    CityscapesLabel("rail track", 10, 255, (230, 150, 140)),
    CityscapesLabel("building", 11, 2, (70, 70, 70)),
    CityscapesLabel("wall", 12, 3, (102, 102, 156)),
    CityscapesLabel("fence", 13, 4, (190, 153, 153)),
    CityscapesLabel("guard rail", 14, 255, (180, 165, 180)),
    CityscapesLabel("bridge", 15, 255, (150, 100, 100)),
    CityscapesLabel("tunnel", 16, 255, (150, 120, 90)),
    CityscapesLabel("pole", 17, 5, (153, 153, 153)),
    CityscapesLabel("polegroup", 18, 255, (153, 153, 153)),
    CityscapesLabel("traffic light", 19, 6, (250, 170, 30)),
    CityscapesLabel("traffic sign", 20, 7, (220, 220, 0)),
    CityscapesLabel("vegetation", 21, 8, (107, 142, 35)),
    CityscapesLabel("terrain", 22, 9, (152, 251, 152)),
    CityscapesLabel("sky", 23, 10, (70, 130, 180)),
    CityscapesLabel("person", 24, 11, (220, 20, 60)),
    CityscapesLabel("rider", 25, 12, (255, 0, 0)),
    CityscapesLabel("car", 26, 13, (0, 0, 142)),
    CityscapesLabel("truck", 27, 14, (0, 0, 70)),
    CityscapesLabel("bus", 28, 15, (0, 60, 100)),
    CityscapesLabel("caravan", 29, 255, (0, 0, 90)),
    CityscapesLabel("trailer", 30, 255, (0, 0, 110)),
    CityscapesLabel("train", 31, 16, (0, 80, 100)),
    CityscapesLabel("motorcycle", 32, 17, (0, 0, 230)),
    CityscapesLabel("bicycle", 33, 18, (119, 11, 32)),
    CityscapesLabel("license plate", -1, 255, (0, 0, 142)),
)
# In the order of ids, which is that of train ids.
CLASSES: tuple[CityscapesLabel, ...] = tuple(
    label for label in LABELS if label.train_id != IGNORE_INDEX
)
CLASS_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)
NUM_CLASSES: int = len(CLASSES)

_IMAGE, _TRAIN_IDS = "_leftImg8bit.png", "_gtFine_labelTrainIds.png"
_LABEL_IDS, _POLYGONS = "_gtFine_labelIds.png", "_gtFine_polygons.json"
_BY_NAME = {label.name: label for label in LABELS}
_IDS = frozenset(label.id for label in LABELS)
_TRAIN_ID = np.full(256, IGNORE_INDEX, np.uint8)
for _label in LABELS:
    if _label.id >= 0:
        _TRAIN_ID[_label.id] = _label.train_id


def train_ids(label_ids: np.ndarray) -> np.ndarray:
    """Turn ids into class indices.

    Args:
        label_ids: (H, W) of uint8, ids of `LABELS`.

    Returns:
        (H, W) of uint8: 0..18 and `IGNORE_INDEX`.

    Raises:
        DataError: If an id is not a label.
    """
    if label_ids.ndim != 2 or label_ids.dtype != np.uint8:
        raise DataError(
            f"labelIds are 8-bit images of one channel, not {label_ids.dtype} of shape "
            f"{label_ids.shape}"
        )
    counts = np.bincount(label_ids.ravel(), minlength=256)
    wrong = [f"{v} ({n} pixels)" for v, n in enumerate(counts) if n and v not in _IDS]
    if wrong:
        raise DataError(f"ids that are not labels of Cityscapes: {', '.join(wrong)}")
    return _TRAIN_ID[label_ids]


def draw_polygons(annotation: dict) -> np.ndarray:
    """Draw an annotation as Cityscapes' own scripts do.

    Args:
        annotation: The content of a `*_gtFine_polygons.json`.

    Returns:
        Label ids (H, W) of uint8.

    Raises:
        DataError: If it is not an annotation, or names an unknown label.
    """
    try:
        size_wh = (annotation["imgWidth"], annotation["imgHeight"])
        check_pixels("the image of the annotation", *size_wh)
        picture = Image.new("L", size_wh, _BY_NAME["unlabeled"].id)
        canvas = ImageDraw.Draw(picture)
        for thing in annotation["objects"]:
            name = thing["label"]
            # A group of indistinguishable objects, such as cargroup.
            if name not in _BY_NAME and name.endswith("group"):
                name = name[: -len("group")]
            if name not in _BY_NAME:
                raise DataError(f"{thing['label']!r} is not a label of Cityscapes")
            if _BY_NAME[name].id >= 0 and not thing.get("deleted"):
                corners = [tuple(corner) for corner in thing["polygon"]]
                canvas.polygon(corners, fill=_BY_NAME[name].id)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"not an annotation of Cityscapes ({reason})") from error
    return np.asarray(picture)


@dataclass(frozen=True)
class Preparation(Document):
    """What :func:`prepare` wrote.

    Attributes:
        root: The data set's folder.
        train: Number of images, like ``val`` and ``test``.
        made: Number of labels that were written.
        kept: Number of labels that were there already.
        lists: Paths of the lists.
    """

    root: str
    train: int
    val: int
    test: int
    made: int
    kept: int
    lists: list[str]


def prepare(
    root: str | os.PathLike,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Preparation:
    """Write `*_gtFine_labelTrainIds.png` beside the labels, and the lists.

    They are made from `*_gtFine_labelIds.png`, or if missing from `*_gtFine_polygons.json`.
    Existing files are kept, so that an interrupted run continues. The lists:
    `train.list`, `val.list`, `trainval.list` and `test.list` with lines `IMAGE LABEL` (a test
    image without a label stands alone), and `infer.list` with the test images.

    Args:
        root: Folder with `leftImg8bit/SPLIT/CITY` and `gtFine/SPLIT/CITY`.
        overwrite: Write existing labels again.
        workers: Number of threads; default: one per processor.
        progress: Show a progress bar.

    Raises:
        DataError: If the tree is not Cityscapes', or one of its files cannot be used.
    """
    root = Path(root)
    images = {split: _images(root, split) for split in SPLIT_NAMES}
    if not any(images.values()):
        raise DataError(
            f"no images {root}/leftImg8bit/(train|val|test)/CITY/NAME{_IMAGE}: is this the folder "
            "that holds leftImg8bit and gtFine?"
        )
    todo, kept, bare = [], 0, []
    for split in SPLIT_NAMES:
        for image in images[split]:
            stem = _label_stem(root, image)
            if not overwrite and Path(f"{stem}{_TRAIN_IDS}").is_file():
                kept += 1
            elif any(Path(f"{stem}{suffix}").is_file() for suffix in (_LABEL_IDS, _POLYGONS)):
                todo.append(stem)
            elif split != "test":
                bare.append(f"{image} has neither {stem}{_LABEL_IDS} nor {stem}{_POLYGONS}")
    if bare:
        raise DataError(f"{len(bare)} images without a label; the first: {bare[0]}")
    process(_make_train_ids, todo, description="labels", workers=workers, progress=progress)

    lines = {split: [_line(root, image) for image in images[split]] for split in SPLIT_NAMES}
    lists = {
        "train": lines["train"],
        "val": lines["val"],
        "trainval": lines["train"] + lines["val"],
        "test": lines["test"],
        "infer": [line.split(" ")[0] for line in lines["test"]],
    }
    for name, content in lists.items():
        atomic_write(root / f"{name}.list", "".join(f"{line}\n" for line in content).encode())
    return Preparation(
        root=str(root),
        **{split: len(images[split]) for split in SPLIT_NAMES},
        made=len(todo),
        kept=kept,
        lists=[str(root / f"{name}.list") for name in lists],
    )


def check_pairs(root: str | os.PathLike, split: str, pairs: Sequence[Sequence[str]]) -> None:
    """Refuse wrong pairs of image and label of a split of PaddleSeg's data set.

    It pairs the sorted images with the sorted labels: if one is missing, all later images
    silently get the label of another image.

    Raises:
        DataError: If an image has no label or a label no image, or there are none.
    """
    images = {path.name[: -len(_IMAGE)] for path in _images(Path(root), split)}
    files = Path(root, "gtFine", split).glob(f"*/*{_TRAIN_IDS}")
    labels = {path.name[: -len(_TRAIN_IDS)] for path in files}
    way_out = f"`liteseg data cityscapes {root}` creates them from labelIds or polygons"
    if images - labels:
        raise DataError(
            f"{len(images - labels)} of {len(images)} {split} images in {root} have no "
            f"*{_TRAIN_IDS}, the first is {min(images - labels)}{_IMAGE}; {way_out}"
        )
    if labels - images:
        raise DataError(
            f"{len(labels - images)} {split} labels in {root} have no image, the first is "
            f"{min(labels - images)}{_TRAIN_IDS}; add the images or remove the labels"
        )
    if not pairs:
        raise DataError(f"no {split} images in {root}/leftImg8bit/{split}/CITY")


def _images(root: Path, split: str) -> list[Path]:
    return sorted((root / "leftImg8bit" / split).glob(f"*/*{_IMAGE}"))


def _label_stem(root: Path, image: Path) -> Path:
    city = root / "gtFine" / image.parent.relative_to(root / "leftImg8bit")
    return city / image.name[: -len(_IMAGE)]


def _line(root: Path, image: Path) -> str:
    label = Path(f"{_label_stem(root, image)}{_TRAIN_IDS}")
    paths = [image, label] if label.is_file() else [image]
    return " ".join(path.relative_to(root).as_posix() for path in paths)


def _make_train_ids(stem: Path) -> None:
    source = Path(f"{stem}{_LABEL_IDS}")
    try:
        if source.is_file():
            ids = read_label(source)
        else:
            source = Path(f"{stem}{_POLYGONS}")
            ids = draw_polygons(json.loads(source.read_text(encoding="utf-8")))
        label = train_ids(ids)
    except (DataError, ValueError) as error:
        reason = str(error)
        raise DataError(reason if str(source) in reason else f"{source}: {reason}") from error
    atomic_write(f"{stem}{_TRAIN_IDS}", cv2.imencode(".png", label)[1].tobytes())
