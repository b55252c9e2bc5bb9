from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.datasets.check import check, from_folder
from liteseg_plugin.datasets.check.conventions import (
    foreground_fault,
    grey_mask_fault,
    one_based_fault,
)
from liteseg_plugin.datasets.lists import Pair

TEMPLATE = Path(__file__).parents[2] / "configs/pp_liteseg/pp_liteseg_stdc1_custom.yml"
PAIRS = [Pair(f"mine/images/{name}.jpg", f"mine/masks/{name}.png") for name in "ab"]
COMMAND = "liteseg data relabel mine/masks mine/masks_relabelled --map"


@pytest.fixture
def labelled(tmp_path):
    """Return a function that makes a data set of three pairs, whose labels hold these values."""

    def make(*values):
        root = tmp_path / "mine"
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True)
        for number, split in enumerate(("train", "train", "val")):
            label = np.resize(values, (8, 12)).astype("uint16" if max(values) > 255 else "uint8")
            picture = np.full((8, 12, 3), 40 * number, np.uint8)
            cv2.imwrite(str(root / f"images/{number}.png"), picture)
            Image.fromarray(label).save(root / f"masks/{number}.png")
            with (root / f"{split}.txt").open("a") as listing:
                listing.write(f"images/{number}.png masks/{number}.png\n")
        return root

    return make


def report(root, **options):
    return check(from_folder(root, **options), progress=False)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"num_classes": 2}, "255 is ignored, so training sees the value 0 only"),
        ({}, "255 is ignored, so training sees the value 0 only"),
        ({"num_classes": 2, "ignore_index": 254}, "255 is not a class"),
    ],
)
def test_masks_of_0_and_255_are_one_finding(labelled, options, what):
    root = labelled(0, 255, 0)
    for number, value in ((0, 0), (1, 255)):  # masks without a foreground, and without the rest
        cv2.imwrite(str(root / f"masks/{number}.png"), np.full((8, 12), value, np.uint8))
    found = report(root, **options)
    (error,) = found.errors
    assert error.kind == "label-foreground" and found.warnings == []
    assert error.message == (
        f"the labels hold 0 and 255 only: {what}. If 255 is your foreground, convert it to class "
        "1, and set num_classes to 2: liteseg data relabel "
        f"{root}/masks {root}/masks_relabelled --map 255=1"
    )


def test_the_command_of_a_finding_mends_it(run, labelled):
    root = labelled(0, 255, 0)
    result = run("data", "check", root, "--num_classes", 2, "--json", check=False)
    (error,) = json.loads(result.stdout)["errors"]
    run(*error["message"].partition(": liteseg ")[2].split())
    with (root / "masks/0.png").open("rb") as file:
        np.testing.assert_array_equal(np.unique(np.asarray(Image.open(file))), [0, 255])
    run("data", "split", root, "--labels", "masks_relabelled", "--ratio", 0.5, 0.5, "--overwrite")
    checked = json.loads(run("data", "check", root, "--num_classes", 2, "--json").stdout)
    assert checked["ok"] and [c["share"] for c in checked["classes"]] == pytest.approx(
        [2 / 3, 1 / 3]
    )


def test_foreground_of_16_bits(labelled):
    found = report(labelled(0, 65535), num_classes=2)
    (error,) = found.errors
    assert "65535 is not a class" in error.message and error.message.endswith("--map 65535=1")
    assert {f.kind for f in found.warnings} == {"label-depth"}


@pytest.mark.parametrize("num_classes", [None, 2])
def test_masks_with_grey_values_are_one_finding_that_the_command_mends(run, labelled, num_classes):
    root = labelled(*[0] * 60, 3, 130, 254, *[255] * 33)
    known = () if num_classes is None else ("--num_classes", num_classes)
    result = json.loads(run("data", "check", root, *known, "--json", check=False).stdout)
    (error,) = result["errors"]
    assert error["kind"] == "label-foreground" and result["warnings"] == []
    assert error["message"].startswith("the labels hold 0, 255 and 3 grey values between, as JPEG")
    run(*error["message"].partition(": liteseg ")[2].split())
    label = np.asarray(Image.open(root / "masks_relabelled/0.png"))
    np.testing.assert_array_equal(np.bincount(label.ravel()), [61, 35])


@pytest.mark.parametrize(
    ("counts", "num_classes"),
    [
        ({0: 50, 7: 40, 255: 5}, None),  # classes, and ignored pixels
        ({0: 50, 90: 20, 140: 20, 255: 5}, None),  # many classes
        ({0: 50, 200: 1, 255: 5}, 201),
        ({7: 50, 200: 1, 255: 5}, None),
    ],
)
def test_other_labels_are_not_masks_with_grey_values(counts, num_classes):
    pixels = np.zeros(256, np.int64)
    pixels[[*counts]] = [*counts.values()]
    assert grey_mask_fault(pixels, PAIRS, num_classes) is None


def test_grey_masks_in_colour_become_one_channel(run, labelled):
    root = labelled(0, 255)
    for path in (root / "masks").iterdir():
        Image.open(path).convert("RGBA" if path.name == "0.png" else "RGB").save(path)
    found = report(root, num_classes=2)
    assert {f.kind for f in found.errors} == {"label-channels"}
    assert "of equal values; `liteseg data relabel` writes one channel" in found.errors[0].message
    run("data", "relabel", root / "masks", root / "classes", "--map", "255=1")
    for path in (root / "classes").iterdir():
        np.testing.assert_array_equal(np.unique(np.asarray(Image.open(path))), [0, 1])


