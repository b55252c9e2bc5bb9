from __future__ import annotations

import itertools
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.datasets import lists, validation
from liteseg_plugin.errors import DataError


@pytest.fixture
def picture(tmp_path):
    """Return a function that writes a picture, and gives its path."""

    def write(name, size_hw=(60, 80)):
        pixels = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        path = tmp_path / name
        cv2.imwrite(str(path), cv2.GaussianBlur(pixels, (9, 9), 3))
        return path

    return write


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_image_cut_short_is_an_error(picture, suffix, share):
    path = picture(f"cut{suffix}")
    whole = path.read_bytes()
    assert validation.read_image(path).shape == (60, 80, 3)
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=rf"cannot read image .*cut{suffix}"):
        validation.read_image(path)


def test_opencv_itself_gives_grey_for_a_jpeg_cut_short(picture):
    path = picture("cut.jpg")
    path.write_bytes(path.read_bytes()[:1500])
    assert cv2.imread(str(path)) is not None  # or check_image_file is no longer needed
    with pytest.raises(DataError, match="image file is truncated"):
        validation.check_image_file(path)


def test_jpeg_with_data_behind_its_end_is_read(picture):
    path = picture("camera.jpg")
    whole = validation.read_image(path)
    path.write_bytes(path.read_bytes() + b"\0" * 64)
    np.testing.assert_array_equal(validation.read_image(path), whole)


def test_read_image_turns_and_converts_as_opencv(picture, tmp_path):
    pixels = cv2.imread(str(picture("upright.png")))
    paths = [tmp_path / name for name in ("sixteen.png", "grey.tif", "transparent.png")]
    contents = (pixels.astype("uint16") * 257, pixels[..., 0], np.dstack([pixels, pixels[..., 0]]))
    for path, content in zip(paths, contents):
        cv2.imwrite(str(path), content)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        paths.append(tmp_path / f"turned_{orientation}.jpg")
        Image.fromarray(pixels).save(paths[-1], exif=exif)
    for path in paths:
        for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED, cv2.IMREAD_GRAYSCALE):
            np.testing.assert_array_equal(
                validation.read_image(path, flags), cv2.imread(str(path), flags)
            )
    assert validation.read_image(paths[-1]).shape == (80, 60, 3)


def test_files_that_are_no_images(tmp_path, bomb):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(DataError, match=r"cannot read image .*text\.png: it is not an image"):
        validation.read_image(text)
    with pytest.raises(DataError, match=r"cannot read label .*text\.png: it is not an image"):
        validation.read_label(text)
    for read, kind in ((validation.read_image, "image"), (validation.read_label, "label")):
        with pytest.raises(DataError, match=f"{kind} not found: .*gone.png"):
            read(tmp_path / "gone.png")
        with pytest.raises(DataError, match=f"^{kind} .* is a folder, not a file"):
            read(tmp_path)
        with pytest.raises(DataError, match=rf"cannot read {kind} .*exceeds limit of \d+ pixels"):
            read(bomb(tmp_path / "bomb.png"))


def test_label_of_a_palette_image_is_its_indices(tmp_path):
    indexed = Image.fromarray(np.uint8([[0, 1], [2, 255]]))
    indexed.putpalette([200] * 768)
    indexed.save(tmp_path / "palette.png")
    assert Image.open(tmp_path / "palette.png").mode == "P"
    assert validation.read_label(tmp_path / "palette.png").tolist() == [[0, 1], [2, 255]]


def test_label_is_read_as_stored(deep_label, tmp_path):
    depth, write = deep_label
    ones = np.eye(5, 7, dtype=np.uint8)
    write(tmp_path / "label.png", ones)
    label, unusual = validation.read_label_and_depth(tmp_path / "label.png")
    assert label.dtype == np.uint8 and label.tolist() == ones.tolist()
    with Image.open(tmp_path / "label.png") as image:
        stock = paddle_takes(np.asarray(image))
    assert unusual == (None if np.array_equal(stock, ones) else depth)


def paddle_takes(label):
    """Return what training computes with for an array of Pillow's; OpenCV refuses bool."""
    return None if label.dtype == bool else np.zeros_like(label) if label.dtype == "u2" else label


def test_label_beyond_eight_bits(tmp_path):
    path = tmp_path / "label.png"
    cv2.imwrite(str(path), np.uint16([[0, 1], [2, 65535]]))
    label = validation.read_label(path)
    assert label.dtype == np.int32 and label.tolist() == [[0, 1], [2, 65535]]
    (fault,) = validation.label_faults(label, (2, 2), 3, 255)
    assert "65535 (1 pixels)" in fault.message
    for value, message in ((0.5, "not whole numbers"), (np.nan, "not whole"), (1e20, r"to 1e\+20")):
        Image.fromarray(np.float32([[0, value]])).save(path, format="TIFF")
        with pytest.raises(DataError, match=rf"cannot read label .*label\.png: .*{message}"):
            validation.read_label(path)


