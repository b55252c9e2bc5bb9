from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.validation import read_image
from liteseg_plugin.errors import DataError
from liteseg_plugin.inference.bulk import segment_in_bulk
from liteseg_plugin.inference.images import InputImage
from liteseg_plugin.visualization.overlay import (
    colorize,
    indexed_image,
    legend_bar,
    overlay,
    side_by_side,
    write_image,
)

CLASSES = [ClassInfo("road", (128, 64, 32)), ClassInfo("sky", (0, 0, 255))]


def test_colorize_gives_bgr_and_black_without_a_class():
    label = np.array([[0, 1, 255]])
    assert colorize(label, CLASSES).tolist() == [[[32, 64, 128], [255, 0, 0], [0, 0, 0]]]


def test_label_image_holds_up_to_8_bits():
    label = np.array([[0, 255]], np.int32)
    assert np.array(indexed_image(label, CLASSES)).tolist() == [[0, 255]]
    with pytest.raises(DataError, match="class 256 does not fit a label image, which is 8-bit"):
        indexed_image(label + 1, CLASSES)


def test_overlay_blends_classes_and_leaves_other_pixels():
    image = np.full((1, 3, 3), 100, np.uint8)
    blended = overlay(image, np.array([[0, 1, 255]]), CLASSES, weight=0.5)
    assert blended.tolist() == [[[66, 82, 114], [178, 50, 50], [100, 100, 100]]]
    assert (image == 100).all()


def test_legend_shows_the_colours_of_its_classes():
    bar = legend_bar(CLASSES[:1], 200).reshape(-1, 3)
    assert (bar == [32, 64, 128]).all(1).any()
    assert not (bar == [255, 0, 0]).all(1).any()


def test_legend_takes_more_rows_where_it_is_narrow():
    assert legend_bar(CLASSES, 40).shape[0] > legend_bar(CLASSES, 400).shape[0]


def test_side_by_side_sets_images_in_a_row():
    images = [np.zeros((10, 20, 3), np.uint8)] * 3
    assert side_by_side(images, "abc", scale=2).shape == (10 * 2 + 26, 3 * 40 + 2 * 6, 3)


def test_write_image_says_what_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write .*file/a\.png"):
        write_image(tmp_path / "file" / "a.png", np.zeros((2, 2, 3), np.uint8))


LABEL_MAP = "pseudo_color_prediction/noise.png"


class Darkness:
    """A predictor of two classes: what is dark, and what is not."""

    exported = SimpleNamespace(named_classes=lambda: CLASSES, classes=CLASSES)
    read = staticmethod(read_image)
    shown = staticmethod(lambda image: image)
    tiling = None

    def __call__(self, image):
        return (image[..., 0] > 127).astype("int32")


@pytest.fixture()
def noise(tmp_path):
    path = tmp_path / "noise.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    return path


def test_segmenting_writes_nothing_where_it_would_overwrite(noise, tmp_path):
    (tmp_path / "added_prediction").mkdir()
    noise = noise.rename(tmp_path / "added_prediction" / "noise.png")
    before, out = noise.read_bytes(), tmp_path / "out"
    image, other = (InputImage(str(noise.with_suffix(s)), f"noise{s}") for s in (".png", ".jpg"))
    with pytest.raises(DataError, match=f"would overwrite image {noise}"):
        segment_in_bulk(Darkness(), [image], tmp_path)
    with pytest.raises(DataError, match=f"{noise} and {other.path} have the same result file"):
        segment_in_bulk(Darkness(), [image, other], out)
    assert noise.read_bytes() == before
    assert not out.exists()


@pytest.mark.parametrize("room", [50, 1000], ids=["for neither", "for the label map"])
def test_segmenting_on_a_full_disk_keeps_earlier_results(noise, tmp_path, room):
    resource = pytest.importorskip("resource")
    earlier = {LABEL_MAP: b"label map", "added_prediction/noise.png": b"overlay"}
    out = tmp_path / "out"
    for name, content in earlier.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*noise.*: File too large"):
            segment_in_bulk(Darkness(), [InputImage(str(noise), "noise.png")], out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if room == 1000:
        assert np.asarray(Image.open(out / LABEL_MAP)).shape == (40, 60)
        del earlier[LABEL_MAP]
    for name, content in earlier.items():
        assert (out / name).read_bytes() == content
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {LABEL_MAP, "added_prediction/noise.png", "manifest.jsonl"}


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 exist on Linux")
def test_segmenting_takes_names_that_are_not_utf8(noise, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    path = noise.rename(tmp_path / f"{name}.png")
    found = [InputImage(str(path), path.name)]
    [result] = segment_in_bulk(Darkness(), found, tmp_path / "out").done
    assert result.overlay == f"{tmp_path}/out/added_prediction/{name}.png"
    expected = Darkness()(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR))
    np.testing.assert_array_equal(np.asarray(Image.open(result.label)), expected)
    assert Image.open(result.overlay).size == (60, 40)
    legend = cv2.imread(str(tmp_path / "out" / "legend.png"))
    np.testing.assert_array_equal(legend, legend_bar(CLASSES, 480))
