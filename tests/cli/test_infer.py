from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin import Predictor


@pytest.fixture(scope="module")
def exported(run, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    weights = ("--config", trained.config, "--model_path", trained.weights)
    result = run("export", *weights, "--save_dir", folder)
    assert "paddle: 100.0000% of labels are the trained network's, on noise" in result.text
    return folder


def test_images_of_every_kind_and_size_get_their_labels(run, exported, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    colour = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (96, 64))
    kinds = {
        "colour.png": colour,
        "grey.png": colour[..., 0],
        "sixteen_bit.png": colour.astype("uint16") * 257,
        "transparent.png": np.dstack([colour, np.full(colour.shape[:2], 128, np.uint8)]),
        "one_pixel.png": colour[:1, :1],
        "wide.png": np.tile(colour, (1, 209, 1))[:, :20000],
        "large/odd.jpg": cv2.resize(colour, (131, 97)),
    }
    for name, image in kinds.items():
        (images / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(images / name), image)
    save_dir = tmp_path / "out"
    result = run(
        *("infer", "--config", exported, "--image_path", images, "--save_dir", save_dir),
        "--json",
    )
    report = json.loads(result.stdout)
    assert len(report["images"]) == len(kinds)
    assert report["images_per_second"] > 0
    predictor = Predictor(exported)
    for name in kinds:
        label = np.asarray(Image.open((save_dir / name).with_suffix(".png")))
        expected = predictor(cv2.imread(str(images / name)))
        assert label.shape == kinds[name].shape[:2]
        np.testing.assert_array_equal(label, expected, err_msg=name)
        overlay = cv2.imread(str((save_dir / "overlay" / name).with_suffix(".jpg")))
        assert overlay.shape[1] == label.shape[1]
    # What carries no colour information of its own is the colour image again.
    for same in ("sixteen_bit.png", "transparent.png"):
        np.testing.assert_array_equal(
            cv2.imread(str(save_dir / same), cv2.IMREAD_UNCHANGED),
            cv2.imread(str(save_dir / "colour.png"), cv2.IMREAD_UNCHANGED),
        )


def test_images_before_an_unreadable_one_are_written(run, exported, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    for number in range(6):
        cv2.imwrite(str(images / f"{number}.png"), picture)
    (images / "6.png").write_text("no picture")
    names = tmp_path / "images" / "list.txt"
    names.write_text("".join(f"{number}.png\n" for number in range(7)))
    result = run(
        *("infer", "--config", exported, "--image_path", names),
        *("--save_dir", tmp_path / "out"),
        check=False,
    )
    assert result.returncode == 1
    assert "cannot read image" in result.stderr and "6.png" in result.stderr
    assert "Traceback" not in result.stderr
    assert {f"{n}.png" for n in range(6)} <= {p.name for p in (tmp_path / "out").iterdir()}
