"""A device that was asked for is used or is an error; ``auto`` says what it took."""

from __future__ import annotations

import paddle
import pytest

from liteseg_plugin.errors import DeviceError, ExportError
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.system.device import Devices, paddle_devices

TWO = Devices("Engine 1.0", ("gpu:0", "gpu:1", "cpu"))
NONE = Devices("Engine 1.0", ("cpu",), "it finds no GPU")


@pytest.mark.parametrize(
    ("devices", "asked", "chosen"),
    [
        (TWO, "auto", "gpu"),
        (TWO, "gpu", "gpu"),
        (TWO, "gpu:1", "gpu:1"),
        (TWO, "cpu", "cpu"),
        (NONE, "auto", "cpu"),
    ],
)
def test_device_that_is_there_is_chosen(devices, asked, chosen):
    assert devices.choose(asked) == chosen


@pytest.mark.parametrize(
    ("devices", "asked", "message"),
    [
        (
            NONE,
            "gpu",
            "--device gpu: there is no such device. Engine 1.0 has cpu here (it finds no GPU); "
            "--device auto takes what is there",
        ),
        (TWO, "gpu:2", "--device gpu:2: there is no such device. Engine 1.0 has gpu:0, gpu:1, cpu"),
        (Devices("Engine", (), "no driver"), "auto", r"Engine has no device here (no driver)"),
        (TWO, "tpu", "unknown device 'tpu'; choose one of auto, cpu, gpu"),
        (TWO, "gpu:x", "unknown device 'gpu:x'"),
    ],
)
def test_device_that_is_missing_is_an_error(devices, asked, message):
    with pytest.raises(DeviceError) as raised:
        devices.choose(asked)
    assert message in str(raised.value)


def test_auto_says_what_it_took_and_why():
    assert (
        NONE.describe("auto", "cpu") == "Device: cpu (--device auto; Engine 1.0: it finds no GPU)"
    )
    assert TWO.describe("auto", "gpu") == "Device: gpu (--device auto; Engine 1.0)"
    assert TWO.describe("cpu", "cpu") == "Device: cpu"


@pytest.mark.parametrize(
    ("cuda", "gpus", "present", "missing"),
    [
        (False, 0, ("cpu",), "built without CUDA"),
        (True, 0, ("cpu",), "CUDA_VISIBLE_DEVICES"),
        (True, 2, ("gpu:0", "gpu:1", "cpu"), ""),
    ],
)
def test_devices_of_paddle(monkeypatch, cuda, gpus, present, missing):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: cuda)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: gpus)
    found = paddle_devices()
    assert found.present == present
    assert missing in found.missing


def test_runtime_takes_a_device_that_has_the_precision(monkeypatch):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 2)
    assert catalog.choose_device("paddle", "auto", "fp16")[0] == "gpu"
    assert catalog.choose_device("paddle", "auto", "bf16")[0] == "cpu"
    assert catalog.choose_device("paddle", "gpu:0")[0] == "gpu"
    with pytest.raises(DeviceError, match="the first GPU; CUDA_VISIBLE_DEVICES"):
        catalog.choose_device("paddle", "gpu:1")
    with pytest.raises(ExportError, match="paddle does not run on xpu: --device cpu, gpu"):
        catalog.choose_device("paddle", "xpu")


@pytest.fixture(params=["paddle", "onnxruntime", "openvino"])
def runtime(request, exported):
    """A runtime that cannot use a GPU here."""
    if request.param not in exported.runtimes:
        pytest.skip(f"{request.param} is not installed")
    if "gpu:0" in catalog.RUNTIMES[request.param].devices().present:
        pytest.skip(f"{request.param} has a GPU here")
    return request.param


def test_predictor_refuses_a_missing_gpu(runtime, exported):
    with pytest.raises(DeviceError, match="--device gpu: there is no such device"):
        Predictor(exported.folder, runtime, device="gpu")
    assert Predictor(exported.folder, runtime).device == "cpu"


def test_commands_refuse_a_missing_device(fails, run, trained, exported, toy, tmp_path):
    data = ("--config", trained.config)
    weights = (*data, "--model_path", trained.weights)
    image = ("--image_path", toy.root / "images" / "val_0000.png", "--save_dir", tmp_path)
    for command in (
        ("train", *data, "--save_dir", tmp_path / "out"),
        ("val", *weights),
        ("predict", *weights, *image),
    ):
        said = fails(*command, "--device", "npu:3")
        assert "--device npu:3: there is no such device. Paddle" in said
    exports = (
        ("val", *data, "--exported", exported.folder),
        ("infer", "--config", exported.folder, *image),
        ("benchmark", "--exported", exported.folder, "--runtime", "paddle"),
        ("demo", exported.folder),
    )
    for command in exports:
        assert "paddle does not run on npu" in fails(*command, "--device", "npu")
    if "gpu:0" not in paddle_devices().present:
        for command in exports:
            assert "--device gpu: there is no such device" in fails(*command, "--device", "gpu")
    said = run("infer", "--config", exported.folder, *image).stdout
    assert said.startswith("Runtime: ")
    assert "\nDevice: cpu (--device auto; " in said
