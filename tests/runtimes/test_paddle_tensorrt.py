"""TensorRT inside Paddle Inference up to Paddle's door: what it is asked for, and the errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from paddle import inference

from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.runtimes import paddle_tensorrt
from liteseg_plugin.runtimes.catalog import create, installed
from liteseg_plugin.runtimes.paddle_tensorrt import LOADED
from liteseg_plugin.system.device import Devices

OPEN = (None, 3, None, None)
SHAPE = (2, 3, 24, 32)
ON_GPU = ("enable_use_gpu", (256, 0), {})

_OLD_FORMAT = """
import sys, zlib, paddle
paddle.seed(1)
net = paddle.nn.Sequential(
    paddle.nn.Conv2D(3, 5, 3, padding=1), paddle.nn.ReLU(), paddle.nn.Conv2D(5, 4, 1)
)
net.eval()
spec = [paddle.static.InputSpec([-1, 3, -1, -1], "float32", "x")]
paddle.jit.save(paddle.jit.to_static(net, spec), sys.argv[1])
"""

# What stands in for paddle.tensorrt.export, which wheels for CPUs lack: it copies the model.
_STAND_IN = """
import enum, json, os, shutil, sys
from types import ModuleType, SimpleNamespace

class PrecisionMode(enum.Enum):
    FP32 = "FP32"
    FP16 = "FP16"

def convert(model, config):
    if os.environ.get("STAND_IN_FAILS"):
        os.write(2, b"noise\\nRuntimeError: TensorRT has no such layer\\nlast\\n")
        os.abort()
    for suffix in (".json", ".pdiparams"):
        shutil.copy(model + suffix, config.save_model_dir + suffix)
    [images] = config.inputs
    asked = {**config.__dict__, "inputs": images.__dict__}
    asked["precision_mode"] = config.precision_mode.value
    with open(os.environ["STAND_IN_RECORD"], "a") as file:
        print(json.dumps({"model": model, **asked}), file=file)

stand_in = ModuleType("paddle.tensorrt.export")
stand_in.Input = stand_in.TensorRTConfig = SimpleNamespace
stand_in.PrecisionMode, stand_in.convert = PrecisionMode, convert
sys.modules["paddle.tensorrt.export"] = stand_in
"""


def batch(shape=SHAPE):
    return np.random.default_rng(3).normal(size=shape).astype("float32")


@pytest.fixture(scope="module")
def old_format(tmp_path_factory):
    """Return an export of logits, of any size, in Paddle 2's format."""
    folder = tmp_path_factory.mktemp("old_format")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _OLD_FORMAT, str(folder / "model")],
        env={**os.environ, "FLAGS_enable_pir_api": "0"},
        check=True,
        capture_output=True,
    )
    return SimpleNamespace(
        model=folder / "model.pdmodel",
        params=folder / "model.pdiparams",
        input_shape=OPEN,
        scale=1.0,
    )


@pytest.fixture
def calls(monkeypatch):
    """Stand in for a Paddle with TensorRT; return what its configurations are asked.

    They compute on the CPU, without TensorRT.
    """
    record = []

    class Config(inference.Config):
        def __init__(self, model, params):
            super().__init__(model, params)
            self.disable_gpu()
            record.append(("Config", (model, params), {}))

    def recorded(name):
        return lambda self, *args, **kwargs: record.append((name, args, kwargs))

    for name in (
        "enable_use_gpu",
        "enable_tensorrt_engine",
        "enable_tuned_tensorrt_dynamic_shape",
        "set_trt_dynamic_shape_info",
    ):
        assert hasattr(inference.Config, name)
        setattr(Config, name, recorded(name))
    monkeypatch.setattr(inference, "Config", Config)
    monkeypatch.setattr(inference, "get_trt_compile_version", lambda: (8, 5, 1))
    monkeypatch.setattr(paddle_tensorrt, "paddle_devices", lambda: Devices("Paddle", ("gpu:0",)))
    return record


def test_paddle_without_tensorrt_is_said(old_format):
    if any(inference.get_trt_compile_version()):
        pytest.skip("this Paddle has TensorRT")
    with pytest.raises(ExportError, match=r"compiled without TensorRT: .*--runtime tensorrt"):
        paddle_tensorrt.PaddleTensorRt(old_format, "gpu", 1)


def test_what_it_does_not_compute_names_who_does(old_format):
    with pytest.raises(ExportError, match=r"int8 on gpu; choose one of .* --runtime .*tensorrt"):
        create("paddle_tensorrt", old_format, "gpu", 1, "int8")
    with pytest.raises(ExportError, match="does not run on cpu: --device gpu"):
        create("paddle_tensorrt", old_format, "cpu", 1)
    assert "paddle_tensorrt" not in installed("gpu")  # only where asked for: it builds for minutes


