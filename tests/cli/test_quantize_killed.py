"""`liteseg quantize` that is killed, at any moment, and runs again."""

from __future__ import annotations

import json
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest
from pictures import write_images

from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.predictor import Predictor

pytestmark = pytest.mark.skipif(
    any(find_spec(module) is None for module in ("paddle2onnx", "onnxruntime")),
    reason="needs the extra onnx, which scripts/test.sh installs",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, 3)
    return folder


@pytest.fixture(scope="module")
def in_float(pointwise, tmp_path_factory):
    """Return an export without an INT8 model."""
    folder = tmp_path_factory.mktemp("exported")
    export_model(pointwise(), folder, transforms=[{"type": "Normalize"}], onnx_opset=13)
    return folder


@pytest.fixture
def folder(in_float, tmp_path):
    """Return an export that is quantised, and killed, again and again."""
    return Path(shutil.copytree(in_float, tmp_path / "exported"))


@pytest.fixture
def quantize(run, folder, images):
    """Return a function that runs `liteseg quantize` on the export to its end."""
    return lambda: run("quantize", folder, "--image_path", images, "--tolerance", 1)


@pytest.fixture
def quantize_killed(process, killed_at, folder, images):
    """Return a function that runs `liteseg quantize`, which is killed at a moment."""

    def quantize_killed(kind, pattern, number):
        result = process(
            *("python", "-m", "liteseg_plugin", "quantize", folder),
            *("--image_path", images, "--tolerance", 1),
            check=False,
            **killed_at(kind, pattern, number),
        )
        assert result.returncode == -signal.SIGKILL, result.text

    return quantize_killed


def files(folder):
    """Return the files that people see; a killed process leaves some that begin with a dot."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def labels(folder, images, precision):
    """Return the labels of an export, which checks its files, or None if it has no such model."""
    try:
        predictor = Predictor(folder, "onnxruntime", precision=precision)
    except ExportError as error:
        assert "has no INT8 model; create it with liteseg quantize" in str(error)
        return None
    return [predictor(cv2.imread(str(path))).tolist() for path in sorted(images.iterdir())]


@pytest.mark.slow
def test_killed_quantize_leaves_the_float_model(folder, images, quantize, quantize_killed):
    before, in_float = files(folder), labels(folder, images, "fp32")
    quantize_killed("rename", f"{folder}/[!.]*", 2)
    assert files(folder).items() >= before.items()
    assert labels(folder, images, "fp32") == in_float
    assert labels(folder, images, "int8") is None

    # Again, after that: complete, and the float model is the same.
    quantize()
    assert labels(folder, images, "int8") is not None
    assert labels(folder, images, "fp32") == in_float
    assert json.loads((folder / "model_int8.json").read_text())["images"] == 3
    assert files(folder).keys() == before.keys() | {"model_int8.onnx", "model_int8.json"}


@pytest.mark.slow
def test_killed_quantize_leaves_the_int8_model_there_was(folder, images, quantize, quantize_killed):
    quantize()
    complete = files(folder)
    in_float, in_int8 = (labels(folder, images, precision) for precision in ("fp32", "int8"))
    # That one or the new, which here are the same, under another name.
    quantize_killed("rename", f"{folder}/[!.]*", 4)
    assert files(folder).keys() > complete.keys()
    assert labels(folder, images, "int8") == in_int8
    assert labels(folder, images, "fp32") == in_float
    quantize()
    assert files(folder) == complete


@pytest.mark.slow
def test_quantize_killed_while_it_measures_layers_changes_nothing(folder, quantize_killed):
    before = files(folder)
    quantize_killed("model", "", 2)  # the first is the float model
    assert files(folder) == before
