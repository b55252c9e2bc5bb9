"""YOLO segmentation: a text file of polygons for each image, drawn as Ultralytics does."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from liteseg_plugin.datasets.base import SPLIT_NAMES
from liteseg_plugin.datasets.importing import drawing
from liteseg_plugin.datasets.importing.files import Images, first_file
from liteseg_plugin.datasets.importing.records import Annotated, Note, Options, Reading
from liteseg_plugin.errors import ConfigError, DataError
from liteseg_plugin.system.text import read_text, read_yaml


def read(source: Path, options: Options) -> Reading:
    """Read a folder with ``data.yaml``, or with ``images`` and ``labels``.

    Raises:
        DataError: If it has no images, or its ``data.yaml`` cannot be used.
    """
    root = options.images or source
    images = Images(root)
    described = first_file([source / "data.yaml", source / "dataset.yaml", *source.glob("*.yaml")])
    try:
        names, split_of = _described(described, source, images) if described else ({}, {})
    except (ConfigError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{described} is not the data.yaml of YOLO: {error}") from error
    names = names or dict(enumerate(_listed(source)))
    annotated, notes = [], []
    numbers: set[int] = set()
    for image in images.paths:
        if split_of and image not in split_of:
            notes.append(Note("not-listed", str(image), f"{described} does not name it"))
            continue
        label = _label_of(image, images.root, options)
        entries = []
        for line in read_text(label, DataError).splitlines() if label.is_file() else ():
            written, *values = line.split() or [""]
            if written:
                number = int(written) if re.fullmatch(r"\d{1,9}", written) else -1
                numbers.add(number)
                entries.append((names.get(number, written), _draw(values)))
        shapes = partial(drawing.draw_shapes, label, entries)
        annotated.append(Annotated(image, label, shapes, split=split_of.get(image)))
    if not numbers:
        raise DataError(f"{source} has no images with labels/NAME.txt of YOLO's segmentation")
    listed = [name for _, name in sorted(names.items())]
    listed = listed or [str(number) for number in sorted(numbers - {-1})]
    return Reading(images.root, annotated, listed, notes)


def _draw(values: list[str]) -> drawing.Draw:
    if len(values) == 4:
        return partial(drawing.refuse, "box", "it is a box of YOLO's detection, without an outline")
    if len(values) % 2:
        return partial(drawing.refuse, "not-points", "its points are not pairs of numbers")
    return drawing.whole_points_polygon(values)


def _label_of(image: Path, root: Path, options: Options) -> Path:
    """Return ``labels/x.txt`` of ``images/x.jpg``, as Ultralytics finds it."""
    relative = image.relative_to(root).with_suffix(".txt")
    if options.labels:
        return options.labels / relative
    *before, name = relative.parts
    for place in reversed(range(len(before))):
        if before[place] == "images":
            return root.joinpath(*before[:place], "labels", *before[place + 1 :], name)
    if root.name == "images":
        return root.with_name("labels") / relative
    beside = root / relative
    return beside if beside.is_file() else root / "labels" / relative


def _described(
    file: Path, source: Path, images: Images
) -> tuple[dict[int, str], dict[Path, str | None]]:
    """Return the names by number of a ``data.yaml``, and the split of each image that it names."""
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise DataError(f"{file} must be a mapping with names, as YOLO's data.yaml is")
    names = content.get("names") or []
    names = names if isinstance(names, dict) else dict(enumerate(names))
    split_of: dict[Path, str | None] = {}
    for split in SPLIT_NAMES:
        places = content.get(split) or []
        for place in [places] if isinstance(places, str) else places:
            for image in _images_of(place, content.get("path"), source, images):
                split_of.setdefault(image, split)
    return {int(key): str(value) for key, value in names.items()}, split_of


def _images_of(place: str, base: str | None, source: Path, images: Images) -> list[Path]:
    """Return the images of a folder or list of a ``data.yaml``, which may have been moved."""
    candidates = [source / place, source / (base or ".") / place, Path(base or ".") / place]
    candidates.append(source / str(place).lstrip("./"))
    for path in candidates:
        if path.is_dir():
            folder = path.resolve()
            return [image for image in images.paths if image.resolve().is_relative_to(folder)]
        if path.suffix == ".txt" and path.is_file():
            lines = [line.strip() for line in read_text(path, DataError).splitlines()]
            found = [images.named(line, path.parent, path) for line in lines if line]
            return [image for image in found if isinstance(image, Path)]
    return []


def _listed(source: Path) -> list[str]:
    file = first_file([source / "classes.txt", source / "labels" / "classes.txt"])
    lines = read_text(file, DataError).splitlines() if file else []
    return [line.strip() for line in lines if line.strip()]
