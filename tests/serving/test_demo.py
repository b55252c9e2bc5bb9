from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest

from liteseg_plugin.errors import DataError
from liteseg_plugin.serving.demo import class_shares, read_upload, write_samples

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)


def test_class_shares_are_sorted_and_leave_unknown_labels_out():
    classes = [{"name": "road", "color": [1, 2, 3]}, {"name": "sky", "color": [4, 5, 6]}]
    assert class_shares(np.array([[0, 1], [1, 255]]), classes) == [
        {"name": "sky", "color": "rgb(4, 5, 6)", "share": 0.5},
        {"name": "road", "color": "rgb(1, 2, 3)", "share": 0.25},
    ]


def test_upload_of_16_bits_grey_or_with_alpha_is_the_same_picture(tmp_path):
    grey = PICTURE[..., 0]
    pictures = {
        "deep.png": (PICTURE.astype(np.uint16) << 8, PICTURE),
        "grey.png": (grey, cv2.merge([grey] * 3)),
        "alpha.png": (np.dstack([PICTURE, grey]), PICTURE),
        "one.png": (PICTURE[:1, :1], PICTURE[:1, :1]),
    }
    for name, (written, expected) in pictures.items():
        cv2.imwrite(str(tmp_path / name), written)
        assert np.array_equal(read_upload(str(tmp_path / name)), expected), name


def chunk(kind, content):
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


def bomb(width, height):
    """A PNG of black pixels, packed a thousand times."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    packed = zlib.compress(bytes(10**7), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot read image x.png: it is no image"),
        (b"a text", "cannot read image x.png: it is no image"),
        (cv2.imencode(".png", PICTURE)[1].tobytes()[:500], "cannot read image x.png"),
        (bomb(50000, 50000), "x.png is too large"),
        (bomb(6000, 5000), r"x.png is too large: 6000 x 5000 pixels; .* 16 million"),
        (bomb(100000, 10), "x.png is too large: 100000 x 10 pixels"),
    ],
)
def test_hostile_upload_is_one_error_without_paths_of_the_server(content, message, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read_upload(str(path))
    assert str(tmp_path) not in str(raised.value)


def test_samples_are_pictures(tmp_path):
    paths = write_samples(tmp_path)
    assert len({cv2.imread(path).tobytes() for path in paths}) == len(paths) == 4
