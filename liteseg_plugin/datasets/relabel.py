"""Labels with other values: masks of 0 and 255, classes counted from 1, merged classes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from liteseg_plugin.datasets.base import Document
from liteseg_plugin.datasets.validation import IMAGE_SUFFIXES, grey_channel, read_label
from liteseg_plugin.errors import DataError
from liteseg_plugin.system.files import atomic_write, place_folder, scratch_folder
from liteseg_plugin.system.parallel import process

_RANGE = r"(\d+)(?:-(\d+))?"
_ENTRY = re.compile(f"{_RANGE}={_RANGE}")
_LARGEST = 65535  # of the values that 16-bit labels store


@dataclass(frozen=True)
class Relabelled(Document):
    """Labels that were written.

    Attributes:
        folder: Where they are.
        labels: How many.
        pixels: Number of pixels by new value, without values that do not occur.
    """

    folder: str
    labels: int
    pixels: dict[int, int]


def read_map(entries: Sequence[str]) -> dict[int, int]:
    """Return the new value of each old value of ``--map``.

    >>> read_map(["0=255", "1-3=0-2"])
    {0: 255, 1: 0, 2: 1, 3: 2}
    >>> read_map(["128-130=1"])
    {128: 1, 129: 1, 130: 1}

    Args:
        entries: Each ``OLD=NEW``, ``FIRST-LAST=NEW`` or ``FIRST-LAST=FIRST-LAST``.

    Raises:
        ValueError: If an entry has another form, or maps values that labels cannot hold, or an old
            value is in two entries.
    """
    changes: dict[int, int] = {}
    for entry in entries:
        parts = _ENTRY.fullmatch(entry)
        if not parts:
            raise ValueError(f"--map {entry}: give OLD=NEW, such as 255=1, or 1-19=0-18")
        first, last, new, new_last = parts.groups()
        old = range(int(first), int(last or first) + 1)
        news = range(int(new), int(new_last or new) + 1)
        if int(last or first) > _LARGEST or int(new_last or new) > 255:
            raise ValueError(f"--map {entry}: old values are 0 to {_LARGEST}, new ones 0 to 255")
        if not old or not news or len(news) not in ((len(old),) if new_last else (1,)):
            raise ValueError(f"--map {entry}: both ranges must have the same number of values")
        for value, changed in zip(old, news if new_last else [int(new)] * len(old)):
            if value in changes:
                raise ValueError(f"--map {entry}: {value} is in another entry, too")
            changes[value] = changed
    return changes


def relabel(
    source: str | os.PathLike,
    dest: str | os.PathLike,
    changes: Mapping[int, int],
    *,
    label_suffix: str = "",
    workers: int | None = None,
) -> Relabelled:
    """Write the labels of a folder with other values, as 8-bit PNGs, to a new folder.

    The new folder is complete or absent. The labels that are read do not change.

    Args:
        source: The folder, searched with its subfolders.
        dest: The folder to create.
        changes: New values by old ones; other values stay.
        label_suffix: Only files whose names end in it, without the extension, are labels.
        workers: Number of threads; default: one per processor.

    Raises:
        DataError: If there are no labels, one cannot be read or has several channels, the new
            folder exists, or no label holds an old value.
    """
    source, dest = Path(source), Path(dest)
    if not source.is_dir():
        raise DataError(f"folder not found: {source}")
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise DataError(f"{dest} already exists; choose another folder, or remove it")
    if source.resolve() in dest.resolve().parents:
        raise DataError(f"{dest} is inside of {source}; choose a folder beside it")
    targets = _targets(source, label_suffix)
    dest.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(dest.parent, dest.name) as scratch:
        made = scratch / "labels"

        def convert(item: tuple[str, Path]) -> tuple[np.ndarray, set[int]]:
            name, path = item
            label = _read(path)
            used = np.bincount(label.ravel(), minlength=1)
            found = {old for old in changes if old < len(used) and used[old]}
            table = np.arange(len(used))
            for old in found:
                table[old] = changes[old]
            relabelled = table[label]
            if relabelled.max(initial=0) > 255:
                raise DataError(
                    f"{path} holds {label[relabelled > 255][0]}, and labels are 8-bit; map it to "
                    "a value from 0 to 255"
                )
            encoded = BytesIO()
            Image.fromarray(relabelled.astype(np.uint8)).save(encoded, format="PNG")
            atomic_write(made / name, encoded.getvalue(), durable=False)
            return np.bincount(relabelled.ravel(), minlength=256), found

        done = process(convert, sorted(targets.items()), description="relabel", workers=workers)
        counts = np.sum([counts for counts, _ in done], axis=0)
        pixels = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
        if not set().union(*(found for _, found in done)):
            held = ", ".join(map(str, [*pixels][:8])) + (" ..." if len(pixels) > 8 else "")
            raise DataError(f"no label in {source} holds a value of --map; they hold {held}")
        place_folder(made, dest)
    return Relabelled(str(dest), len(targets), pixels)


def _targets(source: Path, suffix: str) -> dict[str, Path]:
    """Return the labels of a folder by the names of their new files."""
    targets: dict[str, Path] = {}
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.stem.endswith(suffix):
            continue
        name = path.relative_to(source).with_suffix(".png").as_posix()
        if name in targets:
            raise DataError(f"{targets[name]} and {path} would both become {name}; rename one")
        targets[name] = path
    if not targets:
        ending = f" whose names end in {suffix}" if suffix else ""
        raise DataError(f"no labels{ending} in {source}; labels are {', '.join(IMAGE_SUFFIXES)}")
    return targets


def _read(path: Path) -> np.ndarray:
    label = read_label(path)
    if label.ndim != 2:
        grey = grey_channel(label)
        if grey is not None and label.shape[-1] in (3, 4):
            return grey
        raise DataError(
            f"{path} has {label.shape[-1]} channels, so it is not a label; move images to another "
            "folder, or tell labels from them by --label_suffix"
        )
    if label.min(initial=0) < 0 or label.max(initial=0) > _LARGEST:
        raise DataError(f"{path} holds values that are not 0 to {_LARGEST}")
    return label
