"""Label images: Pascal VOC's palette PNGs, colours with a table, folders like Cityscapes'.

Every pixel holds a value there: those without a class are ignored pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from liteseg_plugin.datasets import cityscapes
from liteseg_plugin.datasets.base import IGNORE_INDEX, SPLIT_NAMES, ClassInfo
from liteseg_plugin.datasets.classes import numbered_classes
from liteseg_plugin.datasets.importing import drawing
from liteseg_plugin.datasets.importing.drawing import draw_shapes
from liteseg_plugin.datasets.importing.files import (
    Images,
    find_files,
    first_file,
    read_json,
    read_table,
)
from liteseg_plugin.datasets.importing.records import Annotated, Note, Options, Reading, Shape
from liteseg_plugin.datasets.validation import IMAGE_SUFFIXES, read_label
from liteseg_plugin.errors import DataError
from liteseg_plugin.system.pixels import check_pixels
from liteseg_plugin.system.text import read_text

VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
_VOC_VOID = (224, 224, 192)
_TABLES = ("labelmap.txt", "label_colors.txt", "class_dict.csv", "classes.csv", "colors.txt")
_VOID = ("void", "unlabeled", "unlabelled", "ignore", "__ignore__")


def read_voc(source: Path, options: Options) -> Reading:
    """Read ``JPEGImages``, ``SegmentationClass`` and ``ImageSets/Segmentation`` of Pascal VOC.

    Where ``labelmap.txt``, which CVAT writes, has colours, these are the classes. Else the values
    of the pixels are, or VOC's colours; with the names of ``labelmap.txt``, of ``--classes`` or of
    VOC. 255 is ignored.

    Raises:
        DataError: If the folders are missing, or the names are unknown.
    """
    images = Images(options.images or source / "JPEGImages")
    labels = options.labels or source / "SegmentationClass"
    table = options.table or first_file([source / "labelmap.txt"])
    pairs, notes = _pairs(images, labels, options.label_suffix)
    split_of: dict[str, str] = {}
    for split in SPLIT_NAMES:
        listed = source / "ImageSets" / "Segmentation" / f"{split}.txt"
        if listed.is_file():
            split_of |= {line.strip(): split for line in read_text(listed, DataError).splitlines()}
    lines = read_text(table, DataError).splitlines() if table else []
    written = [line for line in lines if line.strip() and line[0] != "#"]
    if table is not None and not all(line.partition(":")[2].startswith("::") for line in written):
        return _colored(images, pairs, notes, read_table(table), split_of)
    # Names that are all VOC's select classes; others are those of the values 0, 1, 2, ...
    given = options.class_names
    names = [line.split(":")[0].strip() for line in written]
    names = names or [*(VOC_NAMES if {*given} <= {*VOC_NAMES} else given)]
    annotated = _annotated(images, pairs, split_of, partial(_values, names=names))
    return Reading(images.root, annotated, names, notes, _VOID, dense=True)


def read_colors(source: Path, options: Options) -> Reading:
    """Read label images whose colours a table explains.

    Raises:
        DataError: If folders or table are missing.
    """
    table = options.table or first_file(source / name for name in _TABLES)
    if table is None:
        raise DataError(
            f"{source} has no table of colours ({', '.join(_TABLES)}); give --table FILE with "
            "lines like: road 128 64 128"
        )
    images = Images(options.images or source / "images")
    labels = options.labels or source / "labels"
    return _colored(images, *_pairs(images, labels, options.label_suffix), read_table(table), {})


def read_cityscapes(source: Path, options: Options) -> Reading:
    """Read ``leftImg8bit/SPLIT/CITY`` and ``gtFine/SPLIT/CITY``, with classes of any names.

    Labels are ``*_gtFine_polygons.json``; else ``*_gtFine_color.png``, with a table or
    Cityscapes' own colours.

    Raises:
        DataError: If the folders are missing or hold no labels.
    """
    inside = source / "imgsFine" / "leftImg8bit"  # where CVAT's exports have them
    folder = inside if inside.is_dir() else source / "leftImg8bit"
    images = Images(options.images or folder)
    labels = options.labels or source / "gtFine"
    table = options.table or first_file(source / name for name in _TABLES)
    classes = (
        read_table(table) if table else [ClassInfo(c.name, c.color_rgb) for c in cityscapes.CLASSES]
    )
    annotated, notes, names = [], [], {entry.name: None for entry in classes} if table else {}
    for image in images.paths:
        place = image.relative_to(images.root)
        stem = place.stem.removesuffix("_leftImg8bit")
        split = place.parts[0] if place.parts[0] in SPLIT_NAMES else None
        beside = labels / place.parent
        polygons = beside / f"{stem}_gtFine_polygons.json"
        colors = beside / f"{stem}_gtFine_color.png"
        if polygons.is_file() and not table:
            try:
                entry, found = _outlined(image, polygons, split)
            except DataError as error:
                notes.append(Note("unreadable", str(polygons), str(error)))
                continue
            names |= dict.fromkeys(found)
            annotated.append(entry)
        elif colors.is_file():
            names |= {entry.name: None for entry in classes}
            shapes_of = partial(_regions, colors, table=classes)
            annotated.append(Annotated(image, colors, shapes_of, split=split))
        else:
            message = f"neither {polygons} nor {colors} exists"
            notes.append(Note("no-annotation", str(image), message))
    if not annotated:
        raise DataError(f"{source} has no labels *_gtFine_polygons.json or *_gtFine_color.png")
    listed = [name for name in names if name not in _VOID]
    listed = listed if table else sorted(listed)
    return Reading(images.root, annotated, listed, notes, _VOID, dense=True)


def _outlined(image: Path, file: Path, split: str | None) -> tuple[Annotated, list[str]]:
    content = read_json(file)
    try:
        entries = [
            (str(thing["label"]), drawing.polygon(thing["polygon"], outline=False))
            for thing in content["objects"]
            if not thing.get("deleted")
        ]
        size = int(content["imgWidth"]), int(content["imgHeight"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"it is not an annotation of Cityscapes ({error!r})") from error
    names = [name for name, _ in entries]
    return Annotated(image, file, partial(draw_shapes, file, entries), size, split), names


def _pairs(images: Images, labels: Path, suffix: str) -> tuple[list[tuple[Path, Path]], list[Note]]:
    """Pair images and labels that have one path without extension and suffix."""
    if not labels.is_dir():
        raise DataError(f"folder not found: {labels}")
    pairs, notes, labelled = [], [], set()
    for label in find_files(labels, IMAGE_SUFFIXES):
        stem = label.relative_to(labels).with_suffix("").as_posix()
        found = images.of_stem(stem.removesuffix(suffix)) if stem.endswith(suffix) else []
        if len(found) == 1:
            pairs.append((found[0], label))
            labelled.add(found[0])
        elif found:
            message = f"its image may be {found[0]} or {found[1]}"
            notes.append(Note("duplicate-name", str(label), message))
            labelled |= {*found}
        else:
            notes.append(Note("missing-image", str(label), f"it has no image in {images.root}"))
    notes += [
        Note("no-annotation", str(path), f"it has no label in {labels}")
        for path in images.paths
        if path not in labelled
    ]
    if not pairs:
        raise DataError(f"no image in {images.root} has a label of the same name in {labels}")
    return pairs, notes


def _colored(
    images: Images,
    pairs: Sequence[tuple[Path, Path]],
    notes: Sequence[Note],
    table: Sequence[ClassInfo],
    split_of: Mapping[str, str],
) -> Reading:
    annotated = _annotated(images, pairs, split_of, partial(_regions, table=table))
    names = [entry.name for entry in table if entry.name.lower() not in _VOID]
    ignored = [entry.name for entry in table if entry.name.lower() in _VOID]
    return Reading(images.root, annotated, names, notes, ignored, dense=True)


def _annotated(
    images: Images,
    pairs: Sequence[tuple[Path, Path]],
    split_of: Mapping[str, str],
    shapes: Callable[[Path, tuple[int, int]], Iterator[Shape | Note]],
) -> list[Annotated]:
    """Return images with their label images, of which ``shapes`` gives the shapes."""
    stems = (image.relative_to(images.root).with_suffix("").as_posix() for image, _ in pairs)
    return [
        Annotated(image, label, partial(shapes, label), split=split_of.get(stem))
        for (image, label), stem in zip(pairs, stems)
    ]


def _values(label: Path, size_hw: tuple[int, int], names: Sequence[str]) -> Iterator[Shape | Note]:
    """Give the pixels of each value of a label image, or of each of VOC's colours."""
    values = _of_size(read_label(label), size_hw)
    if values.ndim == 3:
        colors = [(0, 0, 0), *(entry.color_rgb for entry in numbered_classes(len(names)))]
        table = [ClassInfo(name, color) for name, color in zip(names, colors)]
        yield from _regions(label, size_hw, [*table, ClassInfo("void", _VOC_VOID)])
        return

    def name_of(value: int) -> str:
        return names[value] if 0 <= value < len(names) else f"value {value}"

    yield from _shapes(values, name_of, IGNORE_INDEX)