def test_classes_that_no_label_holds_are_counted(labelled):
    text = report(labelled(0, 1, 99), num_classes=None).text()
    assert "    99 99 " in text and "    39 39 " in text and "    40 40 " not in text
    assert "   ... 59 more classes, which no label holds" in text


def test_command_leaves_images_beside_their_labels_alone():
    pairs = [Pair(f"mine/{name}.jpg", f"mine/{name}_mask.png") for name in "ab"]
    fault = foreground_fault({0, 255}, [*pairs, Pair("mine/test.jpg", None)], 2, 255)
    assert fault.message.endswith("relabel mine mine_relabelled --map 255=1 --label_suffix _mask")


@pytest.mark.parametrize("values", [{0}, {255}, {0, 1}, {0, 1, 255}, {1, 255}, {0, 128, 255}])
def test_other_labels_are_not_masks_of_0_and_255(values):
    assert foreground_fault(values, PAIRS, 2, 255) is None


@pytest.mark.parametrize(
    ("values", "num_classes", "certain", "words"),
    [
        ({1, 2, 3}, 3, True, ["hold 1 to 3, and never 0", f"{COMMAND} 1-3=0-2"]),
        ({1, 2, 3, 255}, None, False, ["hold 1 to 3, and never 0", f"{COMMAND} 1-3=0-2"]),
        ({1}, 1, True, [f"{COMMAND} 1=0"]),
        ({1, 2}, 3, False, [f"{COMMAND} 1-2=0-1"]),
        (
            {0, 2, 3, 255},
            3,
            True,
            [
                "hold 0 to 3, but num_classes 3 means 0 to 2",
                f"If 0 means unlabelled: {COMMAND} 0=255 1-3=0-2. ",
                f"If 3 does: {COMMAND} 3=255. ",
                "set num_classes to 4",
            ],
        ),
    ],
)
def test_classes_that_are_counted_from_1(values, num_classes, certain, words):
    fault, found = one_based_fault(values, PAIRS, num_classes, 255)
    assert fault.kind == "label-one-based" and found is certain
    for word in words:
        assert word in fault.message


@pytest.mark.parametrize(
    ("values", "num_classes", "ignore_index"),
    [({0, 1, 2}, 3, 255), ({3, 4}, 9, 255), ({255}, 3, 255), ({0, 9}, 3, 255), ({0, 1, 3}, 3, 0)],
)
def test_other_labels_are_not_counted_from_1(values, num_classes, ignore_index):
    assert one_based_fault(values, PAIRS, num_classes, ignore_index) is None


def test_finding_about_counting_takes_the_place_of_the_absent_class(labelled):
    found = report(labelled(1, 2), num_classes=3)
    assert found.ok and [f.kind for f in found.warnings] == ["label-one-based"]


def test_contradicting_numbers_of_classes_are_an_error(run, labelled, tmp_path, recwarn):
    root = labelled(0, 1)
    (root / "labels.txt").write_text("ground\nroad\n")
    (error,) = report(root, num_classes=3).errors
    assert error.kind == "num-classes"
    assert error.message == (
        f"num_classes is 3 (--num_classes), but {root}/labels.txt names 2 classes; correct one of "
        "them"
    )
    assert report(root).ok and not recwarn.list
    result = run("data", "check", "--config", config(root, tmp_path), check=False)
    assert result.returncode == 1
    assert f"num_classes is 11 ({tmp_path}/mine.yml), but {root}/labels.txt" in result.stdout


def config(root, folder):
    text = TEMPLATE.read_text(encoding="utf-8").replace("data/custom", str(root))
    path = folder / "mine.yml"
    path.write_text(text.replace("../_base_", f"{TEMPLATE.parents[1]}/_base_"), encoding="utf-8")
    return path


def test_crop_that_is_larger_than_the_images(run, labelled, tmp_path):
    root = labelled(*range(11))
    path = config(root, tmp_path)
    result = json.loads(run("data", "check", "--config", path, "--json").stdout)
    (found,) = [f for f in result["warnings"] if f["kind"] == "crop-padding"]
    assert found["message"] == (
        "crop_size [512, 512] is larger than the images (most are 12x8): at scale 1, 100% of the "
        "pixels of training crops are padding; crop_size: [12, 8] fits"
    )
    for size, padding in (([12, 8], None), ([16, 8], "25%"), ([8, 10], "20%")):
        path.write_text(re.sub(r"crop_size: \[.*\]", f"crop_size: {size}", path.read_text()))
        text = run("data", "check", "--config", path).stdout
        assert (f"{padding} of the pixels of training crops" in text) is (padding is not None)
        assert ("crop-padding" in text) is (padding is not None)


def test_original_labels_of_a_finding_are_where_the_lists_say(labelled):
    root = labelled(0, 255)
    shutil.move(root / "masks", root / "my masks")
    listing = (root / "train.txt").read_text().replace(" ", ",").replace("masks", "my masks")
    (root / "train.txt").write_text(listing)
    (root / "val.txt").unlink()
    (error,) = report(root, separator=",").errors
    assert f"relabel '{root}/my masks' '{root}/my masks_relabelled' --map" in error.message
