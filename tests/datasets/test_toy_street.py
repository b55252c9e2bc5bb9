from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from liteseg_plugin.datasets import camvid, toy_street
from liteseg_plugin.datasets.base import IGNORE_INDEX
from liteseg_plugin.datasets.toy_street import canvas, data_set

SMALL = {"train": 3, "val": 2, "test": 1, "resolution_wh": (64, 48), "progress": False}


def scene(index: int, resolution_wh=(256, 192)):
    return toy_street.render_scene(np.random.default_rng((5, index)), resolution_wh)


def contents(root):
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def labels():
    return np.stack([scene(index)[1] for index in range(24)])


@pytest.fixture
def dataset(tmp_path):
    return toy_street.generate(tmp_path / "toy", **SMALL)


def test_camvid_record_is_whole():
    assert camvid.NUM_CLASSES == 11
    assert camvid.CLASS_NAMES[0] == "sky" and camvid.CLASS_NAMES[10] == "bicyclist"
    assert camvid.PALETTE_RGB.shape == (11, 3) and camvid.PALETTE_RGB.dtype == np.uint8
    assert len(set(map(tuple, camvid.PALETTE_RGB.tolist()))) == 11


def test_import_brings_no_paddle():
    code = (
        "import sys; import liteseg_plugin.datasets.toy_street;"
        "sys.exit(bool({'paddle', 'paddleseg'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_render_scene_same_rng_same_pixels():
    (image, label), (image_again, label_again) = scene(3), scene(3)
    np.testing.assert_array_equal(image, image_again)
    np.testing.assert_array_equal(label, label_again)
    assert (scene(4)[1] != label).any()


@pytest.mark.parametrize("resolution_wh", [(256, 192), (123, 77), (32, 32), (60, 200), (301, 64)])
def test_render_scene_shapes_and_values(resolution_wh):
    for index in range(4):
        image, label = scene(index, resolution_wh)
        width, height = resolution_wh
        assert image.shape == (height, width, 3) and image.dtype == np.uint8
        assert label.shape == (height, width) and label.dtype == np.uint8
        assert image.flags["C_CONTIGUOUS"] and label.flags["C_CONTIGUOUS"]
        assert set(np.unique(label)) <= {*range(camvid.NUM_CLASSES), IGNORE_INDEX}


def test_render_scene_is_bgr(monkeypatch):
    monkeypatch.setattr(canvas, "MOODS", canvas.MOODS[:1])  # a blue noon sky
    image, label = scene(0)
    blue, green, red = image[label == camvid.CLASS_NAMES.index("sky")].mean(0)
    assert blue > green > red


def test_render_scene_every_class_is_common(labels):
    for index, name in enumerate(camvid.CLASS_NAMES):
        here = labels == index
        assert here.mean() >= 0.004, name
        assert here.any(axis=(1, 2)).mean() >= 0.8, name


def test_render_scene_ignores_a_little(labels):
    share = (labels == IGNORE_INDEX).mean(axis=(1, 2))
    assert share.max() < 0.03
    assert (share > 0).mean() > 0.5


def test_render_scene_layout_is_a_street(labels):
    names = camvid.CLASS_NAMES
    top, bottom = labels[:, 10, 128], labels[:, 170, 128]
    assert (top == names.index("sky")).mean() > 0.6
    assert (bottom == names.index("road")).mean() > 0.8


def test_generate_writes_camvid_layout(dataset):
    counts = {"train": 3, "val": 2, "test": 1}
    for split, count in counts.items():
        lines = (dataset / f"{split}.txt").read_text().splitlines()
        assert len(lines) == count
        for line in lines:
            image_name, label_name = line.split(" ")
            assert image_name.startswith("images/") and label_name.startswith("annot/")
            image = cv2.imread(str(dataset / image_name), cv2.IMREAD_UNCHANGED)
            label = cv2.imread(str(dataset / label_name), cv2.IMREAD_UNCHANGED)
            assert image.shape == (48, 64, 3) and label.shape == (48, 64)
            assert label.dtype == np.uint8
    assert (dataset / "labels.txt").read_text().split() == list(camvid.CLASS_NAMES)
    assert len(contents(dataset)) == 2 * 6 + 5
    assert [path.name for path in dataset.parent.iterdir()] == ["toy"]


def test_generate_stores_what_render_scene_returns(dataset):
    rng = np.random.default_rng((2022, 1, 0))
    image, label = toy_street.render_scene(rng, (64, 48))
    np.testing.assert_array_equal(cv2.imread(str(dataset / "images/val_0000.png")), image)
    np.testing.assert_array_equal(cv2.imread(str(dataset / "annot/val_0000.png"), -1), label)


def test_generate_depends_on_seed_split_and_index_only(dataset, tmp_path):
    first = contents(dataset)
    more = contents(toy_street.generate(tmp_path / "more", **{**SMALL, "train": 5, "test": 2}))
    other = contents(toy_street.generate(tmp_path / "other", **SMALL, seed=1))
    pictures = [name for name in first if name.endswith(".png")]
    assert all(first[name] == more[name] for name in pictures)
    assert not any(first[name] == other[name] for name in pictures)
    images = [path.read_bytes() for path in (dataset / "images").iterdir()]
    assert len(set(images)) == len(images)


def test_generate_keeps_the_same_data_set(dataset):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    assert toy_street.generate(str(dataset), **SMALL) == dataset
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": 4}, {"resolution_wh": (48, 64)}])
def test_generate_refuses_another_data_set(dataset, change):
    with pytest.raises(FileExistsError, match=r"toy exists and is not .* choose another folder"):
        toy_street.generate(dataset, **{**SMALL, **change})


def test_generate_refuses_what_is_not_whole(dataset, tmp_path):
    (dataset / "images" / "train_0001.png").unlink()
    with pytest.raises(FileExistsError, match="toy exists"):
        toy_street.generate(dataset, **SMALL)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file exists"):
        toy_street.generate(tmp_path / "file", **SMALL)
    assert (tmp_path / "file").read_text() == "mine"


def test_generate_leaves_nothing_when_stopped(tmp_path, monkeypatch):
    def stop(path, pixels):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_set, "_write_png", stop)
    with pytest.raises(KeyboardInterrupt):
        toy_street.generate(tmp_path / "toy", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_generate_accepts_a_twin_made_meanwhile(tmp_path, monkeypatch):
    write = data_set._write

    def slow_write(root, record, *, progress):
        write(root, record, progress=progress)
        write(tmp_path / "toy", record, progress=progress)

    monkeypatch.setattr(data_set, "_write", slow_write)
    root = toy_street.generate(tmp_path / "toy", **SMALL)
    assert json.loads((root / toy_street.RECORD_NAME).read_text())["train"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": -1}, r"train -1: must be an integer"),
        ({"val": 1.5}, r"val 1\.5: must be an integer"),
        ({"seed": -3}, r"seed -3: must be an integer"),
        ({"train": 0, "val": 0, "test": 0}, r"at least one scene"),
        ({"resolution_wh": (16, 192)}, r"resolution_wh \(16, 192\): .* at least 32 pixels"),
        ({"resolution_wh": (64.0, 48)}, r"resolution_wh \(64\.0, 48\)"),
        ({"resolution_wh": (64, 48, 3)}, r"resolution_wh \(64, 48, 3\)"),
    ],
)
def test_generate_names_bad_values(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        toy_street.generate(tmp_path / "toy", **{**SMALL, **change})
    assert list(tmp_path.iterdir()) == []


def test_render_scene_names_a_bad_resolution():
    with pytest.raises(ValueError, match=r"resolution_wh \(256, 8\)"):
        scene(0, (256, 8))
