from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.datasets import cityscapes
from liteseg_plugin.errors import DataError

FRAMES = {
    "train": ["aachen_000000_000019", "bochum_000000_000313"],
    "val": ["frankfurt_000000_000294"],
    "test": ["berlin_000000_000019"],
}


def paths(root, split, name):
    city = name.split("_")[0]
    image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    return image, root / "gtFine" / split / city / f"{name}_gtFine_"


def suffixed(stem, suffix):
    return stem.with_name(stem.name + suffix)


@pytest.fixture
def tree(tmp_path):
    """Return a small Cityscapes with labelIds of every id; the test image has no label."""
    root = tmp_path / "cityscapes"
    ids = np.arange(48, dtype=np.uint8).reshape(6, 8) % 34
    for split, names in FRAMES.items():
        for name in names:
            image, stem = paths(root, split, name)
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(image)
            if split != "test":
                stem.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(ids).save(suffixed(stem, "labelIds.png"))
    return root


def test_records_are_whole():
    assert len(cityscapes.LABELS) == 35
    assert [label.id for label in cityscapes.LABELS] == [*range(34), -1]
    assert [c.train_id for c in cityscapes.CLASSES] == list(range(19))
    assert cityscapes.CLASS_NAMES[0] == "road" and cityscapes.CLASS_NAMES[18] == "bicycle"


def test_train_ids_by_hand():
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert cityscapes.train_ids(np.uint8([ids])).tolist() == [list(range(19))]
    void = np.uint8([[*range(7), 9, 10, 14, 15, 16, 18, 29, 30]])
    assert (cityscapes.train_ids(void) == 255).all()
    with pytest.raises(DataError, match=r"not labels of Cityscapes: 77 \(2 pixels\)"):
        cityscapes.train_ids(np.uint8([[77, 77, 7]]))
    with pytest.raises(DataError, match="one channel"):
        cityscapes.train_ids(np.zeros((2, 2, 3), np.uint8))


def test_labels_and_lists(run, tree):
    made = json.loads(run("data", "cityscapes", tree, "--json").stdout)
    assert (made["train"], made["val"], made["test"]) == (2, 1, 1)
    assert (made["made"], made["kept"]) == (3, 0)
    first = "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png "
    first += "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png"
    lines = {name: (tree / f"{name}.list").read_text().splitlines() for name in (
        "train", "val", "trainval", "test", "infer"
    )}  # fmt: skip
    assert lines["train"][0] == first and len(lines["train"]) == 2
    assert lines["trainval"] == lines["train"] + lines["val"]
    assert lines["test"] == lines["infer"]
    assert lines["infer"] == ["leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"]
    for line in lines["trainval"]:
        label = np.asarray(Image.open(tree / line.split()[1]))
        ids = np.asarray(Image.open(tree / line.split()[1].replace("TrainIds", "Ids")))
        np.testing.assert_array_equal(label, cityscapes.train_ids(ids))


def test_what_is_there_is_kept_and_the_rest_goes_on(tree):
    cityscapes.prepare(tree, progress=False)
    _, stem = paths(tree, "train", FRAMES["train"][0])
    mine = np.full((6, 8), 3, np.uint8)
    Image.fromarray(mine).save(suffixed(stem, "labelTrainIds.png"))
    suffixed(paths(tree, "val", FRAMES["val"][0])[1], "labelTrainIds.png").unlink()
    made = cityscapes.prepare(tree, progress=False)
    assert (made.made, made.kept) == (1, 2)
    assert (np.asarray(Image.open(suffixed(stem, "labelTrainIds.png"))) == 3).all()
    assert cityscapes.prepare(tree, overwrite=True, progress=False).made == 3
    assert (np.asarray(Image.open(suffixed(stem, "labelTrainIds.png"))) != 3).any()


def test_polygons_stand_in_for_absent_ids(tree):
    _, stem = paths(tree, "train", FRAMES["train"][0])
    suffixed(stem, "labelIds.png").unlink()
    square = [[0, 0], [7, 0], [7, 2], [0, 2]]
    objects = [
        {"label": "road", "polygon": square},
        {"label": "cargroup", "polygon": [[2, 0], [5, 0], [5, 1], [2, 1]]},
        {"label": "license plate", "polygon": [[3, 0], [4, 0], [4, 1], [3, 1]]},
        {"label": "sky", "polygon": square, "deleted": 1},
    ]
    annotation = {"imgHeight": 6, "imgWidth": 8, "objects": objects}
    suffixed(stem, "polygons.json").write_text(json.dumps(annotation))
    cityscapes.prepare(tree, progress=False)
    expected = np.full((6, 8), 255, np.uint8)
    expected[:3] = 0
    expected[:2, 2:6] = 13
    label = np.asarray(Image.open(suffixed(stem, "labelTrainIds.png")))
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "polygons.json: "),
        ("[]", "not an annotation of Cityscapes"),
        ('{"imgWidth": 100000, "imgHeight": 100000, "objects": []}', "100000 x 100000 pixels"),
        (
            '{"imgWidth": 4, "imgHeight": 4, "objects": [{"label": "ufo", "polygon": []}]}',
            "'ufo' is not a label",
        ),
    ],
)
def test_broken_polygons_name_the_file(tree, content, message):
    _, stem = paths(tree, "train", FRAMES["train"][0])
    suffixed(stem, "labelIds.png").unlink()
    suffixed(stem, "polygons.json").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        cityscapes.prepare(tree, progress=False)
    assert f"{stem.name}polygons.json" in str(error.value)
    assert not suffixed(stem, "labelTrainIds.png").exists()


def test_broken_ids_name_the_file_once(tree):
    _, stem = paths(tree, "val", FRAMES["val"][0])
    path = suffixed(stem, "labelIds.png")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot read label") as error:
        cityscapes.prepare(tree, progress=False)
    assert str(error.value).count(str(path)) == 1


def test_trees_that_are_none(tree, tmp_path):
    with pytest.raises(DataError, match="holds leftImg8bit and gtFine"):
        cityscapes.prepare(tmp_path)
    suffixed(paths(tree, "val", FRAMES["val"][0])[1], "labelIds.png").unlink()
    with pytest.raises(DataError, match=r"1 images without a label; the first: .*frankfurt"):
        cityscapes.prepare(tree)


def test_data_set_refuses_pairs_that_are_none(tree):
    from paddleseg.transforms import Normalize

    from liteseg_plugin.datasets.loading import Cityscapes

    cityscapes.prepare(tree, progress=False)
    assert len(Cityscapes([Normalize()], str(tree), mode="train")) == 2
    _, stem = paths(tree, "train", FRAMES["train"][0])
    suffixed(stem, "labelTrainIds.png").unlink()
    # PaddleSeg alone would give the first image the label of the second.
    with pytest.raises(DataError, match=r"1 of 2 train images .*aachen.*liteseg data cityscapes"):
        Cityscapes([Normalize()], str(tree), mode="train")
    paths(tree, "train", FRAMES["train"][0])[0].unlink()
    paths(tree, "train", FRAMES["train"][1])[0].unlink()
    with pytest.raises(DataError, match=r"1 train labels .* have no image"):
        Cityscapes([Normalize()], str(tree), mode="train")
