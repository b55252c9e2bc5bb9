"""Image files in, label maps and overlays out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Callable, TypeVar

import numpy as np
from PIL import Image

from liteseg_plugin.datasets.validation import read_image
from liteseg_plugin.inference.images import Result, check_results
from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.system.parallel import prefetch

if TYPE_CHECKING:
    from liteseg_plugin.inference.predictor import Predictor

from liteseg_plugin.visualization.overlay import indexed_image, overlay, write_image

_Written = TypeVar("_Written")


def segment_files(
    predictor: Predictor,
    image_paths: Sequence[str],
    names: Sequence[str],
    save_dir: str | os.PathLike,
    *,
    workers: int = 2,
) -> Iterator[dict]:
    """Segment image files and write what people look at.

    Reading the next images and writing the last ones goes on while the model runs.

    Args:
        predictor: An exported model.
        image_paths: The images.
        names: One for each, without extension; they may hold folders.
        save_dir: Where ``NAME.png`` (class indices with a palette) and ``overlay/NAME.jpg`` go.
        workers: Threads that read, and as many that write.

    Yields:
        For each image, as soon as it is written, the paths ``image``, ``label`` and ``overlay``.

    Raises:
        DataError: If a result would overwrite an image or another result, before anything is
            written; if an image cannot be read, when those before it are written.
        OSError: If a result cannot be written; no file of it is there incomplete.
    """
    results = [_result_paths(save_dir, name) for name in names]
    check_results(
        image_paths,
        (Result(path, image) for image, pair in zip(image_paths, results) for path in pair),
    )
    classes = predictor.exported.named_classes()
    reads = (partial(read_image, path) for path in image_paths)

    def write(number: int, image: np.ndarray, label: np.ndarray) -> dict:
        label_path, overlay_path = results[number]
        atomic_write(label_path, _png(indexed_image(label, classes)), durable=False)
        write_image(overlay_path, overlay(image, label, classes))
        return {
            "image": str(image_paths[number]),
            "label": label_path,
            "overlay": overlay_path,
        }

    yield from overlapped(predictor, reads, write, workers=workers)


def overlapped(
    segment: Callable[[np.ndarray], np.ndarray],
    reads: Iterable[Callable[[], np.ndarray | None]],
    write: Callable[[int, np.ndarray, np.ndarray], _Written],
    *,
    workers: int,
) -> Iterator[_Written]:
    """Segment images, while the next are read and the last are written.

    Args:
        segment: Maps an image to its class indices; a :class:`Predictor`, for one.
        reads: Each reads an image, (H, W, 3) of uint8 in BGR; None from one of them is the end.
        write: Takes the number of an image, the image, and its class indices (H, W).
        workers: Threads that read, and as many that write; with one, each keeps the order.

    Yields:
        For each image, in order, what ``write`` returned.
    """
    with ThreadPoolExecutor(workers) as readers, ThreadPoolExecutor(workers) as writers:
        read = prefetch(readers, lambda task: task(), reads, 2 * workers)
        images = takewhile(lambda image: image is not None, read)
        labelled = ((number, image, segment(image)) for number, image in enumerate(images))
        yield from prefetch(writers, lambda result: write(*result), labelled, 2 * workers)


def _result_paths(save_dir: str | os.PathLike, name: str) -> tuple[str, str]:
    """Return where the label map and the overlay of an image go."""
    folder = Path(save_dir)
    return str(folder / f"{name}.png"), str(folder / "overlay" / f"{name}.jpg")


def _png(image: Image.Image) -> bytes:
    encoded = BytesIO()
    image.save(encoded, format="PNG")
    return encoded.getvalue()
