"""Image files in, label maps and overlays out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import DataError
from liteseg_plugin.inference.images import (
    CONFIDENCE,
    LEGEND,
    InputImage,
    Result,
    check_results,
    result_paths,
)
from liteseg_plugin.inference.large import segment_geotiff, segment_large
from liteseg_plugin.inference.segmentation import Segmentation
from liteseg_plugin.system.parallel import prefetch
from liteseg_plugin.visualization.overlay import legend_bar, write_image

if TYPE_CHECKING:
    from liteseg_plugin.inference.predictor import Predictor

POLYGONS = "polygons"
"""Folder of outlines in ``--save_dir``."""

_LEGEND_WIDTH = 480
_WORKERS = 2  # threads that read, and as many that write
_Segmented = TypeVar("_Segmented")
_Written = TypeVar("_Written")


@dataclass(frozen=True)
class Extras:
    """What to write beside label maps and overlays.

    Attributes:
        confidence: Whether to write ``confidence/NAME.png``, grey: 255 is a probability of 1.
        polygons: Whether to write ``polygons/NAME.json``, labelme's document.
        min_confidence: Labels of a smaller probability become 255; 0 keeps all.
        geotiff: Whether images are read by windows, and label map, overlay and confidence written
            as GeoTIFF with their georeference; needs a predictor with ``tiling``.

    Raises:
        ValueError: If ``min_confidence`` is not 0 to 1, or outlines are to go with GeoTIFFs.
    """

    confidence: bool = False
    polygons: bool = False
    min_confidence: float = 0.0
    geotiff: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"--min_confidence must be 0 to 1, got {self.min_confidence}")
        if self.geotiff and self.polygons:
            raise ValueError("--save_polygons needs the whole picture; it does not take --geotiff")

    @property
    def needs_confidence(self) -> bool:
        """Whether the export must give probabilities."""
        return self.confidence or self.min_confidence > 0


@dataclass(frozen=True)
class SegmentedImage:
    """The files of one segmented image.

    Attributes:
        image: Path of the image.
        label: Path of the label map: class indices with a palette. Or of the Parquet file with it,
            None until that is written.
        overlay: Path of the image under the colours of its classes; None beside Parquet.
        confidence: Path of the confidence, if it was asked for.
        polygons: Path of the outlines, likewise.
    """

    image: str
    label: str | None
    overlay: str | None
    confidence: str | None = None
    polygons: str | None = None

    def written(self) -> list[str]:
        """Return the paths of the files that are written."""
        paths = (self.label, self.overlay, self.confidence, self.polygons)
        return [path for path in paths if path is not None]

    def to_json(self) -> dict[str, str]:
        """Return it as JSON writes it."""
        return {name: path for name, path in asdict(self).items() if path is not None}


def plan_results(
    images: Sequence[InputImage], save_dir: str | os.PathLike, extras: Extras
) -> list[SegmentedImage]:
    """Return the files that segmenting images is going to write.

    Raises:
        DataError: If one would overwrite an image or another result.
    """
    results = [_files(image, save_dir, extras) for image in images]
    written = [Result(path, r.image) for r in results for path in r.written()]
    legend = Result(os.path.join(save_dir, LEGEND), "the legend")
    check_results([image.path for image in images], [*written, legend])
    return results


OnError = Callable[[SegmentedImage, DataError], None]


def write_results(files: SegmentedImage, segmentation: Segmentation) -> None:
    """Write the files of a planned result; each is complete or absent."""
    if files.label:
        segmentation.save(files.label)
    if files.overlay:
        write_image(files.overlay, segmentation.overlay())
    if files.confidence:
        segmentation.save_confidence(files.confidence)
    if files.polygons:
        folder = os.path.dirname(os.path.abspath(files.polygons))
        segmentation.save(files.polygons, os.path.relpath(files.image, folder))


def segment_planned(
    predictor: Predictor,
    planned: Sequence[SegmentedImage],
    extras: Extras,
    *,
    on_error: OnError,
    read: Callable[[SegmentedImage], np.ndarray] | None = None,
    write: Callable[[SegmentedImage, Segmentation], None] = write_results,
) -> Iterator[SegmentedImage]:
    """Segment images whose results are planned.

    The next images are read and the last ones written while the model runs.

    Args:
        predictor: An exported model; one with confidence if ``extras`` need it.
        planned: Of :func:`plan_results`.
        extras: What else is planned.
        on_error: Gets each image that cannot be read or segmented; raises to end the run.
        read: Reads the image of a result; by default its file.
        write: Writes a result.

    Yields:
        For each image, as soon as they are written, its files.

    Raises:
        OSError: If a result cannot be written; no incomplete file remains.
    """
    classes = predictor.exported.named_classes()
    # An image that fails travels on as its error, so that those around it are not lost.
    read = read or (lambda files: predictor.read(files.image))
    reads: Any = (partial(_or_error, read, files) for files in planned)

    def labelled(image: np.ndarray) -> Segmentation:
        if extras.needs_confidence:
            return predictor.predict(image).confident(extras.min_confidence)
        return Segmentation(predictor.shown(image), predictor(image), classes)

    def segment(image: Any) -> Any:
        return image if isinstance(image, DataError) else _or_error(labelled, image)

    def finish(number: int, image: np.ndarray, segmentation: Any) -> SegmentedImage | DataError:
        if isinstance(segmentation, DataError):
            return segmentation
        write(planned[number], segmentation)
        return planned[number]

    if predictor.tiling is None and not extras.geotiff:
        results = overlapped(segment, reads, finish, workers=_WORKERS)
    else:  # one after the other, as each may take gigabytes
        by_tiles = segment_geotiff if extras.geotiff else segment_large
        one = partial(by_tiles, predictor, extras=extras)
        results = (_or_error(one, files) for files in planned)
    for files, result in zip(planned, results):
        if isinstance(result, DataError):
            on_error(files, result)
        else:
            yield result


def _or_error(function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return function(argument)
    except DataError as error:
        return error


def write_legend(classes: Sequence[ClassInfo], save_dir: str | os.PathLike) -> str:
    """Write the colours of all classes to ``legend.png``, and return its path."""
    path = os.path.join(save_dir, LEGEND)
    write_image(path, legend_bar(classes, _LEGEND_WIDTH))
    return path


def _files(image: InputImage, save_dir: str | os.PathLike, extras: Extras) -> SegmentedImage:
    added, label_map = result_paths(image.name, save_dir)
    name = Path(image.name)
    suffix = ".tif" if extras.geotiff else ".png"
    if extras.geotiff:
        added, label_map = added.with_suffix(suffix), label_map.with_suffix(suffix)
    return SegmentedImage(
        image.path,
        str(label_map),
        str(added),
        str(Path(save_dir, CONFIDENCE) / name.with_suffix(suffix)) if extras.confidence else None,
        str(Path(save_dir, POLYGONS) / name.with_suffix(".json")) if extras.polygons else None,
    )


def overlapped(
    segment: Callable[[np.ndarray], _Segmented],
    reads: Iterable[Callable[[], np.ndarray | None]],
    write: Callable[[int, np.ndarray, _Segmented], _Written],
    *,
    workers: int,
    ahead: int | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[_Written]:
    """Segment images, while the next are read and the last are written.

    Args:
        segment: Maps an image to its result; a :class:`Predictor`, for one.
        reads: Each reads an image, as ``segment`` takes it; None from one of them is the end.
        write: Takes the number of an image, the image, and its result.
        workers: Threads that read, and as many that write; with one, each keeps the order.
        ahead: Images to read before they are needed; by default two a thread.
        stop: Called at the end, also at an error; ends a read that still waits.

    Yields:
        For each image, in order, what ``write`` returned.
    """
    with ThreadPoolExecutor(workers) as readers, ThreadPoolExecutor(workers) as writers:
        ahead = 2 * workers if ahead is None else ahead
        read = prefetch(readers, lambda task: task(), reads, ahead)
        images = takewhile(lambda image: image is not None, read)
        labelled = ((number, image, segment(image)) for number, image in enumerate(images))
        try:
            yield from prefetch(writers, lambda result: write(*result), labelled, 2 * workers)
        finally:
            stop()  # before the executors wait for their threads
