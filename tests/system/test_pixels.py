"""Images are bounded in pixels before they are decoded."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.datasets.cityscapes import draw_polygons
from liteseg_plugin.datasets.validation import read_image, read_label
from liteseg_plugin.errors import DataError, LitesegError
from liteseg_plugin.inference.video import Frames
from liteseg_plugin.serving.uploads import read_upload
from liteseg_plugin.system import pixels

PICTURE = np.zeros((30, 40), np.uint8)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "street.png"
    cv2.imwrite(str(path), PICTURE)
    return path


def png(width, height):
    """Return a PNG whose header promises pixels."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))


@pytest.mark.parametrize("read", [read_image, read_label, read_upload])
def test_bound_is_that_of_the_command(picture, read):
    with pixels.limited(1200):
        assert read(str(picture)).shape[:2] == (30, 40)
    with (
        pixels.limited(1199),
        pytest.raises(
            DataError,
            match=r"street\.png is too large: 40 x 30 pixels; the limit is 1199 .*--max_pixels",
        ),
    ):
        read(str(picture))
    assert read(str(picture)).shape[:2] == (30, 40)


@pytest.mark.parametrize("read", [read_image, read_label, read_upload])
def test_large_header_takes_no_memory(tmp_path, read):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(30_000, 30_000))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"bomb\.png"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_larger_bound_admits_what_pillow_refuses(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png(20_000, 10_000))
    with pytest.raises(DataError, match="exceeds limit of"):
        read_label(path)
    with pixels.limited(200_000_000), pytest.raises(DataError, match="truncated"):
        read_label(path)


def test_video_and_annotation_have_the_same_bound(tmp_path):
    path = str(tmp_path / "street.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    annotation = {"imgWidth": 64, "imgHeight": 48, "objects": []}
    with pixels.limited(64 * 48):
        Frames(path).close()
        assert draw_polygons(annotation).shape == (48, 64)
    with pixels.limited(64 * 48 - 1):
        with pytest.raises(DataError, match=r"street\.avi is too large: 64 x 48 pixels"):
            Frames(path)
        with pytest.raises(DataError, match="annotation is too large: 64 x 48 pixels"):
            draw_polygons(annotation)


def test_bound_ends_with_the_command():
    before = dict(os.environ), Image.MAX_IMAGE_PIXELS
    with pixels.limited(5_000_000_000):
        assert pixels.max_pixels() == 5_000_000_000
        assert os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] == "5000000000"
    assert pixels.max_pixels() == pixels.MOST_PIXELS
    assert (dict(os.environ), Image.MAX_IMAGE_PIXELS) == before
    with pytest.raises(LitesegError, match="--max_pixels must be at least 1, got 0"):
        with pixels.limited(0):
            pass


def test_commands_take_the_bound(fails, exported, picture, trained, toy):
    said = fails(
        *("infer", "--config", exported.folder, "--image_path", picture, "--max_pixels", 1199)
    )
    assert "street.png is too large: 40 x 30 pixels; the limit is 1199 pixels" in said
    said = fails(
        *("val", "--config", trained.config, "--model_path", trained.weights),
        *("--device", "cpu", "--max_pixels", 128 * 96 - 1),
    )
    assert "too large: 128 x 96 pixels" in said
