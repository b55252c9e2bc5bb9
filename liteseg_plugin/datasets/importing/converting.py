"""Draw what a reader found, and write it in PaddleSeg's layout."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from liteseg_plugin.datasets.base import IGNORE_INDEX, SPLIT_NAMES
from liteseg_plugin.datasets.importing import coco, cvat, label_images, labelme, yolo
from liteseg_plugin.datasets.importing.records import (
    Annotated,
    ImportReport,
    Note,
    Options,
    Reading,
    Shape,
)
from liteseg_plugin.datasets.split import SHARES, sequence_of, split_folder, three_shares
from liteseg_plugin.datasets.validation import IMAGE_SUFFIXES, check_image_file, read_image
from liteseg_plugin.errors import DataError
from liteseg_plugin.system.files import atomic_write, place_folder, scratch_folder
from liteseg_plugin.system.parallel import process

FORMATS: dict[str, Callable[[Path, Options], Reading]] = {
    "labelme": labelme.read,
    "coco": coco.read,
    "voc": label_images.read_voc,
    "yolo": yolo.read,
    "cvat": cvat.read,
    "colors": label_images.read_colors,
    "cityscapes": label_images.read_cityscapes,
}
BACKGROUND = "background"
_BACKGROUND_NAMES = (BACKGROUND, "_background_", "__background__")
_MOST_CLASSES = 255


class _Drawn(NamedTuple):
    """What one image became.

    Attributes:
        notes: What was dropped or changed.
        path: Of the new image, relative to the new data set; None if it is not in it.
        shapes: Names of the shapes that were drawn.
        unlabelled: Pixels outside all shapes.
        pixels: All pixels.
    """

    notes: list[Note]
    path: str | None = None
    shapes: Sequence[str] = ()
    unlabelled: int = 0
    pixels: int = 0


def import_data(
    format_name: str,
    source: str | os.PathLike,
    dest: str | os.PathLike,
    *,
    options: Options | None = None,
    unlabelled: str | None = None,
    order: str = "file",
    ratio: Sequence[float] | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> ImportReport:
    """Write annotations of another tool in PaddleSeg's layout.

    The layout: ``images/NAME``, ``annot/NAME.png`` (8-bit class indices), ``labels.txt``, and the
    lists ``train.txt``, ``val.txt`` and ``test.txt``. ``dest`` appears when all of it is complete.

    Args:
        format_name: One of ``FORMATS``.
        source: The annotations, a folder or a file.
        dest: Folder to create.
        options: How to read the source.
        unlabelled: What pixels outside all shapes become: ``background``, a class, or ``ignore``,
            255. By default background for shapes, and ignore for label images, where every pixel
            has a value.
        order: ``file``: later shapes cover earlier ones; ``area``: small shapes cover large ones.
        ratio: Shares of train, val and test, or of train and val; by default the source's own
            split, or 0.8 0.1 0.1.
        seed: Of the split.
        workers: Number of threads; default: one per processor.
        progress: Show a progress bar.

    Raises:
        DataError: If the source cannot be used, or ``dest`` is not empty.
        ValueError: If the format, the ratio or the order is unknown.
    """
    if format_name not in FORMATS:
        raise ValueError(f"unknown format {format_name!r}; choices are {', '.join(FORMATS)}")
    if order not in ("file", "area"):
        raise ValueError(f"--order must be file or area, got {order!r}")
    ratio = ratio and three_shares(ratio)
    source, dest, options = Path(source), Path(dest), options or Options()
    if not source.exists():
        raise DataError(f"not found: {source}")
    if source.resolve() in (dest.resolve(), *dest.resolve().parents):
        raise DataError(f"{dest} is inside {source}; choose another DEST")
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise DataError(f"{dest} already exists; choose another DEST, or remove it")
    reading = FORMATS[format_name](source, options)
    notes = [*reading.notes, *_similar(reading.names, source)]
    unlabelled = unlabelled or ("ignore" if reading.dense else BACKGROUND)
    classes = _classes(options.class_names or reading.names, unlabelled)
    values = {name: index for index, name in enumerate(classes)}
    values.update(dict.fromkeys(reading.ignored, IGNORE_INDEX))
    outside = IGNORE_INDEX
    if unlabelled == BACKGROUND:
        outside = next(values[name] for name in _BACKGROUND_NAMES if name in values)
    named, problems = _names(reading)
    notes += problems
    dest.absolute().parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(dest.absolute().parent, "import") as scratch:
        made = scratch / "data"

        def convert(item: tuple[str, Annotated]) -> _Drawn:
            return _convert(item[0], item[1], made, values, outside, order)

        results = process(
            convert, [*named.items()], description=format_name, workers=workers, progress=progress
        )
        written = [
            (name, result.path, entry.split)
            for (name, entry), result in zip(named.items(), results)
            if result.path
        ]
        if not written:
            why = [*notes, *(result.notes[-1] for result in results[:1])][-1:]
            first = "".join(f": {note.file}: {note.message}" for note in why)
            raise DataError(f"no image of {source} can be used{first}")
        atomic_write(made / "labels.txt", "".join(f"{name}\n" for name in classes).encode())
        notes += [note for result in results for note in result.notes]
        splits, split_by = _split(made, written, ratio, seed)
        place_folder(made, dest)
    pixels = sum(result.pixels for result in results)
    return ImportReport(
        format=format_name,
        source=str(source),
        dest=str(dest),
        images=len(written),
        splits=splits,
        split_by=split_by,
        classes=classes,
        shapes=dict(Counter(name for result in results for name in result.shapes)),
        unlabelled=unlabelled,
        unlabelled_share=sum(result.unlabelled for result in results) / max(pixels, 1),
        notes=notes,
    )


def _classes(names: Sequence[str], unlabelled: str) -> list[str]:
    classes = [*names]
    if unlabelled == BACKGROUND and not set(classes) & {*_BACKGROUND_NAMES}:
        classes.insert(0, BACKGROUND)
    odd = [name for name in classes if not name.strip() or len(name.splitlines()) != 1]
    if odd:
        raise DataError(f"a class has the name {odd[0]!r}, not one line of text; rename it")
    twins = [name for name, count in Counter(classes).items() if count > 1]
    if twins or not classes:
        raise DataError(f"classes must be different names, got {', '.join(twins) or 'none'} twice")
    if len(classes) > _MOST_CLASSES:
        raise DataError(f"{len(classes)} classes; 8-bit labels hold {_MOST_CLASSES} and 255")
    return classes


def _similar(names: Sequence[str], source: Path) -> list[Note]:
    """Find names that differ only in case or in spaces, and are probably one class."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"[\s_-]+", "", name).lower(), []).append(name)
    return [
        Note("similar-names", str(source), f"{' and '.join(map(repr, group))} are separate classes")
        for group in groups.values()
        if len(group) > 1
    ]


