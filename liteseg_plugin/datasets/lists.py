"""Lists of images and labels, as PaddleSeg's ``Dataset`` reads them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import NamedTuple

from liteseg_plugin.datasets.validation import Fault
from liteseg_plugin.errors import DataError


class Pair(NamedTuple):
    """Paths of an image and of its label; None where a list names only images."""

    image: str
    label: str | None


def find_list(root: str | os.PathLike, split: str) -> Path | None:
    """Return the list of a split in a data set's folder, ``.txt`` or else ``.list``, if any."""
    paths = (Path(root, f"{split}{suffix}") for suffix in (".txt", ".list"))
    return next((path for path in paths if path.is_file()), None)


def no_list(name: str, root: str | os.PathLike) -> DataError:
    """Return the error of a data set's folder that lacks a list, or several."""
    return DataError(
        f"no list {name} in {root}; `liteseg data split {shlex.quote(str(root))}` creates the "
        "lists for folders of images and labels"
    )


def not_found(what: str, path: str | os.PathLike) -> DataError:
    """Return the error of a path, of the key ``what`` of a config, that does not exist."""
    relative = "" if os.path.isabs(path) else f" (relative to the working folder {os.getcwd()})"
    return DataError(f"{what} not found: {path}{relative}")


def read_list(
    path: str | os.PathLike,
    root: str | os.PathLike,
    *,
    separator: str = " ",
    labelled: bool = True,
) -> tuple[list[Pair], list[Fault]]:
    """Read a list of images and labels, as PaddleSeg's ``Dataset`` does.

    Args:
        path: The list; each line names an image and its label, relative to ``root``.
        root: The data set's folder.
        separator: Separator of the two.
        labelled: Whether every line needs a label; those of a test list do not.

    Returns:
        The pairs, and the faults of other lines.

    Raises:
        DataError: If the list cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read list {path}: {error}") from error
    pairs, faults = [], []
    for number, line in enumerate(lines, start=1):
        names = line.strip().split(separator)
        if len(names) == 2:
            pairs.append(Pair(*(os.path.join(root, name) for name in names)))
        elif labelled or not line.strip():
            message = (
                f"line {number} of list {path} is {line.strip()!r}, not an image and a label "
                f"separated by {separator!r}{_separator_hint(line, separator)}"
            )
            faults.append(Fault("list", message))
        else:
            pairs.append(Pair(os.path.join(root, names[0]), None))
    return pairs, faults


def _separator_hint(line: str, given: str) -> str:
    """Name the separator that divides a line into two names with suffixes."""
    for separator in ("\t", ",", ";", "|", " "):
        names = line.strip().split(separator)
        if separator != given and len(names) == 2 and all(Path(n).suffix for n in names):
            return f"; {separator!r} separates them: --separator, or separator in a config"
    return ""
