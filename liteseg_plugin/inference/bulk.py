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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liteseg_plugin.errors import DataError, LitesegError, printable
from liteseg_plugin.inference.images import InputImage
from liteseg_plugin.inference.pipeline import (
    Extras,
    SegmentedImage,
    plan_results,
    segment_planned,
)
from liteseg_plugin.system.files import atomic_write

if TYPE_CHECKING:
    from liteseg_plugin.inference.predictor import Predictor

DONE, FAILED = "done", "failed"
# How a complete file ends; others count as complete if they are not empty.
_ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}


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
        return (
            "manifest.jsonl" if self.count == 1 else f"manifest_{self.index}_of_{self.count}.jsonl"
        )

    def of(self, images: Sequence[InputImage]) -> list[InputImage]:
        """Return its images, each once."""
        return list(dict.fromkeys(images))[self.index :: self.count]


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
    skipped: Sequence[SegmentedImage]
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
    resume: bool = False,
    skip_errors: bool = False,
    shard: Shard = Shard(),
    progress: Callable[..., Iterable[SegmentedImage]] = lambda results, **_: results,
) -> Summary:
    """Segment images, and write what became of each into the manifest.

    Args:
        predictor: An exported model.
        images: All images, of every shard.
        save_dir: As in :func:`segment_files`; also for the manifest.
        extras: As in :func:`segment_files`.
        resume: Skip images whose files are there and complete.
        skip_errors: Continue after an image that cannot be segmented.
        shard: Which of the images to segment.
        progress: Wraps the results, as ``tqdm`` does; gets ``total`` and ``unit``.

    Raises:
        DataError: As :func:`segment_files`; with ``skip_errors`` only if all images fail.
        OSError: If a result cannot be written.
    """
    extras = extras or Extras()
    if extras.needs_confidence:
        predictor.require_confidence()
    planned = {result.image: result for result in plan_results(images, save_dir, extras)}
    mine = shard.of(images)
    complete = {image.path for image in mine if resume and _is_complete(planned[image.path])}
    skipped = [planned[image.path] for image in mine if image.path in complete]
    todo = [planned[image.path] for image in mine if image.path not in complete]
    path = Path(save_dir, shard.manifest)
    names = {image.path for image in mine}
    before = [entry for entry in _read(path) if entry.image not in names] if resume else []
    kept = [*before, *map(Entry.of, skipped)]
    atomic_write(path, "".join(entry.line() for entry in kept).encode())

    done: list[SegmentedImage] = []
    failed: list[Entry] = []
    with path.open("a", encoding="utf-8") as manifest:

        def add(entry: Entry) -> None:
            manifest.write(entry.line())
            manifest.flush()

        def on_error(files: SegmentedImage, error: DataError) -> None:
            failed.append(Entry(files.image, FAILED, error=str(error)))
            add(failed[-1])
            if not skip_errors:
                raise error

        results = segment_planned(predictor, todo, save_dir, extras, on_error=on_error)
        for result in progress(results, total=len(todo), unit="image"):
            done.append(result)
            add(Entry.of(result))
    if todo and len(failed) == len(mine):
        raise DataError(f"all {len(failed)} images failed, the first one: {failed[0].error}")
    return Summary(done, skipped, failed, path)


def _is_complete(result: SegmentedImage) -> bool:
    return all(map(_ends_well, result.written()))


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