def _names(reading: Reading) -> tuple[dict[str, Annotated], list[Note]]:
    """Return the images by their new names: their paths below the root, without spaces."""
    named: dict[str, Annotated] = {}
    notes = []
    for entry in reading.annotated:
        image = entry.image
        inside = image.is_relative_to(reading.root)
        relative = image.relative_to(reading.root) if inside else Path(image.name)
        name = re.sub(r"\s+", "_", relative.with_suffix("").as_posix()).removeprefix("images/")
        if name in named:
            other = named[name].image
            same = "is annotated twice" if other == image else f"and {other} have one name"
            notes.append(Note("duplicate-name", str(image), f"it {same}; the first is kept"))
            continue
        if name != relative.with_suffix("").as_posix().removeprefix("images/"):
            message = f"it becomes {name}: a space separates image and label in the lists"
            notes.append(Note("renamed", str(image), message))
        named[name] = entry
    return named, notes


def _convert(
    name: str, entry: Annotated, made: Path, values: dict[str, int], outside: int, order: str
) -> _Drawn:
    notes: list[Note] = []
    try:
        suffix, content, size_hw = _image(name, entry, notes, made)
        label = np.full(size_hw, outside, np.uint8)
        free = np.ones(size_hw, np.uint8)
        shapes: list[Shape] = []
        for shape in entry.shapes(size_hw):
            if isinstance(shape, Note):
                notes.append(shape)
            elif shape.name not in values:
                pixels = np.count_nonzero(shape.mask)
                message = f"{shape.name!r} is not a class: its {pixels} pixels count as outside"
                notes.append(Note("unknown-name", str(entry.annotation), message))
            else:
                shapes.append(shape)
    except (DataError, OSError) as error:
        kind = "unreadable" if entry.image.is_file() or entry.content else "missing-image"
        return _Drawn([*notes, Note(kind, str(entry.annotation), str(error))])
    if order == "area":
        shapes.sort(key=lambda shape: -int(np.count_nonzero(shape.mask)))
    for shape in shapes:
        shape.paint(label, values[shape.name])
        shape.paint(free, 0)
    if not shapes:
        if outside == IGNORE_INDEX:
            message = "no shape can be drawn, so that all of it would be ignored: it is left out"
            return _Drawn([*notes, Note("no-shapes", str(entry.image), message)])
        notes.append(Note("no-shapes", str(entry.image), "no shape: all of it is background"))
    path = f"images/{name}{suffix}"
    atomic_write(made / path, content, durable=False)
    encoded = cv2.imencode(".png", label)[1].tobytes()
    atomic_write(made / "annot" / f"{name}.png", encoded, durable=False)
    return _Drawn(notes, path, [shape.name for shape in shapes], int(free.sum()), label.size)


