"""What the checker finds is what training, evaluation and prediction say when they meet it."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from paddleseg import datasets
from paddleseg.transforms import Compose, Normalize, RandomPaddingCrop
from PIL import Image

import liteseg_plugin
from liteseg_plugin.datasets import toy_street
from liteseg_plugin.datasets.check import check, from_folder
from liteseg_plugin.datasets.loading import Dataset
from liteseg_plugin.errors import ConfigError, DataError


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """Make the replacements that PaddleSeg's unmodified scripts get."""
    liteseg_plugin.activate()


@pytest.fixture
def street(tmp_path):
    """Return a data set whose first training image is a JPEG."""
    root = tmp_path / "street"
    toy_street.generate(root, train=2, val=1, test=0, resolution_wh=(64, 48), progress=False)
    image = cv2.imread(str(root / "images/train_0000.png"))
    cv2.imwrite(str(root / "images/train_0000.jpg"), image)
    (root / "images/train_0000.png").unlink()
    lines = (root / "train.txt").read_text().replace("train_0000.png", "train_0000.jpg", 1)
    (root / "train.txt").write_text(lines)
    return root


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turned(image):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(image).save(image, exif=exif)


SPOILERS = {
    "turned": lambda image, label: turned(image),
    "16-bit values": lambda image, label: cv2.imwrite(str(label), np.full((48, 64), 1000, "u2")),
    "jpeg truncated": lambda image, label: cut(image),
    "label truncated": lambda image, label: cut(label),
    "text as image": lambda image, label: image.write_text("text"),
    "text as label": lambda image, label: label.write_text("text"),
    "no image": lambda image, label: image.unlink(),
    "no label": lambda image, label: label.unlink(),
    "values": lambda image, label: cv2.imwrite(str(label), np.full((48, 64), 40, np.uint8)),
    "colours": lambda image, label: cv2.imwrite(str(label), np.zeros((48, 64, 3), np.uint8)),
    "size": lambda image, label: cv2.imwrite(str(label), np.zeros((9, 7), np.uint8)),
}


class OfPaddleSeg(datasets.Dataset):
    """One of PaddleSeg's own, such as OpticDiscSeg: it finds its files by itself."""

    def __init__(self, mode, dataset_root, transforms, num_classes):
        listing = {f"{mode}_path": f"{dataset_root}/{mode}.txt"}
        super().__init__(mode, dataset_root, transforms, num_classes, **listing)


@pytest.mark.parametrize("kind", [Dataset, OfPaddleSeg])
@pytest.mark.parametrize("mode", ["train", "val"])
@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_data_set_says_what_the_checker_says(street, spoil, mode, kind):
    if mode == "val":
        shutil.copy(street / "train.txt", street / "val.txt")
        (street / "train.txt").unlink()
    spoil(street / "images/train_0000.jpg", street / "annot/train_0000.png")
    # Without train_path and val_path: the lists of the folder.
    dataset = kind(mode, str(street), [Normalize()], num_classes=11)
    with pytest.raises(DataError) as raised:
        dataset[0]
    assert len(dataset[1]["label"]) > 0
    (found,) = check(from_folder(street), progress=False).errors
    assert str(raised.value) == found.message
    assert [type(operation) for operation in dataset.transforms.transforms] == [Normalize]


def test_prediction_says_it_too(street):
    image = street / "images/train_0000.jpg"
    cut(image)
    with pytest.raises(DataError) as raised:
        Compose([Normalize()])({"img": str(image)})
    (found,) = check(from_folder(street), progress=False).errors
    assert str(raised.value) == found.message


def test_broken_line_of_a_list(street):
    with (street / "train.txt").open("a") as listing:
        listing.write("images/my street.png annot/x.png\n")
    with pytest.raises(DataError) as raised:
        Dataset("train", str(street), [Normalize()], 11, train_path=str(street / "train.txt"))
    (found,) = check(from_folder(street), progress=False).errors
    assert str(raised.value) == found.message


def test_empty_list(street):
    (street / "train.txt").write_text("")
    with pytest.raises(DataError) as raised:
        Dataset("train", str(street), [Normalize()], 11)
    (found,) = check(from_folder(street), progress=False).errors
    assert str(raised.value) == found.message


@pytest.mark.parametrize(
    ("ignore_index", "way_out"),
    [
        (254, "the ignore_index 254; write label_padding_value: 254 under RandomPaddingCrop"),
        (-1, "the ignore_index -1; labels are 8-bit, so choose an ignore_index from 11 to 255"),
    ],
)
def test_padding_that_no_label_may_have(street, ignore_index, way_out):
    def build(mode, **padding):
        crop = RandomPaddingCrop((96, 96), **padding)
        return Dataset(mode, str(street), [crop], 11, ignore_index=ignore_index)

    for label in (street / "annot").glob("train_*"):
        cv2.imwrite(str(label), np.ones((48, 64), np.uint8))
    with pytest.raises(ConfigError, match=way_out):
        build("train")
    build("val")  # whose labels no transform touches
    assert (build("train", label_padding_value=0)[0]["label"][48:] == 0).all()
    if ignore_index == 254:
        assert (build("train", label_padding_value=254)[0]["label"][48:] == 254).all()
    else:
        with pytest.raises(ConfigError, match="label_padding_value -1, which is neither"):
            build("train", label_padding_value=-1)
