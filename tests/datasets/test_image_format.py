"""Images of any number of channels, and of 16 bits: read, checked, transformed, configured."""

from __future__ import annotations

import struct
import sys

import cv2
import numpy as np
import pytest
from paddleseg import datasets, transforms
from PIL import Image

from liteseg_plugin.datasets import check, configuring, image_compose
from liteseg_plugin.datasets.image_format import ImageFormat
from liteseg_plugin.datasets.loading import Dataset
from liteseg_plugin.errors import ConfigError, DataError
from liteseg_plugin.integration.config import ConfigBuilder, load

FOUR = ImageFormat(4, 65535)


def noise(channels, dtype="uint16", hw=(24, 32), most=None):
    most = most or np.iinfo(dtype).max
    shape = hw if channels == 1 else (*hw, channels)
    return np.random.default_rng(channels).integers(0, most + 1, shape).astype(dtype)


def write(path, image):
    """Write (H, W) or (H, W, C) in this order of channels."""
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(image.shape[2] if image.ndim == 3 else 1)
    assert cv2.imwrite(str(path), image if order is None else image[..., order])
    return path


def as_bands(path):
    """Let a TIFF say that its channels are no colours, as GDAL writes them."""
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<HHI", 262, 3, 1))
    content[place + 8 : place + 10] = struct.pack("<H", 1)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint16"), (3, "uint16"), (4, "uint16")])
def test_read_gives_the_stored_values(tmp_path, suffix, channels, dtype):
    image = noise(channels, dtype)
    read = ImageFormat(channels, 65535).read(write(tmp_path / f"a{suffix}", image))
    np.testing.assert_array_equal(read, image[..., ::-1] if channels == 3 else image)


def test_read_gives_grey_with_a_second_channel(tmp_path):
    image = noise(2, "uint8")
    Image.fromarray(image, "LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(ImageFormat(2).read(tmp_path / "a.png"), image)


def test_bands_that_opencv_reads_as_others_need_tifffile(tmp_path, monkeypatch):
    path = as_bands(write(tmp_path / "a.tif", noise(4)))
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).ndim == 2  # what must not happen
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=r"a\.tif: .*pip install 'liteseg_plugin\[tiff\]'"):
        FOUR.read(path)


@pytest.mark.parametrize(("channels", "dtype"), [(2, "uint8"), (4, "uint8"), (6, "uint16")])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_read_gives_any_bands_of_a_tiff(tmp_path, channels, dtype, planes):
    tifffile = pytest.importorskip("tifffile", reason="the extra `tiff` is not installed")
    image = noise(channels, dtype)
    stored = image if planes == "contig" else np.ascontiguousarray(image.transpose(2, 0, 1))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=planes)
    image_format = ImageFormat(channels, np.iinfo(dtype).max)
    np.testing.assert_array_equal(image_format.read(path), image)


def _float(path):
    cv2.imwrite(str(path), np.float32(noise(1)))


def _palette(path):
    image = Image.fromarray(noise(1, "uint8") % 5)
    image.putpalette(bytes(range(15)))
    image.save(path, format="PNG", transparency=0)


@pytest.mark.parametrize(
    ("make", "image_format", "message"),
    [
        (lambda p: write(p, noise(3, "uint8")), FOUR, "3 channels of 8-bit integers; 4 channels"),
        (lambda p: write(p, noise(4, "uint8")), FOUR, "4 channels of 8-bit .*16 bits"),
        (lambda p: write(p, noise(4)), ImageFormat(4), "4 channels of 16-bit .* 8 bits are exp"),
        (lambda p: write(p, noise(1)), ImageFormat(1), "1 channel of 16-bit .* 8 bits are exp"),
        (lambda p: write(p, noise(4)), ImageFormat(4, 4095), "up to 6.*; the model .* 4095"),
        (_float, FOUR, "32-bit floats; only unsigned integers"),
        (_float, ImageFormat(), "32-bit floats; only unsigned integers"),
        (_palette, ImageFormat(4), "a palette; 4 channels of 8 bits are expected"),
    ],
)
def test_read_refuses_other_images(tmp_path, make, image_format, message):
    path = tmp_path / ("a.tif" if make is _float else "a.png")
    make(path)
    with pytest.raises(DataError, match=rf"{path}.*{message}"):
        image_format.read(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0,), "img_channels must be"),
        ((3, 254), "max_value must be 255"),
        ((4, 255, (0, 1, 4)), r"shown_bands .* from 0 to 3, got \[0, 1, 4\]"),
    ],
)
def test_format_rejects_values(values, message):
    with pytest.raises(ConfigError, match=message):
        ImageFormat(*values)


