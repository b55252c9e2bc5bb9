from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.datasets import camvid, camvid_conversion
from liteseg_plugin.errors import DataError
from liteseg_plugin.system import files

SHARED = Path(__file__).parents[3] / "shared"
needs_frames = pytest.mark.skipif(
    not (SHARED / "camvid_raw").is_dir(),
    reason="the CamVid frames lie beside a checkout for development only (research licence)",
)
TRAIN, VAL, TEST = "0001TP_006690", "0016E5_07959", "Seq05VD_f05100"


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(pixels)).save(path)
    return path


def colors(size_hw=(36, 48)):
    """Return a label picture that holds every colour, RGB, and the indices it stands for."""
    table = [entry.color_rgb for entry in camvid.LABEL_COLORS]
    places = np.arange(size_hw[0] * size_hw[1]).reshape(size_hw) % len(table)
    index = {name: i for i, name in enumerate(camvid.CLASS_NAMES)}
    becomes = [index.get(entry.becomes, 255) for entry in camvid.LABEL_COLORS]
    return np.uint8(table)[places], np.uint8(becomes)[places]


@pytest.fixture
def original(tmp_path):
    """Return a source like the original distribution, frames and labels in two folders."""
    rng = np.random.default_rng(0)
    for name in (TRAIN, VAL, TEST):
        save(tmp_path / f"raw/frames/{name}.png", rng.integers(0, 256, (36, 48, 3)))
        save(tmp_path / f"raw/labels/{name}_L.png", colors()[0])
    return tmp_path / "raw"


def test_records_are_whole():
    originals = camvid.LABEL_COLORS[:32]
    assert len({c.color_rgb for c in camvid.LABEL_COLORS}) == len(camvid.LABEL_COLORS) == 34
    assert {c.becomes for c in originals} == {*camvid.CLASS_NAMES, None}
    named = {c.becomes: c.color_rgb for c in originals if c.becomes}
    # The first colour of a class is that of the class itself.
    for entry in reversed(originals):
        named[entry.becomes] = entry.color_rgb
    assert all(named[c.name] == c.color_rgb for c in camvid.CLASSES)
    split = camvid.published_split()
    assert Counter(split.values()) == {"train": 367, "val": 101, "test": 233}
    assert sum(len(list(frames.names())) for frames in camvid.SPLIT) == len(split) == 701


@needs_frames
def test_split_is_that_of_the_real_lists():
    split = camvid.published_split()
    for name in ("train", "val"):
        lines = (SHARED / "camvid" / f"{name}.txt").read_text().splitlines()
        listed = [Path(line.split()[0]).stem for line in lines]
        assert listed == sorted(n for n, s in split.items() if s == name)


@needs_frames
def test_real_labels_become_those_of_the_segnet_edition(tmp_path):
    made = camvid_conversion.convert(SHARED / "camvid_raw", tmp_path / "camvid", progress=False)
    assert (made.train, made.val, made.test) == (2, 1, 0)
    lines = [*(tmp_path / "camvid/train.txt").open(), *(tmp_path / "camvid/val.txt").open()]
    for line in lines:
        image, label = (tmp_path / "camvid" / name for name in line.split())
        assert image.read_bytes() == (SHARED / "camvid_raw" / image.name).read_bytes()
        label = np.asarray(Image.open(label))
        assert label.shape == (720, 960)
        halved = np.asarray(Image.open(SHARED / "camvid" / "annot" / f"{image.stem}.png"))
        blocks = label.reshape(360, 2, 480, 2).transpose(0, 2, 1, 3).reshape(360, 480, 4)
        # Whichever of the four pixels was kept, it has the class that the table gives it.
        assert (blocks == halved[..., None]).any(axis=-1).all()


def test_original_distribution(run, original, tmp_path):
    result = run("data", "camvid", original, tmp_path / "out", "--json")
    report = json.loads(result.stdout)
    assert (report["train"], report["val"], report["test"]) == (1, 1, 1)
    assert report["published"] == {"train": 367, "val": 101, "test": 233}
    root = tmp_path / "out"
    for split, name in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        assert (root / f"{split}.txt").read_text() == f"images/{name}.png annot/{name}.png\n"
        image = np.asarray(Image.open(root / f"images/{name}.png"))
        np.testing.assert_array_equal(
            image, np.asarray(Image.open(original / f"frames/{name}.png"))
        )
        label = Image.open(root / f"annot/{name}.png")
        assert label.mode == "L"
        np.testing.assert_array_equal(np.asarray(label), colors()[1])
    assert (root / "labels.txt").read_text().split() == list(camvid.CLASS_NAMES)
    assert not list(root.rglob(".*"))


