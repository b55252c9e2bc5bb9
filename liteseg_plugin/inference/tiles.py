"""Pictures of any size in overlapping tiles, whose results are joined strip by strip.

Never more than a row of tiles is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from liteseg_plugin.errors import LitesegError
from liteseg_plugin.inference.segmentation import most_likely
from liteseg_plugin.system.progress import progress_bar

Span = tuple[int, int]

_BAR_SECONDS = 2.0  # that a picture takes before it has a progress bar


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut into tiles; the last tile of a row or column is moved inwards.

    Attributes:
        width: Of a tile, in pixels of the picture.
        height: Likewise.
        overlap: Pixels that neighbours share at least.
        show_progress: Whether to show a progress bar for each picture that takes seconds.

    Raises:
        LitesegError: If a size or the overlap is impossible.
    """

    width: int
    height: int
    overlap: int = 0
    show_progress: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if min(self.width, self.height) < 1:
            raise LitesegError(f"--tile must be at least 1 1, got {self.width} {self.height}")
        if not 0 <= self.overlap < min(self.width, self.height):
            raise LitesegError(
                f"--overlap must be from 0 to less than the tile of {self.width} x {self.height}, "
                f"got {self.overlap}"
            )

    def spans(self, size_hw: tuple[int, int]) -> tuple[list[Span], list[Span]]:
        """Return first and last row (exclusive) of the tiles of a picture, and their columns."""
        height, width = size_hw
        return self._spans(height, self.height), self._spans(width, self.width)

    def _spans(self, extent: int, size: int) -> list[Span]:
        """Return what PaddleSeg's ``slide_inference`` computes."""
        number = max(0, math.ceil((extent - size) / (size - self.overlap))) + 1
        ends = [min(n * (size - self.overlap) + size, extent) for n in range(number)]
        return [(max(end - size, 0), end) for end in ends]


@dataclass(frozen=True)
class Strip:
    """Some rows of a picture, over its full width.

    Attributes:
        top: The first row.
        labels: Class indices (rows, W) of int32.
        confidence: Their probabilities, of float32; None where only labels are known.
        engine_ms: Milliseconds that the engine took for the tiles since the strip before.
    """

    top: int
    labels: np.ndarray
    confidence: np.ndarray | None = None
    engine_ms: float = 0.0

    @property
    def rows(self) -> slice:
        """Where its rows are in the picture."""
        return slice(self.top, self.top + len(self.labels))


Tile = Callable[[slice, slice], np.ndarray]
"""Maps rows and columns of a picture to what a model gives for them, (K, h, w)."""


def blend(
    tiling: Tiling, size_hw: tuple[int, int], logits: Tile, *, confidence: bool = False
) -> Iterator[Strip]:
    """Join tiles by the mean of their logits, as PaddleSeg's ``slide_inference`` does.

    Args:
        tiling: The tiles.
        size_hw: Height and width of the picture.
        logits: Gives (C, h, w) for a tile.
        confidence: Whether to compute probabilities, too.

    Yields:
        The picture's rows from top to bottom, as soon as no further tile covers them.
    """
    height, width = size_hw
    rows, columns = tiling.spans(size_hw)
    over, across = _covering(rows, height)[:, np.newaxis], _covering(columns, width)
    carry = np.empty(0, np.float32)  # sums of the rows that the next row of tiles adds to
    carried = 0
    with _bar(tiling, len(rows) * len(columns)) as bar:
        for (top, bottom), next_top in zip(rows, _next_starts(rows)):
            final = next_top - top
            strip = Strip(
                top,
                np.empty((final, width), np.int32),
                np.empty((final, width), np.float32) if confidence else None,
            )
            pending = np.zeros((1, bottom - top, 0), np.float32)  # likewise, of columns
            for (left, right), next_left in zip(columns, _next_starts(columns)):
                sums = logits(slice(top, bottom), slice(left, right)).astype("float32")
                if not carry.size:  # pages that are not written take no memory
                    carry = np.empty((len(sums), bottom - top, width), np.float32)
                sums[:, :, : pending.shape[2]] += pending
                pending = sums[:, :, next_left - left :].copy()
                ready, place = sums[:, :, : next_left - left], slice(left, next_left)
                ready[:, :carried] += carry[:, :carried, place]
                carry[:, : bottom - next_top, place] = ready[:, final:]
                mean = ready[:, :final] / (over[top:next_top] * across[place])
                strip.labels[:, place], best = most_likely(mean, logits=confidence)
                if strip.confidence is not None:
                    strip.confidence[:, place] = best
                bar.update()
            carried = bottom - next_top
            yield strip


def cut(tiling: Tiling, size_hw: tuple[int, int], results: Tile) -> Iterator[Strip]:
    """Join tiles of labels, which have no mean: each overlap is cut in its middle.

    Takes and yields what :func:`blend` does, but ``results`` gives labels (1, h, w) for a tile, or
    labels and probabilities (2, h, w).
    """
    rows, columns = tiling.spans(size_hw)
    width = size_hw[1]
    with _bar(tiling, len(rows) * len(columns)) as bar:
        for (top, bottom), (first, last) in zip(rows, _cuts(rows)):
            joined: np.ndarray | None = None
            for (left, right), (start, end) in zip(columns, _cuts(columns)):
                tile = results(slice(top, bottom), slice(left, right))
                if joined is None:
                    joined = np.empty((len(tile), last - first, width), tile.dtype)
                joined[:, :, start:end] = tile[
                    :, first - top : last - top, start - left : end - left
                ]
                bar.update()
            if joined is not None:
                confidence = joined[1].astype("float32") if len(joined) == 2 else None
                yield Strip(first, joined[0].astype("int32"), confidence)


def _next_starts(spans: list[Span]) -> list[int]:
    """Return where the next tile begins, for each one; for the last the end of the picture."""
    return [*(start for start, _ in spans[1:]), spans[-1][1]]


def _cuts(spans: list[Span]) -> list[Span]:
    """Return the part of each tile that is used: up to the middle of each overlap."""
    inner = [(start + end) // 2 for (_, end), (start, _) in zip(spans, spans[1:])]
    ends = [spans[0][0], *inner, spans[-1][1]]
    return list(zip(ends, ends[1:]))


def _covering(spans: list[Span], extent: int) -> np.ndarray:
    """Return by how many tiles each row or column is covered, as float32."""
    covering = np.zeros(extent, np.float32)
    for start, end in spans:
        covering[start:end] += 1
    return covering


def _bar(tiling: Tiling, tiles: int) -> tqdm:
    shown = tiling.show_progress and tiles > 1
    # In a folder of small pictures, a bar for each would hide that of the folder.
    return progress_bar(
        total=tiles, unit="tile", leave=False, disable=not shown, delay=_BAR_SECONDS
    )