def test_shown_takes_the_bands_and_stretches_16_bits():
    image = noise(4, "uint8")
    shown = ImageFormat(4, shown_bands=(3, 0, 1)).shown(image)
    np.testing.assert_array_equal(shown, image[..., [1, 0, 3]])  # BGR
    grey = np.array([[0, 1000, 2000, 4095]], "uint16")
    shown = ImageFormat(1, 4095).shown(grey, mean=[1000 / 4095], std=[500 / 4095])
    np.testing.assert_array_equal(shown[0, :, 0], [0, 128, 255, 255])
    assert (shown == shown[..., :1]).all()


# --- data sets


@pytest.fixture
def data_set(tmp_path):
    """Return a function that writes 4 images of a kind with labels and lists."""

    def make(channels, dtype, most=None, suffix=".png"):
        lines = []
        for number in range(4):
            image = noise(channels, dtype, most=most)
            np.flipud(image)[number] = 0
            if channels > 4:
                tifffile = pytest.importorskip("tifffile", reason="the extra `tiff` is missing")
                kind = {"photometric": "minisblack", "planarconfig": "contig"}
                tifffile.imwrite(tmp_path / f"{number}.tif", image, **kind)
            else:
                write(tmp_path / f"{number}{suffix}", image)
            cv2.imwrite(str(tmp_path / f"l{number}.png"), noise(1, "uint8", most=2))
            lines.append(f"{number}{'.tif' if channels > 4 else suffix} l{number}.png\n")
        (tmp_path / "train.txt").write_text("".join(lines[:3]))
        (tmp_path / "val.txt").write_text(lines[3])
        return tmp_path

    return make


def built(folder, cls=Dataset, distort=False, **changes):
    channels = changes.get("img_channels", 3)
    operations = [
        transforms.ResizeStepScaling(0.5, 1.5, 0.25),
        transforms.RandomPaddingCrop([24, 40]),
        transforms.RandomHorizontalFlip(),
        *([transforms.RandomDistort(hue_prob=0)] if distort else []),
        transforms.Normalize([0.4] * channels, [0.2 + 0.01 * n for n in range(channels)]),
    ]
    given = {"mode": "train", "dataset_root": str(folder), "num_classes": 3, **changes}
    if cls is datasets.Dataset:
        given["train_path"] = str(folder / "train.txt")
    return cls(transforms=operations, **given)


def drawn(dataset, seed):
    import random

    np.random.seed(seed)
    random.seed(seed)
    return [dataset[number] for number in range(len(dataset))]


def test_grey_samples_are_paddlesegs(data_set):
    folder = data_set(1, "uint8")
    ours, theirs = (
        built(folder, cls, distort=True, img_channels=1) for cls in (Dataset, datasets.Dataset)
    )
    for seed in range(3):
        for sample, expected in zip(drawn(ours, seed), drawn(theirs, seed)):
            assert sample["img"].shape == (1, 40, 24)
            np.testing.assert_array_equal(sample["img"], expected["img"])
            np.testing.assert_array_equal(sample["label"], expected["label"])


@pytest.mark.parametrize(
    ("channels", "dtype", "max_value"),
    [
        (1, "uint8", 255),
        (1, "uint16", 4095),
        (4, "uint8", 255),
        (4, "uint16", 65535),
        (6, "uint16", 65535),
    ],
)
def test_fast_loading_and_the_cache_give_the_same_samples(data_set, channels, dtype, max_value):
    folder = data_set(channels, dtype, most=max_value)
    keys = {"img_channels": channels, "max_value": max_value}
    slow = built(folder, **keys)
    fast = built(folder, **keys, cache_gb=0.1, cache_dir=str(folder / "cache"))
    for seed in (0, 0, 1):  # the second time from the cache
        for sample, expected in zip(drawn(fast, seed), drawn(slow, seed)):
            assert sample["img"].shape == (channels, 40, 24)
            assert sample["img"].dtype == expected["img"].dtype == np.float32
            # Values of 0 to 255; OpenCV may round differently in a part of an image.
            np.testing.assert_allclose(sample["img"], expected["img"], atol=1e-4)
            np.testing.assert_array_equal(sample["label"], expected["label"])