@pytest.mark.parametrize(
    ("suffix", "orientation"),
    [
        *itertools.product([".jpg", ".png", ".tif", ".webp"], [None, 1, 2, 3, 6, 8]),
        *itertools.product([".jpg", ".png"], [0, 99]),  # nothing writes such a TIFF
    ],
)
def test_labelled_image_must_be_upright(picture, suffix, orientation):
    path = picture(f"camera{suffix}")
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.open(path).save(path, exif=exif)
    assert validation.read_image(path) is not None  # nothing else depends on where it is turned to
    if orientation in (None, 0, 1, 99):
        np.testing.assert_array_equal(
            validation.read_image(path, labelled=True),
            cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION),
        )
        return
    with pytest.raises(DataError, match=rf"camera{suffix}: EXIF orientation {orientation} turns"):
        validation.read_image(path, labelled=True)


def test_orientation_behind_the_pixels_of_a_png(picture):
    path = picture("edited.png")
    before = cv2.imread(str(path))
    exif = Image.Exif()
    exif[0x0112] = 3
    body = b"eXIf" + exif.tobytes()[len(b"Exif\0\0") :]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    content = path.read_bytes()
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:end] + chunk + content[end:])
    assert (cv2.imread(str(path)) == before[::-1, ::-1]).all()
    assert validation.check_image_file(path) == 3


def test_broken_exif_is_no_orientation(picture):
    path = picture("camera.jpg")
    content = path.read_bytes()
    body = b"Exif\0\0II*\0\xff\xff\xff\xff"
    marker = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    path.write_bytes(content[:2] + marker + content[2:])
    assert validation.check_image_file(path) == 1


@pytest.mark.parametrize(
    ("label", "ignore_index", "expected"),
    [
        (np.uint8([[0, 1], [2, 255]]), 255, []),
        (np.uint8([[0, 1], [2, 255]]), -1, ["255 (1 pixels)"]),
        (np.uint8([[3, 3], [9, 0]]), 255, ["3 (2 pixels), 9 (1 pixels)"]),
        (np.int32([[0, 1], [-1, 300]]), 255, ["-1 (1 pixels), 300 (1 pixels)"]),
        (np.array([[True, False], [True, True]]), 255, []),
    ],
)
def test_label_values(label, ignore_index, expected):
    found = list(validation.label_faults(label, (2, 2), 3, ignore_index))
    assert [f.kind for f in found] == ["label-range"] * len(expected)
    assert all(e in f.message and "0 to 2" in f.message for e, f in zip(expected, found))


def test_label_of_other_size_or_with_channels():
    (size,) = validation.label_faults(np.zeros((4, 6), np.uint8), (2, 3), 3, 255)
    assert size == ("size", "image and label differ in size: 3x2 and 6x4 (width x height)")
    (channels,) = validation.label_faults(np.zeros((2, 3, 4), np.uint8), (2, 3), 3, 255)
    assert channels.kind == "label-channels" and "has 4 channels" in channels.message


def test_many_wrong_values_are_counted():
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (fault,) = validation.label_faults(label, (16, 16), 3, 255)
    assert "10 (1 pixels) and 244 more values; with num_classes 3" in fault.message


def test_list_names_the_line(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("a.png b.png\nmy street.png c.png\n\nd.png\n", encoding="utf-8")
    pairs, wrong = lists.read_list(path, "root")
    assert pairs == [("root/a.png", "root/b.png")]
    assert [f.message.split(" is ")[0] for f in wrong] == [
        f"line {n} of list {path}" for n in (2, 3, 4)
    ]
    pairs, wrong = lists.read_list(path, "root", labelled=False)
    assert pairs[-1] == ("root/d.png", None) and len(wrong) == 1
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"cannot read list .*train\.txt"):
        lists.read_list(path, "root")


def test_import_brings_no_paddle():
    code = (
        "import sys; from liteseg_plugin.datasets import check, split, validation;"
        "sys.exit(bool({'paddle', 'paddleseg'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("read", [validation.read_image, validation.read_label])
def test_git_lfs_pointer_is_named_as_what_it_is(tmp_path, read):
    path = tmp_path / "frame.png"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 600000\n")
    with pytest.raises(DataError, match=r"cannot read .*it is a Git LFS pointer, .*git lfs pull"):
        read(path)
