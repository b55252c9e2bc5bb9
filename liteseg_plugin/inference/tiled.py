"""An exported model on tiles of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.inference.tiles import Strip, Tiling, blend, cut

if TYPE_CHECKING:
    from liteseg_plugin.inference.predictor import Predictor

BLENDED = ("none", "softmax")
"""Output ops whose tiles are blended; those of other exports are cut in the middle of overlaps."""

Read = Callable[[slice, slice], np.ndarray]
"""Gives rows and columns of a picture, (h, w, 3) of uint8 in BGR."""

_RESIZED = (
    "the transforms of the export resize or pad pictures, which tiles do not allow; export with "
    "val_dataset.transforms that keep the size"
)
_SMALLEST = np.finfo(np.float32).tiny


def describe(predictor: Predictor, tiling: Tiling) -> str:
    """Return one line for the log: the tiles, and how they are joined."""
    joined = "logits are blended where tiles overlap"
    if predictor.exported.output_op not in BLENDED:
        joined = (
            f"the export has no logits (output_op {predictor.exported.output_op}), so each overlap "
            "is cut in its middle; --output_op none of liteseg export blends"
        )
    return f"Tiles: {tiling.width} x {tiling.height}, overlap {tiling.overlap}; {joined}"


def require_tile(predictor: Predictor, tiling: Tiling) -> None:
    """Refuse tiles of another size than that of an export with a fixed size.

    Raises:
        DataError: If they have one.
    """
    height, width = predictor.input_shape[2:]
    if (tiling.height, tiling.width) != (height or tiling.height, width or tiling.width):
        raise DataError(
            f"the export takes pictures of {width or 'any'} x {height or 'any'} (W x H), the "
            f"tiles have {tiling.width} x {tiling.height}; give --tile "
            f"{width or tiling.width} {height or tiling.height}"
        )


def segment_windows(
    predictor: Predictor,
    tiling: Tiling,
    size_hw: tuple[int, int],
    read: Read,
    *,
    confidence: bool = False,
) -> Iterator[Strip]:
    """Segment a picture of a height and width that ``read`` gives window by window.

    With ``confidence``, probabilities are computed, too.

    Yields:
        Its rows from top to bottom.

    Raises:
        DataError: If the tiles do not have the size of the export.
        ExportError: If the export resizes pictures.
    """

    def preprocessed(rows: slice, columns: slice) -> np.ndarray:
        window = read(rows, columns)
        x = predictor.preprocess(window)
        if x.shape[2:] != window.shape[:2]:
            raise ExportError(_RESIZED)
        return x

    return _strips(predictor, tiling, size_hw, preprocessed, confidence)


def segment_image(
    predictor: Predictor, tiling: Tiling, image: np.ndarray, *, confidence: bool = False
) -> tuple[tuple[np.ndarray, np.ndarray | None], float]:
    """Segment a picture (H, W, 3) of uint8, BGR, that is in memory.

    Returns:
        Labels (H, W) of int32, probabilities (H, W) of float32 or None, and the engine's
        milliseconds.
    """
    size_hw = (image.shape[0], image.shape[1])
    labels = np.empty(size_hw, np.int32)
    probabilities: np.ndarray | None = None
    milliseconds = 0.0
    for strip in segment_windows(
        predictor, tiling, size_hw, lambda r, c: image[r, c], confidence=confidence
    ):
        labels[strip.rows] = strip.labels
        milliseconds += strip.engine_ms
        if strip.confidence is not None:
            if probabilities is None:
                probabilities = np.empty(size_hw, np.float32)
            probabilities[strip.rows] = strip.confidence
    return (labels, probabilities), milliseconds


def segment_preprocessed(
    predictor: Predictor, tiling: Tiling, x: np.ndarray, size_hw: tuple[int, int]
) -> np.ndarray:
    """Return the labels, (H, W) of int32, of a preprocessed picture, (1, 3, H, W) of float32.

    ``size_hw`` is its size before. Takes and raises what :func:`segment_windows` does otherwise.
    """
    if x.shape[2:] != size_hw:
        raise ExportError(_RESIZED)
    strips = _strips(predictor, tiling, size_hw, lambda r, c: x[:, :, r, c], False)
    return np.concatenate([strip.labels for strip in strips])


def _strips(
    predictor: Predictor,
    tiling: Tiling,
    size_hw: tuple[int, int],
    read: Callable[[slice, slice], np.ndarray],
    confidence: bool,
) -> Iterator[Strip]:
    """Segment a picture of which ``read`` gives preprocessed windows (1, C, h, w)."""
    require_tile(predictor, tiling)
    output_op = predictor.exported.output_op
    spent: list[float] = []

    def run(rows: slice, columns: slice) -> np.ndarray:
        x = read(rows, columns)
        height, width = x.shape[2:]
        output, milliseconds = predictor.run_timed(_filled(predictor, x))
        spent.append(milliseconds)
        result = output[0] if output.ndim == 4 else output[:1]
        result = result[:, :height, :width]
        # Logits but for a number that is the same for all classes.
        return np.log(np.maximum(result, _SMALLEST)) if output_op == "softmax" else result

    if output_op in BLENDED:
        strips = blend(tiling, size_hw, run, confidence=confidence)
    else:
        strips = cut(tiling, size_hw, run)
    for strip in strips:
        yield replace(strip, engine_ms=sum(spent))
        spent.clear()


def _filled(predictor: Predictor, x: np.ndarray) -> np.ndarray:
    """Return a tile (1, C, h, w) of the size that an export of fixed size takes."""
    height, width = predictor.input_shape[2:]
    missing = [(height or x.shape[2]) - x.shape[2], (width or x.shape[3]) - x.shape[3]]
    if any(missing):  # a picture smaller than the tile: its border repeats
        x = np.pad(x, [(0, 0), (0, 0), *((0, n) for n in missing)], mode="edge")
    return np.ascontiguousarray(x)
