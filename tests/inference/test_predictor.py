from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin import Predictor
from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import INT8_FILE, ONNX_FILE, ExportedModel

TEMPLATE = Path(__file__).parents[2] / "configs/pp_liteseg/pp_liteseg_stdc1_custom.yml"


@pytest.fixture(scope="module")
def folder(pointwise, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictor") / "exported"
    export_model(pointwise(), folder, transforms=[{"type": "Normalize"}])
    return folder


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor(folder)


@pytest.fixture
def picture(tmp_path):
    """Return the path of a picture of many colours."""
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    return path


def test_predictor_takes_paths_and_pil_images(predictor, picture):
    expected = predictor(cv2.imread(str(picture)))
    assert len(np.unique(expected)) > 1
    image = Image.open(picture)
    transparent = image.convert("RGBA")
    transparent.putalpha(7)
    for given in (picture, str(picture), image, transparent):
        np.testing.assert_array_equal(predictor(given), expected)
    for label in predictor.batch([picture, image]):
        np.testing.assert_array_equal(label, expected)
    grey = np.asarray(image.convert("L"))
    expected = predictor(np.dstack([grey] * 3))
    np.testing.assert_array_equal(predictor(image.convert("L")), expected)


TAKEN = "an image must be (H, W, 3) of uint8 in BGR, the path of an image, or a PIL image, got"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (cv2.imread("missing.jpg"), "the image is None, which cv2.imread returns for a file that"),
        ("missing.jpg", "image not found: missing.jpg"),
        (".", "image . is a folder, not a file"),
        (np.zeros((4, 5), np.uint8), f"{TAKEN} an array (4, 5) of uint8; cv2.cvtColor(image, "),
        (np.zeros((4, 5, 1), np.uint8), "(4, 5, 1) of uint8; cv2.cvtColor(image, cv2.COLOR_GRAY2"),
        (np.zeros((4, 5, 4), np.uint8), "(4, 5, 4) of uint8; cv2.cvtColor(image, cv2.COLOR_BGRA2"),
        (np.zeros((4, 5, 3)), f"{TAKEN} an array (4, 5, 3) of float64; convert it to values from"),
        ([[1, 2]], f"{TAKEN} list"),
        (Image.new("F", (3, 3)), "a PIL image of mode F has no 8-bit colours"),
    ],
)
def test_predictor_says_what_it_takes(predictor, given, message):
    with pytest.raises(DataError, match=re.escape(message)):
        predictor(given)


def test_batch_takes_a_list(predictor, picture):
    for one in (str(picture), np.zeros((4, 5, 3), np.uint8)):
        with pytest.raises(DataError, match="batch takes a list of images, got one"):
            predictor.batch(one)


def test_folder_of_a_training_is_not_an_export(tmp_path):
    run = tmp_path / "my run"
    run.mkdir()
    (run / "run.json").touch()
    message = rf"liteseg export --run '{re.escape(str(run))}' --save_dir EXPORTED exports it"
    with pytest.raises(ExportError, match=message):
        Predictor(run)


def test_predictor_takes_the_files_of_an_export(folder, predictor, picture):
    expected = predictor(picture)
    for name in ("deploy.yaml", predictor.exported.model.name, "model.pdiparams"):
        np.testing.assert_array_equal(Predictor(folder / name)(picture), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.onnx", "gone.onnx does not exist; give the folder that liteseg export wrote"),
        (ONNX_FILE, "model.onnx is a model without a deploy.yaml beside it"),
        ("a.pdparams", "holds trained weights, not an export; export them with liteseg export"),
        ("a.png", "a.png is not an export; give the folder that liteseg export wrote"),
    ],
)
def test_files_that_are_not_of_an_export(tmp_path, name, message):
    if "gone" not in name:
        (tmp_path / name).touch()
    with pytest.raises(ExportError, match=re.escape(message)):
        ExportedModel.read(tmp_path / name)


def test_int8_file_needs_its_precision(folder):
    (folder / INT8_FILE).touch()
    with pytest.raises(ExportError, match=r"give its folder .*, and the precision int8"):
        ExportedModel.read(folder / INT8_FILE)


def test_config_of_training_is_not_an_export(fails, picture):
    message = fails("infer", "--config", TEMPLATE, "--image_path", picture)
    assert f"{TEMPLATE} is a config of training, not an export" in message
    assert f"liteseg export --config {TEMPLATE}" in message and "liteseg predict" in message


@pytest.mark.slow
@pytest.mark.parametrize("module", ["inference.predictor", "evaluation.report"])
def test_module_can_be_the_first_import(process, module):
    """Importing PaddleSeg registers data sets, whose modules must not be half imported then."""
    process("python", "-c", f"import liteseg_plugin.{module}")