def test_a_value_of_16_bits_becomes_its_share_of_max_value(data_set):
    folder = data_set(4, "uint16", most=4095)
    normalize = transforms.Normalize([0.0], [1.0])
    keys = {"dataset_root": str(folder), "num_classes": 3, "img_channels": 4, "max_value": 4095}
    sample = Dataset("val", transforms=[normalize], **keys)[0]
    stored = cv2.imread(str(folder / "3.png"), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]]
    np.testing.assert_allclose(sample["img"], stored.transpose(2, 0, 1) / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("operation", "image_format", "message"),
    [
        (transforms.RandomDistort(), FOUR, "RandomDistort changes the colours of 8-bit grey or"),
        (transforms.Normalize([0.5] * 3, [0.5] * 3), FOUR, "3 values for images of 4 channels"),
        (transforms.Padding((9, 9)), ImageFormat(5), "Padding fills images of up to 4 channels"),
    ],
)
def test_compose_refuses_transforms_of_other_images(operation, image_format, message):
    with pytest.raises(ConfigError, match=message):
        image_compose.compose([operation], image_format)


# --- check and config


def test_check_measures_the_channels(data_set):
    folder = data_set(4, "uint16", most=4000)
    report = check.check(check.from_folder(folder, num_classes=3), samples=0, progress=False)
    assert report.ok
    assert report.image_format == ImageFormat(4, 4095)
    pictures = [cv2.imread(str(folder / f"{n}.png"), cv2.IMREAD_UNCHANGED) for n in range(3)]
    values = np.stack(pictures)[..., [2, 1, 0, 3]].reshape(-1, 4) / 4095
    np.testing.assert_allclose([c.mean for c in report.channels], values.mean(0), atol=1e-4)
    np.testing.assert_allclose([c.std for c in report.channels], values.std(0), atol=1e-4)
    assert "images: 4 channels of 16 bits (max_value 4095)" in report.text()


def test_check_names_images_of_other_channels(data_set):
    folder = data_set(4, "uint16")
    write(folder / "1.png", noise(3, "uint8"))
    report = check.check(check.from_folder(folder, num_classes=3), samples=0, progress=False)
    [error] = report.errors
    assert error.kind == "image-format"
    assert error.image == str(folder / "1.png")
    assert "3 channels of 8-bit integers; 4 channels of 16 bits" in error.message


def test_check_warns_of_grey_among_colours(data_set):
    folder = data_set(3, "uint8")
    write(folder / "1.png", noise(1, "uint8"))
    report = check.check(check.from_folder(folder, num_classes=3), samples=0, progress=False)
    assert report.image_format.is_rgb
    [warning] = [finding for finding in report.warnings if finding.kind == "image-format"]
    assert "1 channel of 8-bit integers, most images have 3 channels" in warning.message
    assert warning.image == str(folder / "1.png")


def test_check_takes_a_constant_fourth_channel_for_transparency(data_set):
    folder = data_set(3, "uint8")
    for number in range(4):
        picture = cv2.imread(str(folder / f"{number}.png"))
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA))
    report = check.check(check.from_folder(folder, num_classes=3), samples=0, progress=False)
    assert report.image_format.is_rgb
    assert not report.warnings


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (4, "uint16")])
def test_config_of_the_channels_builds(data_set, tmp_path, channels, dtype):
    folder = data_set(channels, dtype)
    data = check.from_folder(folder, num_classes=3)
    plan = configuring.plan(check.check(data, samples=0, progress=False), data, crop_wh=(16, 16))
    path = tmp_path / "mine.yml"
    path.write_text(plan.text(), encoding="utf-8")
    builder = ConfigBuilder(load(str(path)))
    sample = builder.train_dataset[0]
    assert sample["img"].shape == (channels, 16, 16)
    assert abs(float(sample["img"].mean())) < 1  # normalised by what was measured
    first = builder.model.backbone.features[0].conv
    assert first.weight.shape[1] == channels
    distorts = "RandomDistort" in [
        t["type"] for t in builder.config.train_dataset_cfg["transforms"]
    ]
    assert distorts == (channels == 1)


def test_config_of_contradicting_channels_is_refused(data_set, tmp_path):
    folder = data_set(4, "uint16")
    data = check.from_folder(folder, num_classes=3)
    plan = configuring.plan(check.check(data, samples=0, progress=False), data)
    path = tmp_path / "mine.yml"
    text = plan.text()
    head, tail = text.split("val_dataset:")
    for changed, message in (
        (
            text.replace("  img_channels: 4\n", ""),
            "train_dataset has .* 3 channels .*but 4 channels",
        ),
        (
            f"{head}val_dataset:{tail.replace('  max_value: 65535', '  max_value: 255')}",
            "val_dataset has images of 4 channels of 8 bits, but 4 channels of 16 bits",
        ),
    ):
        path.write_text(changed, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            load(str(path))
