"""Pictures that are too large to be held: bounded memory, and GeoTIFFs by windows."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.bulk import segment_in_bulk
from liteseg_plugin.inference.images import InputImage
from liteseg_plugin.inference.pipeline import Extras
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.inference.tiles import Tiling

needs_rasterio = pytest.mark.skipif(
    find_spec("rasterio") is None, reason="needs rasterio: pip install 'liteseg_plugin[geo]'"
)


@pytest.fixture(scope="module")
def folder(pointwise, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    transforms = [{"type": "Normalize"}]
    export_model(pointwise(), folder, transforms=transforms, output_op="none")
    return folder


def picture(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


# Not ru_maxrss: a new process begins with that of the process which started it.
MEASURED = """
import re, sys
from pathlib import Path
from liteseg_plugin.cli import main

code = main(sys.argv[1:])
peak_kib = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print("PEAK", int(peak_kib) * 1024)
sys.exit(code)
"""


@pytest.mark.slow
def test_large_picture_takes_little_memory(folder, tmp_path):
    cv2.imwrite(str(tmp_path / "large.jpg"), picture(6000, 8000))
    command = ["infer", "--config", folder, "--image_path", tmp_path / "large.jpg"]
    command += ["--save_dir", tmp_path / "out", "--save_confidence", "--tile", 512, 512]
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, command)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    peak = int(result.stdout.rsplit("PEAK", 1)[1])
    # The scores of all pixels alone would take 2 GiB.
    assert peak < 1024**3, f"{peak / 1024**3:.2f} GiB"
    assert "Tiles: 512 x 512, overlap 64; logits are blended" in result.stdout
    label = cv2.imread(str(tmp_path / "out/pseudo_color_prediction/large.png"), -1)
    assert label.shape[:2] == (6000, 8000)


@pytest.fixture()
def field(tmp_path):
    """A GeoTIFF of four bands, and its picture in BGR."""
    import rasterio
    from rasterio.transform import from_origin

    image = picture(150, 230)
    path = tmp_path / "field.tif"
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5400000, 0.5, 0.5)}
    size = {"width": 230, "height": 150, "count": 4, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **size, **place) as file:
        file.write(image[..., ::-1].transpose(2, 0, 1), [1, 2, 3])
        file.write(np.full((150, 230), 255, np.uint8), 4)
    return path, image


@needs_rasterio
def test_geotiff_keeps_its_place_on_earth(folder, field, tmp_path):
    import rasterio

    path, image = field
    predictor = Predictor(folder, tiling=Tiling(64, 48, 8))
    extras = Extras(confidence=True, geotiff=True)
    found = [InputImage(str(path), "field.tif")]
    [files] = segment_in_bulk(predictor, found, tmp_path / "out", extras=extras).done
    whole = Predictor(folder).predict(image)
    with rasterio.open(path) as source, rasterio.open(files.label) as label:
        assert (label.crs, label.transform) == (source.crs, source.transform)
        assert (label.nodata, label.dtypes) == (255, ("uint8",))
        np.testing.assert_array_equal(label.read(1), whole.labels)
        red = predictor.classes[1].color_rgb
        assert label.colormap(1)[1] == (*red, 255)
    with rasterio.open(files.overlay) as added, rasterio.open(files.confidence) as grey:
        assert added.transform == grey.transform == source.transform
        np.testing.assert_array_equal(added.read().transpose(1, 2, 0)[..., ::-1], whole.overlay())
        np.testing.assert_allclose(grey.read(1), whole.grey_confidence(), atol=1)
    kept = sorted(p.name for p in (tmp_path / "out" / "pseudo_color_prediction").iterdir())
    assert kept == ["field.tif"]


@needs_rasterio
@pytest.mark.parametrize("bands", [1, 3])
def test_geotiff_of_other_bands_is_refused(folder, tmp_path, bands):
    import rasterio

    path, dtype = tmp_path / "other.tif", "uint8" if bands == 1 else "uint16"
    size = {"width": 40, "height": 30, "count": bands, "dtype": dtype}
    with rasterio.open(path, "w", driver="GTiff", **size) as file:
        file.write(np.zeros((bands, 30, 40), dtype))
    predictor = Predictor(folder, tiling=Tiling(64, 48))
    found = [InputImage(str(path), "other.tif")]
    message = f"must have red, green and blue of 8 bits .* it has {bands} of {dtype}"
    with pytest.raises(DataError, match=message):
        segment_in_bulk(predictor, found, tmp_path / "out", extras=Extras(geotiff=True))


@needs_rasterio
def test_truncated_geotiff_leaves_no_results(folder, field, tmp_path):
    path, _ = field
    path.write_bytes(path.read_bytes()[:60_000])
    predictor = Predictor(folder, tiling=Tiling(64, 48))
    with pytest.raises(DataError, match=r"cannot read .*field\.tif"):
        found = [InputImage(str(path), "field.tif")]
        segment_in_bulk(predictor, found, tmp_path / "out", extras=Extras(geotiff=True))
    files = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == ["manifest.jsonl"]


def test_geotiff_without_rasterio_names_the_extra(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    cv2.imwrite(str(tmp_path / "a.tif"), picture(30, 40))
    predictor = Predictor(folder, tiling=Tiling(64, 48))
    with pytest.raises(ExportError, match=r"needs rasterio: pip install 'liteseg_plugin\[geo\]'"):
        found = [InputImage(str(tmp_path / "a.tif"), "a.tif")]
        segment_in_bulk(predictor, found, tmp_path / "out", extras=Extras(geotiff=True))


def test_tile_flags_that_do_not_go_together(fails, folder, tmp_path):
    command = ("infer", "--config", folder, "--image_path", tmp_path, "--save_dir", tmp_path)
    assert "--overlap needs --tile W H" in fails(*command, "--overlap", 8)
    assert "give their size: --tile W H" in fails(*command, "--geotiff")
    tiles = ("--tile", 64, 64)
    assert "does not take --geotiff" in fails(*command, *tiles, "--geotiff", "--save_polygons")


def test_bound_on_pixels_is_raised_by_its_flag(run, folder, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(30, 40))
    command = ["infer", "--config", folder, "--image_path", tmp_path / "a.png"]
    command += ["--save_dir", tmp_path / "out", "--tile", 16, 16]
    result = run(*command, "--max_pixels", 1000, check=False)
    assert "too large: 40 x 30 pixels; the limit is 1000 pixels in all, and --max_pixels" in (
        result.stderr
    )
    run(*command, "--max_pixels", 1200)
