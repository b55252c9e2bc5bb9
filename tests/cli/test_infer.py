from __future__ import annotations

import json
import os
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin import Predictor
from liteseg_plugin.cli import main
from liteseg_plugin.export.writer import export_model

LABEL_MAPS = "pseudo_color_prediction"


def test_export_says_how_many_labels_are_those_of_the_network(exported):
    assert "paddle: 100.0000% of labels equal the trained network's, on noise" in exported.log


@pytest.mark.slow
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
        *("infer", "--config", exported.folder, "--image_path", images, "--save_dir", save_dir),
        "--json",
    )
    report = json.loads(result.stdout)
    assert len(report["images"]) == len(kinds)
    assert report["images_per_second"] > 0
    predictor = Predictor(exported.folder)
    for name in kinds:
        label = np.asarray(Image.open((save_dir / LABEL_MAPS / name).with_suffix(".png")))
        expected = predictor(cv2.imread(str(images / name)))
        assert label.shape == kinds[name].shape[:2]
        np.testing.assert_array_equal(label, expected, err_msg=name)
        assert cv2.imread(str(save_dir / "added_prediction" / name)).shape[:2] == label.shape
    assert cv2.imread(str(save_dir / "legend.png")).shape[1] == 480
    # What carries no colour information of its own is the colour image again.
    for same in ("sixteen_bit.png", "transparent.png"):
        np.testing.assert_array_equal(
            cv2.imread(str(save_dir / LABEL_MAPS / same), cv2.IMREAD_UNCHANGED),
            cv2.imread(str(save_dir / LABEL_MAPS / "colour.png"), cv2.IMREAD_UNCHANGED),
        )


@pytest.fixture(scope="module")
def tiny(pointwise, tmp_path_factory):
    """Return a function that runs `liteseg infer`, here and with a small export."""
    folder = tmp_path_factory.mktemp("tiny")
    export_model(pointwise(), folder, transforms=[{"type": "Normalize"}])

    def infer(image_path, save_dir):
        paths = ("--image_path", str(image_path), "--save_dir", str(save_dir))
        return main(["infer", "--config", str(folder), *paths, "--json"])

    return infer


def test_images_before_an_unreadable_one_are_written(tiny, tmp_path, capfd):
    images = tmp_path / "images"
    images.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    for number in range(6):
        cv2.imwrite(str(images / f"{number}.png"), picture)
    (images / "6.png").write_text("no picture")
    names = tmp_path / "images" / "list.txt"
    names.write_text("".join(f"{number}.png\n" for number in range(7)))
    assert tiny(names, tmp_path / "out") == 1
    message = capfd.readouterr().err
    assert "cannot read image" in message and "6.png" in message
    assert "Traceback" not in message
    assert {f"{n}.png" for n in range(6)} <= {
        p.name for p in (tmp_path / "out" / LABEL_MAPS).iterdir()
    }


@pytest.mark.parametrize("line", ["{folder}/a.png", "../added_prediction/a.png", "a.png"])
def test_images_are_never_overwritten(tiny, tmp_path, capfd, line):
    folder = tmp_path / "out" / "added_prediction"
    folder.mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "a.png"), picture)
    (folder / "list.txt").write_text(line.format(folder=folder))
    for image_path in (folder / "list.txt", folder):
        assert tiny(image_path, tmp_path / "out") == 1
        message = capfd.readouterr().err
        assert "would overwrite image" in message and "/a.png; choose another" in message
    np.testing.assert_array_equal(cv2.imread(str(folder / "a.png")), picture)

    # Nor those outside of the folder of results.
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_text(f"{folder}/a.png\n../out/added_prediction/a.png\n")
    assert tiny(tmp_path / "lists" / "list.txt", tmp_path / "lists" / "out") == 0
    np.testing.assert_array_equal(cv2.imread(str(folder / "a.png")), picture)
    assert (tmp_path / "lists" / "out" / LABEL_MAPS / "out" / folder.name / "a.png").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 exist on Linux")
def test_names_that_are_not_utf8_are_in_the_json(tiny, tmp_path, capfd):
    name = os.fsdecode(b"caf\xe9")
    picture = cv2.imencode(".png", np.zeros((40, 60, 3), np.uint8))[1].tobytes()
    (tmp_path / f"{name}.png").write_bytes(picture)
    assert tiny(tmp_path / f"{name}.png", tmp_path / name) == 0
    output = capfd.readouterr().out  # inside of pytest, other lines are not taken aside
    [image] = json.loads(output[output.index("{") :])["images"]
    assert image["label"] == f"{tmp_path}/{name}/{LABEL_MAPS}/{name}.png"
    assert os.path.isfile(image["label"])


def test_image_path_that_does_not_exist_is_named(tiny, tmp_path, capfd):
    assert tiny(tmp_path / "missing.jpg", tmp_path / "out") == 1
    assert f"error: image path not found: {tmp_path}/missing.jpg" in capfd.readouterr().err


def test_path_that_names_no_images_is_one_error(tiny, tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.yml").write_text("# batch and model\nbatch_size: 8\n_base_: base.yml\n")
    for name, message in (
        ("empty", f"no images in folder {tmp_path}/empty; files that end in .bmp"),
        ("mine.yml", "mine.yml is neither an image, a video, a folder nor a list of images"),
    ):
        assert tiny(tmp_path / name, tmp_path / "out") == 1
        said = [line for line in capfd.readouterr().err.splitlines() if "error" in line.lower()]
        assert len(said) == 1 and said[0].startswith("error: ") and message in said[0]
    assert not (tmp_path / "out").exists()


def test_flags_that_exclude_each_other(fails, tmp_path):
    command = ("infer", "--config", tmp_path, "--image_path", tmp_path)
    assert "not with --shard" in fails(*command, "--ray", "--shard", "0/2")
    assert "need --ray" in fails(*command, "--save_as", "parquet")
    more = ("--ray", "--save_as", "parquet", "--save_polygons")
    assert "label maps alone" in fails(*command, *more)
