"""Files of a source: images that annotations name, JSON, XML, tables of colours."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.parsers import expat

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.importing.records import Note
from liteseg_plugin.datasets.validation import IMAGE_SUFFIXES
from liteseg_plugin.errors import DataError
from liteseg_plugin.system.text import read_text


class Images:
    """The images below a folder.

    Raises:
        DataError: If it does not exist.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"folder not found: {root}")
        self.root = root
        self.paths = find_files(root, IMAGE_SUFFIXES)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._by_name[path.name].append(path)
            self._by_stem[path.relative_to(root).with_suffix("").as_posix()].append(path)

    def named(self, name: str, near: Path, annotation: Path) -> Path | Note:
        """Find the image that an annotation names.

        Args:
            name: Its name or path, in the annotation.
            near: Folder to which it is relative; that of all images is tried, too.
            annotation: The annotation.

        Returns:
            The image; the only one of that name below the folder where the path does not exist;
            else a note that says why there is none.
        """
        relative = PureWindowsPath(name)  # reads / and \
        for folder in (near, self.root):
            path = Path(os.path.normpath(folder / relative.as_posix()))
            if path.is_file() and path.resolve().is_relative_to(self.root.resolve()):
                return path
        same = self._by_name.get(relative.name, [])
        if len(same) == 1:
            return same[0]
        if not same:
            return Note("missing-image", str(annotation), f"its image {name} is not found")
        message = f"its image {name} may be {', '.join(map(str, same[:3]))}; name the subfolder"
        return Note("duplicate-name", str(annotation), message)

    def of_stem(self, stem: str) -> list[Path]:
        """Return the images of a path below the folder, without suffix."""
        return self._by_stem.get(stem, [])


def find_files(root: Path, suffixes: str | tuple[str, ...]) -> list[Path]:
    """Return the files below a folder that end in one of ``suffixes``, without hidden ones."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.name.lower().endswith(suffixes)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: If it is not JSON.
    """
    try:
        return json.loads(read_text(path, DataError))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def read_xml(path: Path) -> ET.Element:
    """Read an XML file without a document type: no entities, and nothing outside the file.

    Raises:
        DataError: If it is not XML, or has a document type.
    """
    builder = ET.TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise DataError(f"{path} has a DOCTYPE, which may hold entities; remove it")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise DataError(f"{path} is not XML: {error}") from error
    return builder.close()


def read_table(path: Path) -> list[ClassInfo]:
    """Read class names and colours, one a line, in index order.

    A line holds a name and red, green and blue in any order and with any separators:
    ``road,128,64,128``, ``128 64 128 road``, ``road:128,64,128::``; or a colour as ``#804080``.
    Other lines, such as a header, are skipped.

    Raises:
        DataError: If no line is such, or two classes have one colour.
    """
    found: list[ClassInfo] = []
    for line in read_text(path, DataError).splitlines():
        written = line.strip()
        hexadecimal = re.search(r"#([0-9a-fA-F]{6})\b", written)
        numbers = re.search(
            r"(?<![\w.])(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})(?![\w.])", written
        )
        match = hexadecimal or numbers
        if match is None or written.startswith("# "):
            continue
        red, green, blue = (
            bytes.fromhex(match[1]) if hexadecimal else (int(group) for group in match.groups())
        )
        if not hexadecimal and re.search(r"(?<![\w.])\d+(?:[\s,;]+\d+){3}(?![\w.])", written):
            raise DataError(f"{path}: {line!r} has four numbers in a row; write NAME:R,G,B")
        name = (written[: match.start()] + written[match.end() :]).strip(" \t,;:\"'")
        if not name or max(red, green, blue) > 255:
            raise DataError(f"{path}: {line!r} must hold a name and a colour, 0 to 255")
        found.append(ClassInfo(name, (red, green, blue)))
    if not found:
        raise DataError(f"{path} holds no line like: road 128 64 128")
    for info in found:
        twins = [other.name for other in found if other.color_rgb == info.color_rgb]
        if len(twins) > 1:
            raise DataError(f"{path}: {' and '.join(twins)} have one colour, {info.color_rgb}")
    return found


def first_file(paths: Iterable[Path]) -> Path | None:
    """Return the first of some paths that is a file."""
    return next((path for path in paths if path.is_file()), None)
