"""The images that ``--image_path`` names, and checks of their result paths."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import NamedTuple

from liteseg_plugin.datasets.validation import IMAGE_SUFFIXES
from liteseg_plugin.errors import DataError, printable

OVERLAYS = "added_prediction"
"""Folder of overlays in ``--save_dir``, by the name that PaddleSeg's ``predict`` gives it."""
LABEL_MAPS = "pseudo_color_prediction"
"""Folder of label maps (class indices with a palette), likewise."""
CONFIDENCE = "confidence"
"""Folder of confidences, likewise."""
LEGEND = "legend.png"

_HEAD_BYTES = 1 << 16
_SUFFIXES_TEXT = ", ".join(IMAGE_SUFFIXES)


class InputImage(NamedTuple):
    """An image to segment.

    Attributes:
        path: Where it is.
        name: Name of its results: its path below the folder of the search or of the list,
            with the suffix. It holds neither a root nor ``..``.
    """

    path: str
    name: str


class Result(NamedTuple):
    """A file to be written, and its image (or other source)."""

    path: str
    source: str


def find_images(image_path: str, separator: str | None = None) -> list[InputImage]:
    """Find the images that ``--image_path`` names.

    Args:
        image_path: An image; a folder, which is searched with its subfolders, but for hidden
            files and the results of an earlier run; or a list with lines ``image [label]``,
            relative to the list's folder.
        separator: Separator of image and label in a list; None for any white space.

    Returns:
        The images; those of a folder are sorted, those of a list keep its order.

    Raises:
        DataError: If the path, or an image of the list, does not exist, if there are no images, or
            if the file is neither an image nor a list of images.
    """
    if os.path.isdir(image_path):
        paths = _search(image_path)
        if not paths:
            raise DataError(
                f"no images in folder {printable(image_path)}; files that end in "
                f"{_SUFFIXES_TEXT} are images"
            )
    elif not os.path.isfile(image_path):
        raise DataError(f"image path not found: {printable(image_path)}")
    elif _is_image(image_path):
        paths = [image_path]
    else:
        paths = _read_list(image_path, separator)
    folder = folder_of(image_path)
    return [InputImage(path, name_below(folder, path)) for path in paths]


def folder_of(image_path: str) -> str:
    """Return the folder of the images of ``--image_path``: itself, or the folder of the file."""
    return image_path if os.path.isdir(image_path) else os.path.dirname(image_path)


def result_paths(name: str, save_dir: str | os.PathLike) -> tuple[Path, Path]:
    """Return where the overlay and the label map of an :class:`InputImage` go."""
    added = name if _is_image(name) else f"{name}.png"  # OpenCV writes by the suffix
    return Path(save_dir, OVERLAYS, added), Path(save_dir, LABEL_MAPS, name).with_suffix(".png")


def check_results(images: Iterable[str], results: Iterable[Result]) -> None:
    """Check that no result overwrites an image, or the result of another image.

    Args:
        images: Paths of all images.
        results: All files that will be written.

    Raises:
        DataError: If one does; the caller must then write nothing.
    """
    inputs = {_identity(path): path for path in images}
    sources: dict[str, str] = {}
    for path, source in results:
        overwritten = inputs.get(_identity(path))
        if overwritten is not None:
            raise DataError(
                f"the result of {printable(source)} would overwrite image "
                f"{printable(overwritten)}; choose another --save_dir"
            )
        other = sources.setdefault(_resolved(path), source)
        if other != source and _identity(other) != _identity(source):
            raise DataError(
                f"{printable(other)} and {printable(source)} have the same result file "
                f"{printable(path)}; rename one of them, or segment them into two folders"
            )


def check_utf8(*paths: str) -> None:
    """Refuse paths that are not UTF-8, at which OpenCV ends the process.

    Raises:
        DataError: If a path is not UTF-8.
    """
    for path in paths:
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(
                f"path {printable(path)} is not UTF-8, which OpenCV needs here; rename it"
            ) from None


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES)


def _search(folder: str) -> list[str]:
    paths = []
    for parent, folders, files in os.walk(folder):
        skipped = {".ipynb_checkpoints"}
        if {OVERLAYS, LABEL_MAPS} <= {*folders}:  # results, of a --save_dir among the images
            skipped |= {OVERLAYS, LABEL_MAPS, CONFIDENCE, LEGEND}
        folders[:] = sorted({*folders} - skipped)
        kept = {*files} - skipped
        names = sorted(name for name in kept if _is_image(name) and not name.startswith("."))
        paths += [os.path.join(parent, name) for name in names]
    return paths


def _read_list(path: str, separator: str | None) -> list[str]:
    folder = os.path.dirname(path)
    with open(path, "rb") as file:
        is_text = b"\0" not in file.read(_HEAD_BYTES)
    images = []
    if is_text:
        # Names that are not UTF-8 are decoded as Python decodes those of a folder.
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    name = line.strip().split(separator)[0]
                    images.append((number, os.path.join(folder, name)))
        if not images:
            raise DataError(f"list {printable(path)} is empty")
    missing = [(number, image) for number, image in images if not os.path.isfile(image)]
    if len(missing) == len(images) and not any(_is_image(image) for _, image in images):
        raise DataError(
            f"{printable(path)} is neither an image, a video, a folder nor a list of images; "
            f"images end in {_SUFFIXES_TEXT}"
        )
    for number, image in missing:
        raise DataError(
            f"line {number} of list {printable(path)}: image not found: {printable(image)}"
        )
    return [image for _, image in images]


def name_below(folder: str, path: str) -> str:
    """Return the name of an image's results: its path below a folder, without root and ``..``."""
    try:
        relative = os.path.relpath(path, folder or os.curdir)
    except ValueError:  # another drive of Windows
        relative = os.path.abspath(path)
    parts = PurePath(relative).parts[1 if os.path.isabs(relative) else 0 :]
    return os.path.join(*(part for part in parts if part != os.pardir))


def _resolved(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def _identity(path: str) -> tuple[int, int] | str:
    """Return a key that two names of one file share, whatever links and letter case."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return _resolved(path)
    return status.st_dev, status.st_ino