def _regions(
    label: Path, size_hw: tuple[int, int], table: Sequence[ClassInfo]
) -> Iterator[Shape | Note]:
    """Give the pixels of each colour of a label image."""
    try:
        with Image.open(label) as image:
            check_pixels(label, *image.size)
            colors = np.asarray(image.convert("RGB")).astype(np.int32)
    except Exception as error:  # a hostile file may raise anything
        raise DataError(f"cannot read it: {error}") from error
    codes = _of_size(colors, size_hw) @ (1 << 16, 1 << 8, 1)
    names = {int.from_bytes(entry.color_rgb, "big"): entry.name for entry in table}

    def name_of(code: int) -> str:
        return names.get(code, f"colour {tuple(code.to_bytes(3, 'big'))}")

    yield from _shapes(codes, name_of, None)


def _of_size(label: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    height, width = label.shape[:2]
    if (height, width) != size_hw:
        raise DataError(f"it has {width}x{height} pixels, its image {size_hw[1]}x{size_hw[0]}")
    return label


def _shapes(
    values: np.ndarray, name_of: Callable[[int], str], ignored: int | None
) -> Iterator[Shape]:
    for value in np.unique(values).tolist():
        if value != ignored:
            yield Shape.of(name_of(value), (values == value).astype(np.uint8))