@pytest.mark.parametrize("kind", ["index", "color"])
@pytest.mark.parametrize("below", ["", "CamVid"])
def test_segnet_edition(tmp_path, kind, below):
    indices = np.arange(36 * 48).reshape(36, 48) % 12
    palette = np.vstack([camvid.PALETTE_RGB, [[0, 0, 0]]])
    for split, name in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        root = tmp_path / "segnet" / below
        save(root / split / f"{name}.png", np.zeros((36, 48, 3)))
        save(root / f"{split}annot/{name}.png", indices if kind == "index" else palette[indices])
    camvid_conversion.convert(tmp_path / "segnet", tmp_path / "out", progress=False)
    label = np.asarray(Image.open(tmp_path / f"out/annot/{VAL}.png"))
    np.testing.assert_array_equal(label, np.where(indices == 11, 255, indices))


def test_size_resizes_images_smoothly_and_labels_by_neighbour(original, tmp_path):
    camvid_conversion.convert(original, tmp_path / "out", resolution_wh=(24, 18), progress=False)
    label = cv2.imread(str(tmp_path / f"out/annot/{TRAIN}.png"), -1)
    np.testing.assert_array_equal(label, colors()[1][::2, ::2])
    image = cv2.imread(str(tmp_path / f"out/images/{TRAIN}.png"))
    whole = cv2.imread(str(original / f"frames/{TRAIN}.png"))
    np.testing.assert_array_equal(image, cv2.resize(whole, (24, 18), interpolation=cv2.INTER_AREA))


def test_unknown_colour_is_named_and_counted(original, tmp_path):
    label = colors()[0]
    label[0, :3] = (1, 2, 3)
    path = save(original / f"labels/{VAL}_L.png", label)
    with pytest.raises(DataError) as error:
        camvid_conversion.convert(original, tmp_path / "out", progress=False)
    assert str(path) in str(error.value)
    assert "(1, 2, 3) (3 pixels)" in str(error.value) and "--void_unknown" in str(error.value)
    assert not (tmp_path / "out" / "train.txt").exists()
    camvid_conversion.convert(original, tmp_path / "out", void_unknown=True, progress=False)
    assert (np.asarray(Image.open(tmp_path / f"out/annot/{VAL}.png"))[0, :3] == 255).all()


def test_unknown_index_is_named(tmp_path):
    with pytest.raises(DataError, match=r"out of range: 12 \(2 pixels\)"):
        camvid_conversion.to_indices(np.uint8([[0, 12], [12, 11]]))


def test_frames_in_no_split_are_left_out_and_said(original, tmp_path):
    save(original / "frames/0001TP_000001.png", np.zeros((36, 48, 3)))
    save(original / "labels/0001TP_000001_L.png", colors()[0])
    made = camvid_conversion.convert(original, tmp_path / "out", progress=False)
    assert made.left_out == ["0001TP_000001"]
    assert not (tmp_path / "out/images/0001TP_000001.png").exists()


def test_sources_that_are_none(original, tmp_path):
    with pytest.raises(DataError, match="folder not found"):
        camvid_conversion.convert(tmp_path / "gone", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is not CamVid"):
        camvid_conversion.convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="contain one another"):
        camvid_conversion.convert(original, original / "out")
    with pytest.raises(ValueError, match="--size"):
        camvid_conversion.convert(original, tmp_path / "out", resolution_wh=(0, 5))
    (original / f"frames/{VAL}.png").unlink()
    with pytest.raises(DataError, match=f"labels have no frame, the first is .*{VAL}_L.png"):
        camvid_conversion.convert(original, tmp_path / "out")
    save(original / f"other/{TRAIN}.png", np.zeros((36, 48, 3)))
    with pytest.raises(DataError, match="two files with one name"):
        camvid_conversion.find_pairs(original)


def test_frame_and_label_of_different_size(original, tmp_path):
    save(original / f"frames/{VAL}.png", np.zeros((10, 20, 3)))
    with pytest.raises(DataError, match=rf"{VAL}.*differ in size: 20x10 and 48x36"):
        camvid_conversion.convert(original, tmp_path / "out", progress=False)


def test_stopped_in_the_middle_leaves_no_list_and_no_half_file(original, tmp_path, monkeypatch):
    camvid_conversion.convert(original, tmp_path / "out", progress=False)

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        camvid_conversion.convert(original, tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").glob("t*.txt"))
    assert not list((tmp_path / "out").rglob(".*"))
