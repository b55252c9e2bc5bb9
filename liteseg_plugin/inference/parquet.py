"""Images from Parquet files, and label maps into Parquet files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from liteseg_plugin.errors import DataError, LitesegError, printable
from liteseg_plugin.inference.images import InputImage, folder_of, name_below
from liteseg_plugin.inference.pipeline import SegmentedImage
from liteseg_plugin.system.files import atomic_write

LABELS = "labels"
"""Folder of the written files in ``--save_dir``."""
PART_IMAGES = 512
"""Label maps of a written file."""
SUFFIX = ".parquet"

_READ_ROWS = 16  # at a time; each may be a large image


def find_files(image_path: str) -> list[str]:
    """Return the Parquet files that ``--image_path`` names: a file, or all in a folder."""
    if os.path.isdir(image_path):
        pattern = os.path.join(glob.escape(image_path), "**", f"*{SUFFIX}")
        return sorted(glob.iglob(pattern, recursive=True))
    return [image_path] if image_path.endswith(SUFFIX) and os.path.isfile(image_path) else []


def find_images(image_path: str, column: str) -> tuple[list[InputImage], bool]:
    """Return the images of Parquet files, and whether the files hold their content.

    Args:
        image_path: A file, or a folder with files.
        column: Paths, relative to the folder of ``image_path``; or encoded images, which may be in
            a field ``bytes``, as in data sets of Hugging Face. Such an image is called
            ``FILE:ROW``.

    Raises:
        DataError: If a file is not Parquet, or has no such column.
    """
    import pyarrow as pa
    from pyarrow import parquet

    folder, images, encoded = folder_of(image_path), [], set()
    for path in find_files(image_path):
        try:
            file = parquet.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read {printable(path)}: {error}") from error
        schema = file.schema_arrow
        kind = schema.field(column).type if column in schema.names else None
        if kind in (pa.string(), pa.large_string()):
            names = file.read([column])[column].to_pylist()
            paths = [os.path.join(folder, name) for name in names if name]
            images += [InputImage(path, name_below(folder, path)) for path in paths]
            encoded.add(False)
        elif kind is not None and _holds_images(kind):
            encoded.add(True)
            below = Path(name_below(folder, path)).with_suffix("")
            rows = range(file.metadata.num_rows)
            images += [InputImage(f"{path}:{n}", str(below / f"{n:08d}.png")) for n in rows]
        else:
            found = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise DataError(
                f"{printable(path)} has no column {column} of paths or of encoded images; give one "
                f"as --image_column: {printable(found)}"
            )
    if not images:
        raise DataError(f"no images in column {column} of {printable(image_path)}")
    if len(encoded) > 1:
        raise DataError(f"some files of {printable(image_path)} hold paths, others images")
    return images, encoded.pop()


def _holds_images(kind: Any) -> bool:
    """Tell whether a column has encoded images, by itself or in a field ``bytes``."""
    import pyarrow as pa

    if pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def group_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group rows whose ``image`` is ``FILE:ROW``, for :func:`read_contents`.

    Returns:
        ``file``, ``group`` (the number of the row group) and ``rows``, each with its ``place`` in
        the group.
    """
    from pyarrow import parquet

    wanted: dict[str, dict[int, dict]] = {}
    for row in rows:
        path, _, number = row["image"].rpartition(":")
        wanted.setdefault(path, {})[int(number)] = row
    groups = []
    for path, numbered in wanted.items():
        metadata = parquet.ParquetFile(path).metadata
        first = 0
        for group in range(metadata.num_row_groups):
            places = range(metadata.row_group(group).num_rows)
            chosen = [
                {**numbered[first + place], "place": place}
                for place in places
                if first + place in numbered
            ]
            first += len(places)
            if chosen:
                groups.append({"file": path, "group": group, "rows": chosen})
    return groups


def read_contents(group: dict[str, Any], column: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a group, a few at a time, each with the ``content`` of its image."""
    from pyarrow import parquet

    rows = {row["place"]: row for row in group["rows"]}
    file = parquet.ParquetFile(group["file"])
    place = 0
    for batch in file.iter_batches(_READ_ROWS, row_groups=[group["group"]], columns=[column]):
        found = []
        for value in batch.column(0).to_pylist():
            if place in rows:
                content = value["bytes"] if isinstance(value, dict) else value
                found.append({**rows[place], "content": content or b""})
            place += 1
        yield found


class Parts:
    """Writes label maps, some hundred to a Parquet file, with columns ``image`` and ``label``.

    Args:
        save_dir: The files are ``labels/part-NNNNN.parquet`` in it.
        keep: Files of an earlier run that its manifest names; others are removed.

    Raises:
        LitesegError: If there are files, and none is to be kept.
    """

    def __init__(self, save_dir: str | os.PathLike, keep: Iterable[str] | None) -> None:
        self._folder = Path(save_dir, LABELS)
        there = sorted(self._folder.glob(f"part-*{SUFFIX}"))
        if there and keep is None:
            raise LitesegError(
                f"{printable(self._folder)} has results; give --resume, or another --save_dir"
            )
        kept = {Path(path).name for path in keep or ()}
        for path in there:
            if path.name not in kept:
                path.unlink()  # its images are not in the manifest, and are segmented again
        numbers = (int(path.stem.split("-")[1]) for path in there if path.name in kept)
        self._numbers = count(max(numbers, default=-1) + 1)
        self._waiting: list[tuple[SegmentedImage, bytes]] = []

    def add(self, files: SegmentedImage, label: bytes) -> Iterator[SegmentedImage]:
        """Add a label map, and yield the images that are written now."""
        self._waiting.append((files, label))
        if len(self._waiting) == PART_IMAGES:
            yield from self.flush()

    def flush(self) -> Iterator[SegmentedImage]:
        """Write what waits, and yield its images."""
        import pyarrow as pa
        from pyarrow import parquet

        if not self._waiting:
            return
        path = self._folder / f"part-{next(self._numbers):05d}{SUFFIX}"
        columns = {
            "image": pa.array([files.image for files, _ in self._waiting]),
            "label": pa.array([label for _, label in self._waiting], pa.binary()),
        }
        content = pa.BufferOutputStream()
        parquet.write_table(pa.table(columns), content)
        atomic_write(path, content.getvalue().to_pybytes())
        written, self._waiting = self._waiting, []
        yield from (replace(files, label=str(path)) for files, _ in written)
