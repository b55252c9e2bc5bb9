"""SHA-256 of files, and ``SHA256SUMS``, which says those of the files of a folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from liteseg_plugin.errors import WeightsError
from liteseg_plugin.system.files import atomic_write

SUMS = "SHA256SUMS"
"""The file of a folder that lists its other files, as ``sha256sum -c`` reads it."""

_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\]+)")
_MOST_BYTES = 1 << 20


def file_sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def value_sha256(value: Any) -> str:
    """Return the SHA-256 of plain values, which does not depend on how a file writes them."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def write_sums(folder: Path, *sums: Mapping[str, str]) -> None:
    """Write the ``SHA256SUMS`` of a folder.

    Args:
        folder: The folder.
        sums: SHA-256 by name of file. While files are replaced, a name has two: that of the old
            and that of the new file.
    """
    lines = dict.fromkeys(f"{value}  {name}\n" for each in sums for name, value in each.items())
    atomic_write(folder / SUMS, "".join(lines).encode())


def sums_of(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of files, by name."""
    return {path.name: file_sha256(path) for path in paths}


def check_sum(path: Path) -> None:
    """Check a file against the ``SHA256SUMS`` beside it, if there is one that lists the file.

    Raises:
        WeightsError: If the file is another one.
        OSError: If a file cannot be read.
    """
    known = read_sums(path.parent).get(path.name)
    if known and file_sha256(path) not in known:
        raise WeightsError(
            f"{path} is damaged or was replaced: its SHA-256 is not the one in {SUMS} beside it. "
            f"Use an earlier checkpoint; if you replaced the file yourself, delete {SUMS}"
        )


def read_sums(folder: Path) -> dict[str, set[str]]:
    """Return what the ``SHA256SUMS`` of a folder lists by name; nothing without one."""
    try:
        with open(folder / SUMS, "rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return {}
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            found.setdefault(match[2], set()).add(match[1])
    return found
