"""``--runtime auto``: the fastest that can, and agreed at export; the log says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from liteseg_plugin.errors import DeviceError, ExportError
from liteseg_plugin.evaluation import verify
from liteseg_plugin.exported import ExportedModel, ModelFiles
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.runtimes.base import PRECISIONS
from liteseg_plugin.runtimes.catalog import RUNTIMES
from liteseg_plugin.runtimes.choice import choose
from liteseg_plugin.system.device import Devices

ALL = {"paddle": 1.0, "onnxruntime": 1.0, "openvino": 1.0}


@pytest.fixture
def machine(monkeypatch):
    """Let these runtimes be installed, and find these devices."""

    def machine(**runtimes):
        monkeypatch.setattr(catalog, "find_spec", runtimes.get)
        for name, present in runtimes.items():
            devices = Devices(name, tuple(present.split()))
            monkeypatch.setattr(RUNTIMES[name], "devices", lambda devices=devices: devices)

    return machine


def files(agreement=ALL, **changes):
    """Return an export with all files, and with what its check recorded."""
    paths = {"params": "model.pdiparams", "onnx": "model.onnx", "onnx_int8": "model_int8.onnx"}
    paths = {name: path and Path(path) for name, path in {**paths, **changes}.items()}
    return ModelFiles(Path("exported/model.json"), agreement=agreement, **paths)


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        ({"openvino", "onnxruntime", "paddle"}, "openvino"),
        ({"onnxruntime", "paddle"}, "onnxruntime"),
        ({"paddle"}, "paddle"),
    ],
)
def test_auto_takes_the_fastest_that_is_installed(machine, installed, chosen):
    machine(**dict.fromkeys(installed, "cpu"))
    choice = choose(files())
    assert (choice.runtime, choice.device) == (chosen, "cpu")
    assert f"Runtime: {chosen} (--runtime auto: it agreed" in choice.text
    assert f"Device: cpu (--device auto; {chosen}" in choice.text
    missing = {"openvino", "onnxruntime"} - installed
    assert all(f"{name} is not installed" in choice.text for name in missing)


@pytest.mark.parametrize(
    ("export", "chosen", "why"),
    [
        (files({**ALL, "openvino": 0.9}), "onnxruntime", r"gave other labels at export (90.00%"),
        (files({"paddle": 1.0}), "paddle", "onnxruntime was not checked at export"),
        (files(onnx=None), "paddle", "openvino has no ONNX file"),
        (files({}), "paddle", "no record of a check"),
        (files({}, params=None), "openvino", "no record of a check"),
    ],
)
def test_auto_takes_what_agreed_and_has_the_file(machine, export, chosen, why):
    machine(paddle="cpu", openvino="cpu", onnxruntime="cpu")
    choice = choose(export)
    assert choice.runtime == chosen
    assert why in choice.text


@pytest.mark.parametrize(
    ("asked", "precision", "chosen"),
    [
        ("auto", "fp32", "onnxruntime"),  # it has the GPU
        ("cpu", "fp32", "openvino"),
        ("cpu", "bf16", "openvino"),
        ("auto", "int8", "onnxruntime"),
        ("cpu", "int8", "openvino"),
        ("gpu:0", "int8", "openvino"),
    ],
)
def test_auto_takes_what_has_device_and_precision(machine, asked, precision, chosen):
    machine(paddle="cpu", openvino="cpu gpu:0", onnxruntime="gpu:0 cpu", tensorrt="")
    assert choose(files(), "auto", asked, precision).runtime == chosen


def test_package_that_cannot_be_imported_is_passed_over(machine, monkeypatch):
    machine(paddle="cpu", openvino="cpu")

    def broken():
        raise ExportError("libtbb.so is missing")

    monkeypatch.setattr(RUNTIMES["openvino"], "devices", broken)
    choice = choose(files())
    assert choice.runtime == "paddle"
    assert "openvino does not work: libtbb.so is missing" in choice.text


def test_nothing_that_can_run_it_is_an_error(machine):
    machine()
    message = "in int8: openvino is not installed, onnxruntime is not installed"
    with pytest.raises(ExportError, match=message):
        choose(files(), "auto", "cpu", "int8")
    machine(paddle="cpu", onnxruntime="cpu")
    with pytest.raises(ExportError, match="onnxruntime has no INT8 model; create one with liteseg"):
        choose(files(onnx_int8=None), "auto", "cpu", "int8")
    with pytest.raises(ExportError, match="no INT8 model; for its ncnn files add --runtime ncnn"):
        choose(files(onnx_int8=None, ncnn_int8="a.param"), "auto", "cpu", "int8")
    with pytest.raises(ExportError, match="gave other labels"):
        choose(files({"paddle": 0.5, "onnxruntime": 0.5}))
    with pytest.raises(DeviceError, match="--device gpu: there is no such device"):
        choose(files(), "auto", "gpu")
    for device in ("npu", "cpu"):
        with pytest.raises(ExportError, match=f"paddle does not .* on {device}"):
            choose(files(), "auto", device, "fp16")


def test_named_runtime_is_taken_though_it_disagreed(machine):
    machine(paddle="cpu", openvino="cpu")
    assert choose(files({"openvino": 0.5}), "openvino").runtime == "openvino"


def test_every_precision_has_a_runtime():
    for precision in PRECISIONS:
        kinds = ("cpu", "gpu")
        assert any(catalog.computes(n, kind, precision) for n in RUNTIMES for kind in kinds)


def test_export_records_what_agreed_and_predictor_follows(exported):
    export = ExportedModel.read(exported.folder)
    assert set(export.agreement) == set(exported.runtimes)
    assert min(export.agreement.values()) >= verify.REQUIRED_AGREEMENT
    fastest = next(n for n in ("openvino", "onnxruntime", "paddle") if n in exported.runtimes)
    assert Predictor(export).runtime == fastest


def test_failed_check_is_recorded_too(pointwise, tmp_path, monkeypatch):
    from liteseg_plugin.export.writer import export_model

    net = pointwise()
    export_model(net, tmp_path, transforms=[{"type": "Normalize"}])
    monkeypatch.setattr(verify, "label_agreement", lambda labels, others: 0.5)
    with pytest.raises(ExportError, match=r"in paddle: 50.0000% agree on noise"):
        verify.spot_check(net, tmp_path, {})
    written = yaml.safe_load((tmp_path / "deploy.yaml").read_text())
    assert written["liteseg"]["agreement"] == {"paddle": 0.5}
    with pytest.raises(ExportError, match="gave other labels at export"):
        Predictor(tmp_path)(np.zeros((8, 8, 3), np.uint8))