def _image(
    name: str, entry: Annotated, notes: list[Note], made: Path
) -> tuple[str, bytes, tuple[int, int]]:
    """Return suffix and content of the file to write for an image, and its height and width.

    Raises:
        DataError: If the image cannot be read, or has another size than its annotation says.
    """
    path = entry.image
    if entry.content is not None:
        path = made.with_name("embedded") / f"{name}.png"
        atomic_write(path, entry.content(), durable=False)
    orientation = check_image_file(path)
    image = read_image(path)
    stated = entry.size_wh
    suffix, content = path.suffix, path.read_bytes()
    if content[:2] == b"\xff\xd8":  # a copy of a JPEG in an annotation
        suffix = suffix if suffix.lower() in (".jpg", ".jpeg") else ".jpg"
    if orientation != 1:
        stored = read_image(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        turned = stated in (None, _wh(image)) or stated != _wh(stored)
        image = image if turned else stored
        fits = "turned upright" if turned else "as stored, which is the size of its annotation"
        message = f"it has EXIF orientation {orientation}: it is saved {fits}, without the tag"
        notes.append(Note("orientation", str(path), message))
    if orientation != 1 or suffix.lower() not in IMAGE_SUFFIXES:
        suffix, content = ".png", cv2.imencode(".png", image)[1].tobytes()
    if stated not in (None, _wh(image)):
        raise DataError(
            "{} has {}x{} pixels, its annotation says {}x{}".format(path, *_wh(image), *stated)
        )
    height, width = image.shape[:2]
    return suffix, content, (height, width)


def _wh(image: np.ndarray) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _split(
    made: Path,
    written: Sequence[tuple[str, str, str | None]],
    ratio: Sequence[float] | None,
    seed: int,
) -> tuple[dict[str, int], str]:
    """Write the lists of images: of the name, path and source's split of each.

    Returns:
        The number of images by split, and what they are split by.
    """
    given = {split for _, _, split in written}
    if ratio is None and None not in given and {"train", "val"} <= given:
        counts = {}
        for name in SPLIT_NAMES:
            lines = [f"{path} annot/{n}.png\n" for n, path, s in sorted(written) if s == name]
            if lines:
                atomic_write(made / f"{name}.txt", "".join(lines).encode())
            counts[name] = len(lines)
        return counts, "source"
    ratio = ratio or SHARES
    sequences = {sequence_of(name) for name, _, _ in written}
    together = len(sequences) >= sum(share > 0 for share in ratio)
    lists = split_folder(made, ratio=ratio, seed=seed, keep_sequences=together)
    counts = {name: getattr(lists, name) for name in SPLIT_NAMES}
    return counts, "sequences" if together else "images"
