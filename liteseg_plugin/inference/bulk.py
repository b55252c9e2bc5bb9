"""Segment many images in a run that may be killed, shared and repeated; a manifest tells the state.

The manifest has one line of JSON per image: ``image``, ``status`` (``done`` or ``failed``),
``outputs`` and ``error``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liteseg_plugin.errors import DataError, LitesegError, printable
from liteseg_plugin.inference.images import InputImage
from liteseg_plugin.inference.pipeline import (
    Extras,
    SegmentedImage,
    plan_results,
    segment_planned,
    write_legend,
)
from liteseg_plugin.inference.segmentation import require_confidence
from liteseg_plugin.system.files import atomic_write

if TYPE_CHECKING:
    from liteseg_plugin.inference.predictor import Predictor

DONE, FAILED = "done", "failed"
# How a complete file ends; others count as complete if they are not empty.
_ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".parquet": b"PAR1"}


@dataclass(frozen=True)
class Shard:
    """A part of the images: number ``index`` (from 0) of ``count``."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``I/N``.

        Raises:
            LitesegError: If it is not a shard.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(int(found[1]), int(found[2])) if found else None
        if shard is None or shard.index >= shard.count:
            raise LitesegError(f"--shard must be I/N, from 0/N to N-1/N, such as 0/4; got {text}")
        return shard

    @property
    def manifest(self) -> str:
        """Return the name of its manifest."""
        part = "" if self.count == 1 else f"_{self.index}_of_{self.count}"
        return f"manifest{part}.jsonl"

    def of(self, planned: Sequence[SegmentedImage]) -> list[SegmentedImage]:
        """Return its part of the planned results, each once."""
        return list(dict.fromkeys(planned))[self.index :: self.count]


@dataclass(frozen=True)
class Entry:
    """A line of the manifest.

    Attributes:
        image: Path of the image.
        status: ``done`` or ``failed``.
        outputs: Its files.
        error: Why it failed.
    """

    image: str
    status: str
    outputs: Sequence[str] = ()
    error: str | None = None

    @classmethod
    def of(cls, result: SegmentedImage) -> Entry:
        """Return the entry of a segmented image."""
        return cls(result.image, DONE, result.written())

    def line(self) -> str:
        """Return it as the manifest has it."""
        return f"{json.dumps(asdict(self))}\n"


@dataclass(frozen=True)
class Summary:
    """What became of the images.

    Attributes:
        done: Those that were segmented now.
        skipped: Those whose files were there.
        failed: Those that could not be segmented.
        manifest: Path of the manifest.
    """

    done: Sequence[SegmentedImage]
    skipped: Sequence[Entry]
    failed: Sequence[Entry]
    manifest: Path

    def text(self) -> str:
        """Return the numbers in a line."""
        return (
            f"{len(self.done)} images segmented, {len(self.skipped)} skipped as complete, "
            f"{len(self.failed)} failed; see {printable(self.manifest)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON writes it."""
        return {
            "images": [result.to_json() for result in self.done],
            "skipped": len(self.skipped),
            "failed": [{"image": entry.image, "error": entry.error} for entry in self.failed],
            "manifest": str(self.manifest),
        }


def segment_in_bulk(
    predictor: Predictor,
    images: Sequence[InputImage],
    save_dir: str | os.PathLike,
    *,
    extras: Extras | None = None,
    **options: Any,
) -> Summary:
    """Segment images in this process, and write what became of each into the manifest.

    Args:
        predictor: An exported model.
        images: All images, of every shard.
        save_dir: Where ``added_prediction``, ``pseudo_color_prediction``, the manifest and, if the
            export names its classes, the legend go.
        extras: What else to write.
        options: Of :func:`run_in_bulk`.

    Raises:
        ExportError: If ``extras`` need a confidence, and the export gives labels only.
        DataError: If a result would overwrite an image or another result, before anything is
            written; otherwise as :func:`run_in_bulk`, when the images before are written.
        OSError: If a result cannot be written; no incomplete file remains.
    """
    extras = extras or Extras()
    if extras.needs_confidence:
        require_confidence(predictor.exported)
    segment = partial(segment_planned, predictor, extras=extras)
    summary = run_in_bulk(segment, plan_results(images, save_dir, extras), save_dir, **options)
    if predictor.exported.classes:
        write_legend(predictor.exported.classes, save_dir)
    return summary


def run_in_bulk(
    segment: Callable[..., Iterable[SegmentedImage]],
    planned: Sequence[SegmentedImage],
    save_dir: str | os.PathLike,
    *,
    resume: bool = False,
    skip_errors: bool = False,
    shard: Shard = Shard(),
    progress: Callable[..., Iterable[SegmentedImage]] = lambda results, **_: results,
) -> Summary:
    """Segment what is not complete yet, and write what became of each image into the manifest.

    Args:
        segment: Segments images, and yields each when its files are written, or calls its argument
            ``on_error`` with the error.
        planned: The files of all images, of every shard. An image without files is complete if
            the manifest says so, and the files that it names are.
        save_dir: For the manifest.
        resume: Skip images whose files are there and complete.
        skip_errors: Continue after an image that cannot be segmented.
        shard: Which of the images to segment.
        progress: Wraps the results, as ``tqdm`` does; gets ``total`` and ``unit``.

    Raises:
        DataError: If an image fails; with ``skip_errors`` only if all images do.
        OSError: If the manifest cannot be written.
    """
    path = Path(save_dir, shard.manifest)
    mine = {files.image: files for files in shard.of(planned)}
    before = {entry.image: entry for entry in _read(path)} if resume else {}
    skipped = []
    for files in mine.values():
        entry = Entry.of(files) if files.written() else before.get(files.image)
        if resume and entry and entry.outputs and all(map(_ends_well, entry.outputs)):
            skipped.append(entry)
    complete = {entry.image for entry in skipped}
    todo = [files for files in mine.values() if files.image not in complete]
    others = [entry for entry in before.values() if entry.image not in mine]
    lines = "".join(entry.line() for entry in (*others, *skipped))
    atomic_write(path, lines.encode())

    done: list[SegmentedImage] = []
    failed: list[Entry] = []

    def add(entry: Entry) -> None:
        try:
            with path.open("a", encoding="utf-8") as manifest:
                manifest.write(entry.line())
        except OSError as error:
            message = f"cannot write {printable(path)}: {error.strerror}"
            raise OSError(error.errno, message) from error

    def on_error(files: SegmentedImage, error: DataError) -> None:
        failed.append(Entry(files.image, FAILED, error=str(error)))
        add(failed[-1])
        if not skip_errors:
            raise error

    for result in progress(segment(todo, on_error=on_error), total=len(todo), unit="image"):
        done.append(result)
        add(Entry.of(result))
    if todo and len(failed) == len(mine):
        raise DataError(f"all {len(failed)} images failed, the first one: {failed[0].error}")
    return Summary(done, skipped, failed, path)


def named_files(save_dir: str | os.PathLike) -> list[str]:
    """Return the files that the manifest of an unshared run names."""
    entries = _read(Path(save_dir, Shard().manifest))
    return [path for entry in entries for path in entry.outputs]


def _ends_well(path: str) -> bool:
    end = _ENDS.get(os.path.splitext(path)[1].lower(), b"")
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - max(len(end), 1), 0))
            return size > 0 and file.read().endswith(end)
    except OSError:
        return False


def _read(path: Path) -> Iterator[Entry]:
    """Yield the entries of a manifest; a kill may have left half of the last line."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            yield Entry(**json.loads(line))
        except (TypeError, ValueError):
            raise DataError(f"line {number} of {path} is not of a manifest; remove it") from None
