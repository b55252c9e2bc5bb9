"""`liteseg quantize` that is killed, at any moment, and runs again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.predictor import Predictor

pytestmark = pytest.mark.skipif(
    any(find_spec(module) is None for module in ("paddle2onnx", "onnxruntime")),
    reason="needs the extra onnx, which scripts/test.sh installs",
)

# Loaded at the start of the process, which is killed instead of its n-th change of the export.
_KILL_INSTEAD_OF_CHANGE = """
import os, signal
remaining = int(os.environ["KILLED_AT_CHANGE"])
replace = os.replace

def replace_or_die(source, target):
    global remaining
    remaining -= os.path.dirname(target) == os.environ["KILLED_IN"]
    if remaining:
        return replace(source, target)
    os.kill(os.getpid(), signal.SIGKILL)

os.replace = replace_or_die
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for seed in range(3):
        coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{seed}.png"), cv2.resize(coarse, (96, 64)))
    return folder


@pytest.fixture(scope="module")
def folder(pointwise, tmp_path_factory):
    """Return an export that is quantised, and killed, again and again."""
    folder = tmp_path_factory.mktemp("exported")
    export_model(pointwise(), folder, transforms=[{"type": "Normalize"}], onnx_opset=13)
    return folder


@pytest.fixture(scope="module")
def start(folder, images, tmp_path_factory):
    """Return a function that starts `liteseg quantize`, to be killed at its n-th change.

    What it says goes to the file `log` of the process.
    """
    patch = tmp_path_factory.mktemp("patch")
    (patch / "sitecustomize.py").write_text(_KILL_INSTEAD_OF_CHANGE)
    others = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(patch), *([others] if others else [])])

    def start(number=None):
        killed = {"PYTHONPATH": path, "KILLED_AT_CHANGE": str(number), "KILLED_IN": str(folder)}
        command = [sys.executable, "-m", "liteseg_plugin", "quantize", folder]
        log = tmp_path_factory.mktemp("log") / "log.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                [*map(str, command), "--image_path", str(images), "--tolerance", "1"],
                env={**os.environ, **(killed if number else {})},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        process.log = log
        return process

    return start


def files(folder):
    """Return the files that people see; a killed process leaves some that begin with a dot."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def labels(folder, images, precision):
    """Return the labels of an export, which checks its files, or None if it has no such model."""
    try:
        predictor = Predictor(folder, "onnxruntime", precision=precision)
    except ExportError as error:
        assert "holds no INT8 model; make it with liteseg quantize" in str(error)
        return None
    return [predictor(cv2.imread(str(path))).tolist() for path in sorted(images.iterdir())]


def test_killed_quantize_leaves_a_folder_that_runs(folder, images, start):
    before = files(folder)
    in_float = labels(folder, images, "fp32")
    assert labels(folder, images, "int8") is None

    def killed(number):
        process = start(number)
        assert process.wait(timeout=120) == -signal.SIGKILL, process.log.read_text()
        assert labels(folder, images, "fp32") == in_float
        return labels(folder, images, "int8")

    # The first time: as before, whatever lies beside it.
    assert killed(2) is None
    assert files(folder).items() >= before.items()

    # Again, after all that: complete.
    process = start()
    assert process.wait(timeout=120) == 0, process.log.read_text()
    in_int8 = labels(folder, images, "int8")
    assert in_int8 is not None
    assert json.loads((folder / "model_int8.json").read_text())["images"] == 3
    complete = files(folder)
    assert complete.keys() == before.keys() | {"model_int8.onnx", "model_int8.json"}

    # With an INT8 model there: that one or the new, which here are the same, under another name.
    assert killed(4) == in_int8
    assert files(folder).keys() > complete.keys()
    process = start()
    assert process.wait(timeout=120) == 0, process.log.read_text()
    assert files(folder) == complete


def test_quantize_killed_while_it_measures_layers_changes_nothing(folder, images, start):
    before, in_int8 = files(folder), labels(folder, images, "int8")
    process = start()
    while process.poll() is None and "layer" not in process.log.read_text():
        time.sleep(0.002)
    process.kill()
    process.wait()
    # It may have been too fast to be hit, or be hit between two files.
    assert files(folder) == before or labels(folder, images, "int8") == in_int8
    assert labels(folder, images, "fp32") is not None
