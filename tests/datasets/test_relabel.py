from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.datasets.relabel import read_map, relabel
from liteseg_plugin.errors import DataError

LABEL = np.array([[0, 1, 2], [3, 255, 255]], np.uint8)


@pytest.fixture
def labels(tmp_path):
    folder = tmp_path / "labels"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(LABEL).save(folder / "a.png")
    indexed = Image.fromarray(LABEL)
    indexed.putpalette(list(range(255, -1, -1)) * 3)
    indexed.save(folder / "sub" / "b.png")
    Image.fromarray(LABEL.astype("uint16") * 257).save(folder / "c.tif")
    return folder


def test_relabel_changes_values_and_nothing_else(run, labels, tmp_path):
    before = {path: path.read_bytes() for path in labels.rglob("*.*")}
    dest = tmp_path / "new" / "dest"
    command = ("data", "relabel", labels, dest, "--map", "0=255", "1-3=0-2", "65535=7", "257-771=9")
    result = run(*command, "--json")
    made = json.loads(result.stdout)
    assert f"liteseg data split {dest.parent} --labels dest --overwrite" in result.stderr
    expected = np.array([[255, 0, 1], [2, 255, 255]])
    for name in ("a.png", "sub/b.png"):
        image = Image.open(dest / name)
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), expected)
    np.testing.assert_array_equal(np.asarray(Image.open(dest / "c.png")), [[255, 9, 9], [9, 7, 7]])
    assert made["labels"] == 3 and made["folder"] == str(dest)
    assert made["pixels"] == {"0": 2, "1": 2, "2": 2, "7": 2, "9": 3, "255": 7}
    assert {path: path.read_bytes() for path in labels.rglob("*.*")} == before
    assert [path.name for path in dest.parent.iterdir()] == ["dest"]  # no scratch files


def test_labels_beside_their_images_are_found_by_the_suffix(labels, tmp_path):
    (labels / "c.tif").unlink()
    Image.fromarray(np.dstack([LABEL, LABEL, LABEL + 1])).save(labels / "photo.png")
    Image.fromarray(LABEL).save(labels / "photo_mask.png")
    with pytest.raises(DataError, match=r"photo\.png has 3 channels.* --label_suffix"):
        relabel(labels, tmp_path / "dest", {0: 1})
    assert not (tmp_path / "dest").exists()
    relabel(labels, tmp_path / "dest", {0: 1}, label_suffix="_mask")
    assert [path.name for path in (tmp_path / "dest").iterdir()] == ["photo_mask.png"]


def test_nothing_is_overwritten(labels, tmp_path):
    for dest in (labels, labels / "sub"):
        with pytest.raises(DataError, match="already exists; choose another folder"):
            relabel(labels, dest, {0: 1})
    with pytest.raises(DataError, match="is inside of"):
        relabel(labels, labels / "new", {0: 1})
    with pytest.raises(DataError, match="folder not found"):
        relabel(tmp_path / "gone", tmp_path / "dest", {0: 1})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no labels in .*empty"):
        relabel(tmp_path / "empty", tmp_path / "dest", {0: 1})
    Image.fromarray(LABEL).save(labels / "a.bmp")
    with pytest.raises(DataError, match=r"a\.bmp and .*a\.png would both become a\.png"):
        relabel(labels, tmp_path / "dest", {0: 1})


def test_values_that_do_not_fit_are_errors(labels, tmp_path):
    with pytest.raises(DataError, match=r"c\.tif holds 257, and labels are 8-bit"):
        relabel(labels, tmp_path / "dest", {0: 1})
    (labels / "c.tif").unlink()
    with pytest.raises(DataError, match=r"no label in .* --map; they hold 0, 1, 2, 3, 255"):
        relabel(labels, tmp_path / "dest", {25: 1})
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("255", "give OLD=NEW"),
        ("a=1", "give OLD=NEW"),
        ("1--1", "give OLD=NEW"),
        ("1-3=0-1", "same number of values"),
        ("3-1=0", "same number of values"),
        ("1=256", "new ones 0 to 255"),
        ("65536=0", "old values are 0 to 65535"),
        ("0-3=2", "1 is in another entry"),
    ],
)
def test_map_that_cannot_be_read(entry, message):
    with pytest.raises(ValueError, match=message):
        read_map(["1=0", entry][:2] if "another" in message else [entry])
