"""Files of large pictures through tiles: their results take a byte a pixel, or no memory at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from liteseg_plugin.datasets.base import IGNORE_INDEX
from liteseg_plugin.errors import DataError, ExportError, last_line, printable
from liteseg_plugin.inference.segmentation import ADDED_WEIGHT, Segmentation
from liteseg_plugin.inference.tiled import Read, segment_windows
from liteseg_plugin.system.files import scratch_folder
from liteseg_plugin.system.pixels import check_pixels
from liteseg_plugin.visualization.overlay import overlay, write_image

if TYPE_CHECKING:
    from liteseg_plugin.inference.pipeline import Extras, SegmentedImage
    from liteseg_plugin.inference.predictor import Predictor

_GDAL_CACHE_BYTES = 64 << 20  # its default is a share of all memory


def segment_large(predictor: Predictor, files: SegmentedImage, extras: Extras) -> SegmentedImage:
    """Segment a picture by the ``tiling`` of a predictor, and write its files.

    Raises:
        DataError: If the picture cannot be read.
        OSError: If a result cannot be written.
    """
    label_path, overlay_path = _paths(files)
    image = predictor.read(files.image)
    size_hw = (image.shape[0], image.shape[1])
    labels = np.empty(size_hw, np.uint8)
    grey = np.empty(size_hw if extras.confidence else (0, 0), np.uint8)
    for rows, part in _parts(predictor, size_hw, lambda r, c: image[r, c], extras):
        labels[rows] = part.labels
        if extras.confidence:
            grey[rows] = part.grey_confidence()
    classes = predictor.classes
    segmentation = Segmentation(image, labels, classes)
    segmentation.save(label_path)
    if files.confidence:
        write_image(files.confidence, grey)
    if files.polygons:
        folder = os.path.dirname(os.path.abspath(files.polygons))
        segmentation.save(files.polygons, os.path.relpath(files.image, folder))
    picture = predictor.shown(image)
    write_image(overlay_path, overlay(picture, labels, classes, weight=ADDED_WEIGHT, out=picture))
    return files


def segment_geotiff(predictor: Predictor, files: SegmentedImage, extras: Extras) -> SegmentedImage:
    """Do as :func:`segment_large`, window by window, into GeoTIFFs with the same georeference.

    Raises what that does, and ExportError if rasterio is not installed.
    """
    try:
        import rasterio
        from rasterio.errors import RasterioError
        from rasterio.windows import Window
    except ImportError:
        raise ExportError("--geotiff needs rasterio: pip install 'liteseg_plugin[geo]'") from None
    label_path, overlay_path = _paths(files)
    classes = predictor.classes
    palette = {n: (*entry.color_rgb, 255) for n, entry in enumerate(classes[:IGNORE_INDEX])}
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_BYTES))
        try:
            source = stack.enter_context(rasterio.open(files.image))
        except RasterioError as error:
            raise DataError(f"cannot read {printable(files.image)}: {last_line(error)}") from error
        check_pixels(files.image, source.width, source.height)
        images = predictor.exported.image_format
        bands = [3, 2, 1] if images.channels == 3 else [*range(1, images.channels + 1)]
        fits = source.count >= 3 if images.is_rgb else source.count == images.channels
        if not fits or {source.dtypes[band - 1] for band in bands} != {images.dtype}:
            wanted = "red, green and blue of 8 bits as its first bands"
            raise DataError(
                f"{printable(files.image)} must have {wanted if images.is_rgb else images}, it "
                f"has {source.count} of {', '.join(sorted({*source.dtypes}))}"
            )
        Path(label_path).parent.mkdir(parents=True, exist_ok=True)
        scratch = stack.enter_context(scratch_folder(Path(label_path).parent, "geotiff"))
        profile = _profile(source)

        def create(path: str | None, bands: int, **more: Any) -> Any:
            if path is None:
                return None
            part = scratch / f"{len(written)}.tif"
            written[part] = path
            return stack.enter_context(rasterio.open(part, "w", count=bands, **profile, **more))

        def read(rows: slice, columns: slice) -> np.ndarray:
            try:
                window = source.read(bands, window=Window.from_slices(rows, columns))
            except RasterioError as error:
                raise DataError(
                    f"cannot read {printable(files.image)}: {last_line(error)}"
                ) from error
            return np.ascontiguousarray(window.transpose(1, 2, 0))

        written: dict[Path, str] = {}
        label = create(label_path, 1, nodata=IGNORE_INDEX)
        label.write_colormap(1, palette)
        added, grey = create(overlay_path, 3), create(files.confidence, 1)
        size_hw = (source.height, source.width)
        for rows, part in _parts(predictor, size_hw, read, extras):
            window = Window.from_slices(rows, slice(0, source.width))
            label.write(part.labels.astype("uint8"), 1, window=window)
            added.write(part.overlay()[..., ::-1].transpose(2, 0, 1), window=window)
            if grey is not None:
                grey.write(part.grey_confidence(), 1, window=window)
        for file in filter(None, (label, added, grey)):
            file.close()
        for temporary, path in written.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, path)
    return files


def _paths(files: SegmentedImage) -> tuple[str, str]:
    """Return where label map and overlay go."""
    if files.label is None or files.overlay is None:
        raise DataError("tiles write label maps and overlays as files, not as Parquet")
    return files.label, files.overlay


def _profile(source: Any) -> dict[str, Any]:
    """Return how results are stored, and where on Earth they are."""
    points, system = source.gcps
    place = {"gcps": points, "crs": system} if points else {"crs": source.crs}
    if not points:
        place["transform"] = source.transform
    return {
        "driver": "GTiff",
        "width": source.width,
        "height": source.height,
        "dtype": "uint8",
        "tiled": True,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
        **place,
    }


def _parts(
    predictor: Predictor, size_hw: tuple[int, int], read: Read, extras: Extras
) -> Iterator[tuple[slice, Segmentation]]:
    """Yield the rows of a picture, and what the model says about them."""
    if predictor.tiling is None:
        raise DataError("--geotiff reads pictures by windows; give their size: --tile W H")
    classes = predictor.classes
    confidence = extras.needs_confidence
    everything = slice(0, size_hw[1])
    for strip in segment_windows(predictor, predictor.tiling, size_hw, read, confidence=confidence):
        picture = predictor.shown(read(strip.rows, everything))
        part = Segmentation(picture, strip.labels, classes, strip.confidence)
        if extras.min_confidence:
            part = part.confident(extras.min_confidence)
        highest = int(part.labels.max())
        if highest > IGNORE_INDEX:
            raise DataError(f"class {highest} does not fit a label image, which is 8-bit: 0 to 255")
        yield strip.rows, part
