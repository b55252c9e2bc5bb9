"""What the checker finds is what training, evaluation and prediction say when they meet it."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

import liteseg_plugin
from liteseg_plugin.datasets import toy_street
from liteseg_plugin.datasets.check import check, from_folder
from liteseg_plugin.errors import DataError

liteseg_plugin.activate()

from paddleseg.datasets import Dataset  # noqa: E402
from paddleseg.transforms import Compose, Normalize  # noqa: E402


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


SPOILERS = {
    "jpeg cut short": lambda image, label: cut(image),
    "label cut short": lambda image, label: cut(label),
    "text as image": lambda image, label: image.write_text("text"),
    "text as label": lambda image, label: label.write_text("text"),
    "no image": lambda image, label: image.unlink(),
    "no label": lambda image, label: label.unlink(),
    "values": lambda image, label: cv2.imwrite(str(label), np.full((48, 64), 40, np.uint8)),
    "colours": lambda image, label: cv2.imwrite(str(label), np.zeros((48, 64, 3), np.uint8)),
    "size": lambda image, label: cv2.imwrite(str(label), np.zeros((9, 7), np.uint8)),
}


@pytest.mark.parametrize("mode", ["train", "val"])
@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_data_set_says_what_the_checker_says(street, spoil, mode):
    if mode == "val":
        shutil.copy(street / "train.txt", street / "val.txt")
        (street / "train.txt").unlink()
    spoil(street / "images/train_0000.jpg", street / "annot/train_0000.png")
    # Without train_path and val_path: the lists of the folder.
    dataset = Dataset(mode, str(street), [Normalize()], num_classes=11)
    with pytest.raises(DataError) as raised:
        dataset[0]
    assert len(dataset[1]["label"]) > 0
    (found,) = check(from_folder(street), progress=False)["errors"]
    assert str(raised.value) == found["message"]


def test_prediction_says_it_too(street):
    image = street / "images/train_0000.jpg"
    cut(image)
    with pytest.raises(DataError) as raised:
        Compose([Normalize()])({"img": str(image)})
    (found,) = check(from_folder(street), progress=False)["errors"]
    assert str(raised.value) == found["message"]


def test_broken_line_of_a_list(street):
    with (street / "train.txt").open("a") as listing:
        listing.write("images/my street.png annot/x.png\n")
    with pytest.raises(DataError) as raised:
        Dataset("train", str(street), [Normalize()], 11, train_path=str(street / "train.txt"))
    (found,) = check(from_folder(street), progress=False)["errors"]
    assert str(raised.value) == found["message"]


def test_empty_list(street):
    (street / "train.txt").write_text("")
    with pytest.raises(DataError) as raised:
        Dataset("train", str(street), [Normalize()], 11)
    (found,) = check(from_folder(street), progress=False)["errors"]
    assert str(raised.value) == found["message"]