@pytest.mark.parametrize(
    ("precision", "mode"),
    [("fp32", inference.PrecisionType.Float32), ("fp16", inference.PrecisionType.Half)],
)
def test_old_format_is_cut_with_collected_shapes(old_format, calls, precision, mode):
    engine = create("paddle_tensorrt", old_format, "gpu", 1, precision)
    assert not calls  # of an open size nothing is known before the first batch
    output = engine.run(batch())
    configured = ("Config", (str(old_format.model), str(old_format.params)), {})
    [(_, (ranges, rebuilds), _)] = [c for c in calls if c[0].startswith("enable_tuned")]
    asked = {
        "workspace_size": 1 << 30,
        "max_batch_size": 2,
        "min_subgraph_size": 3,
        "precision_mode": mode,
        "use_static": False,
        "use_calib_mode": False,
    }
    assert calls == [
        configured,
        ON_GPU,
        configured,
        ON_GPU,
        ("enable_tensorrt_engine", (), asked),
        ("enable_tuned_tensorrt_dynamic_shape", (ranges, True), {}),
    ]
    assert rebuilds is True
    collected = collected_shapes(ranges)
    assert collected["x"] == {"min": [*SHAPE], "max": [*SHAPE], "opt": [*SHAPE]}
    assert [2, 5, 24, 32] in [shapes["min"] for shapes in collected.values()]  # and those between
    expected = create("paddle", old_format, "cpu", 1).run(batch())
    np.testing.assert_allclose(output, expected, atol=1e-5)


def collected_shapes(path):
    """Read what Paddle wrote: the shapes of tensors by their names."""
    shapes, name = {}, None
    with open(path, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.strip().partition(": ")
            if key == "name":
                name = value.strip('"')
                shapes[name] = {"min": [], "max": [], "opt": []}
            elif key.endswith("_shape"):
                shapes[name][key[:3]].append(int(value))
    return shapes


def test_each_shape_gets_an_engine_and_few_are_held(old_format, calls):
    engine = create("paddle_tensorrt", old_format, "gpu", 1)
    shapes = [(1, 3, 16, 16 + 8 * n) for n in range(LOADED + 1)]

    def built():
        return sum(call[0] == "enable_tensorrt_engine" for call in calls)

    for shape in (*shapes, *shapes[1:], shapes[-1]):
        assert engine.run(batch(shape)).shape == (shape[0], 4, *shape[2:])
    assert built() == LOADED + 1
    engine.run(batch(shapes[0]))  # the oldest was let go
    assert built() == LOADED + 2


def test_files_are_gone_with_the_engine(old_format, calls):
    engine = create("paddle_tensorrt", old_format, "gpu", 1)
    engine.run(batch())
    ranges = calls[-1][1][0]
    assert os.path.isfile(ranges)
    del engine
    assert not os.path.exists(os.path.dirname(os.path.dirname(ranges)))


def test_what_paddle_refuses_is_one_error(old_format, calls, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("stack\n(Fatal) no CUDA-capable device is detected")

    monkeypatch.setattr(inference.Config, "enable_tensorrt_engine", refuse)
    engine = create("paddle_tensorrt", old_format, "gpu", 1, "fp16")
    with pytest.raises(
        ExportError,
        match=r"built no TensorRT engine of .*model\.pdmodel for \(2, 3, 24, 32\) in fp16: \(Fatal",
    ):
        engine.run(batch())


@pytest.fixture
def current(pointwise, tmp_path):
    """Return the folder of an export of one size, in this Paddle's format."""
    folder = tmp_path / "export"
    export_model(
        pointwise(), folder, transforms=[{"type": "Normalize"}], input_shape=[1, 3, 24, 32]
    )
    if not (folder / "model.json").is_file():
        pytest.skip("this Paddle writes Paddle 2's format")
    return folder


@pytest.fixture
def converter(tmp_path, monkeypatch):
    """Stand in for Paddle 3's converter in processes that are started; return its record."""
    folder = tmp_path / "stand_in"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_STAND_IN)
    others = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([others] if others else [])]))
    monkeypatch.setenv("STAND_IN_RECORD", str(folder / "record"))
    return folder / "record"


def test_new_format_is_converted_for_its_shape(current, calls, converter):
    image = np.random.default_rng(4).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    labels = Predictor(current, "paddle_tensorrt", "gpu", precision="fp16")(image)
    [asked] = [json.loads(line) for line in converter.read_text().splitlines()]
    target = asked.pop("save_model_dir")
    shape = [1, 3, 24, 32]
    assert asked == {
        "model": str(current / "model"),
        "inputs": dict.fromkeys(("min_input_shape", "optim_input_shape", "max_input_shape"), shape),
        "min_subgraph_size": 3,
        "precision_mode": "FP16",
    }
    # What was converted is loaded as Paddle's documentation does.
    assert calls == [("Config", (f"{target}.json", f"{target}.pdiparams"), {}), ON_GPU]
    assert os.path.dirname(target) != str(current)
    np.testing.assert_array_equal(labels, Predictor(current)(image))
    with pytest.raises(DataError, match="the export takes 1x3x24x32"):
        Predictor(current, "paddle_tensorrt", "gpu").run(batch())


def test_converter_that_crashes_is_one_error(current, calls, converter, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAILS", "1")
    engine = Predictor(current, "paddle_tensorrt", "gpu")
    with pytest.raises(
        ExportError,
        match=r"built no TensorRT engine of .*model\.json for .*: "
        r"RuntimeError: TensorRT has no such layer \(exit code -6\)",
    ):
        engine.run(batch((1, 3, 24, 32)))


def test_converter_that_is_missing_is_one_error(current, calls):
    if find_spec("paddle.tensorrt"):
        pytest.skip("this Paddle has the converter")
    engine = Predictor(current, "paddle_tensorrt", "gpu")
    with pytest.raises(ExportError, match=r"No module named 'paddle\.tensorrt' \(exit code 1\)"):
        engine.run(batch((1, 3, 24, 32)))
