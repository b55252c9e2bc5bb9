"""Image files in, label maps and overlays out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from itertools import takewhile
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.validation import read_image
from liteseg_plugin.inference.images import (
    LEGEND,
    InputImage,
    Result,
    check_results,
    result_paths,
)
from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.system.parallel import prefetch
from liteseg_plugin.visualization.overlay import (
    indexed_image,
    legend_bar,
    overlay,
    write_image,
)

if TYPE_CHECKING:
    from liteseg_plugin.inference.predictor import Predictor

ADDED_WEIGHT = 0.4
"""Share of the colours in overlays; that of PaddleSeg's."""

_LEGEND_WIDTH = 480
_Written = TypeVar("_Written")


@dataclass(frozen=True)
class Segmentation:
    """The files of one segmented image.

    Attributes:
        image: Path of the image.
        label: Path of the label map: class indices with a palette.
        overlay: Path of the image under the colours of its classes.
    """

    image: str
    label: str
    overlay: str

    def to_json(self) -> dict[str, str]:
        """Return it as JSON writes it."""
        return asdict(self)


def segment_files(
    predictor: Predictor,
    images: Sequence[InputImage],
    save_dir: str | os.PathLike,
    *,
    workers: int = 2,
) -> Iterator[Segmentation]:
    """Segment image files; write label maps and overlays, as ``predict`` does, and a legend.

    The next images are read and the last ones written while the model runs.

    Args:
        predictor: An exported model.
        images: Of :func:`find_images`.
        save_dir: Where ``added_prediction``, ``pseudo_color_prediction`` and, if the export names
            its classes, the legend go.
        workers: Threads that read, and as many that write.

    Yields:
        For each image, as soon as they are written, its files.

    Raises:
        DataError: If a result would overwrite an image or another result, before anything is
            written; if an image cannot be read, when those before it are written.
        OSError: If a result cannot be written; no incomplete file remains.
    """
    results = []
    for path, name in images:
        added, label_map = result_paths(name, save_dir)
        results.append(Segmentation(path, str(label_map), str(added)))
    written = [Result(path, r.image) for r in results for path in (r.label, r.overlay)]
    legend = Result(os.path.join(save_dir, LEGEND), "the legend")
    check_results([image.path for image in images], [*written, legend])
    classes = predictor.exported.named_classes()
    reads = (partial(read_image, image.path) for image in images)

    def write(number: int, image: np.ndarray, label: np.ndarray) -> Segmentation:
        write_label_map(results[number].label, label, classes)
        blended = overlay(image, label, classes, weight=ADDED_WEIGHT)
        write_image(results[number].overlay, blended)
        return results[number]

    yield from overlapped(predictor, reads, write, workers=workers)
    if predictor.exported.classes:
        write_legend(classes, save_dir)


def write_legend(classes: Sequence[ClassInfo], save_dir: str | os.PathLike) -> str:
    """Write the colours of all classes to ``legend.png``, and return its path."""
    path = os.path.join(save_dir, LEGEND)
    write_image(path, legend_bar(classes, _LEGEND_WIDTH))
    return path


def write_label_map(
    path: str | os.PathLike, label: np.ndarray, classes: Sequence[ClassInfo]
) -> None:
    """Write class indices (H, W) as a PNG with a palette; the file is complete or absent."""
    encoded = BytesIO()
    indexed_image(label, classes).save(encoded, format="PNG")
    atomic_write(path, encoded.getvalue(), durable=False)


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
