"""One ONNX file for every size, in ONNX Runtime and OpenVINO, against the network in eager mode."""

from __future__ import annotations

import sys
from importlib import metadata
from importlib.util import find_spec

import numpy as np
import paddle
import pytest
import yaml
from paddleseg.core.infer import aug_inference

from liteseg_plugin.cli.flags import shared
from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.onnx import convert
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.runtimes.base import PRECISIONS
from liteseg_plugin.runtimes.catalog import RUNTIMES

TRANSFORMS = [{"type": "Normalize"}]
OTHER_RUNTIMES = ("onnxruntime", "openvino")

installed = pytest.mark.skipif(
    any(find_spec(module) is None for module in ("paddle2onnx", "onnxruntime", "openvino")),
    reason="needs the extras onnx and openvino, which scripts/test.sh installs",
)


@pytest.fixture(scope="module")
def net(build_network, randomized):
    return randomized(build_network("T"), seed=5)


@pytest.fixture(scope="module")
def exported(net, made_once):
    """Return the folder of one export of logits, of any size, with an ONNX file."""
    settings = {"transforms": TRANSFORMS, "output_op": "none", "onnx_opset": 13}
    return made_once("one ONNX file", lambda folder: export_model(net, folder, **settings))


def batch(size_hw, number=1):
    values = np.random.default_rng(size_hw[0]).normal(size=(number, 3, *size_hw))
    return values.astype("float32")


def eager(net, images):
    net.eval()
    with paddle.no_grad():
        return net(paddle.to_tensor(images))[0].numpy()


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 2e-5 * np.abs(expected).max()
    assert (actual.argmax(1) == expected.argmax(1)).mean() >= 0.9999


@pytest.mark.slow
@installed
def test_one_file_is_exact_at_every_size(net, exported):
    predictors = [Predictor(exported, runtime=runtime) for runtime in OTHER_RUNTIMES]
    sizes = [(512, 1024), (720, 960), (360, 480), (713, 713), (1024, 2048), (97, 131), (32, 30)]
    for images in [*map(batch, sizes), batch((64, 96), number=3)]:
        expected = eager(net, images)
        for predictor in predictors:
            assert_close(predictor.run(images), expected)


@pytest.mark.slow
@installed
@pytest.mark.parametrize("arm_type", ["UAFM", "UAFM_ChAtten", "UAFMMobile_SpAtten"])
def test_other_fusion_blocks_convert(build_network, randomized, tmp_path, arm_type):
    net = randomized(build_network("T", arm_type=arm_type), seed=6)
    export_model(net, tmp_path, transforms=TRANSFORMS, output_op="none", onnx_opset=13)
    images = batch((96, 224))
    for runtime in OTHER_RUNTIMES:
        assert_close(Predictor(tmp_path, runtime=runtime).run(images), eager(net, images))


@installed
def test_evaluation_scale_and_argmax_are_in_the_file(net, tmp_path):
    export_model(net, tmp_path, transforms=TRANSFORMS, scale=0.5, onnx_opset=13)
    images = batch((210, 330))
    net.eval()
    with paddle.no_grad():
        labels, _ = aug_inference(net, paddle.to_tensor(images), [], scales=0.5)
    for runtime in OTHER_RUNTIMES:
        output = Predictor(tmp_path, runtime=runtime).run(images)
        assert (output == labels.numpy()[:, 0]).mean() >= 0.9999


@pytest.mark.slow
@installed
def test_converting_leaves_the_environment_alone(exported, tmp_path):
    def versions():
        return sorted((d.metadata["Name"], d.version) for d in metadata.distributions())

    before = versions()
    model = exported / yaml.safe_load((exported / "deploy.yaml").read_text())["Deploy"]["model"]
    convert(model, exported / "model.pdiparams", tmp_path / "again.onnx")
    assert versions() == before
    assert (tmp_path / "again.onnx").stat().st_size == (exported / "model.onnx").stat().st_size


@installed
def test_file_of_a_fixed_size_holds_only_what_is_used(net, exported, tmp_path):
    import onnx

    images = batch((64, 96))
    settings = {"transforms": TRANSFORMS, "output_op": "none", "onnx_opset": 13}
    export_model(net, tmp_path, input_shape=list(images.shape), **settings)
    model = onnx.load(tmp_path / "model.onnx")
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"Constant", "Identity", "BatchNormalization", "Shape", "Range", "Floor"}
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    assert [opset.domain for opset in model.opset_import] == [""]
    for runtime in OTHER_RUNTIMES:
        fixed, free = (Predictor(path, runtime=runtime) for path in (tmp_path, exported))
        assert_close(fixed.run(images), free.run(images))


@installed
def test_what_cannot_be_converted_is_one_error(exported, tmp_path):
    broken = tmp_path / "model.json"
    broken.write_text("{}")
    with pytest.raises(ExportError, match=r"paddle2onnx cannot convert .*model\.json"):
        convert(broken, exported / "model.pdiparams", tmp_path / "model.onnx")


@installed
@pytest.mark.parametrize("runtime", OTHER_RUNTIMES)
def test_truncated_file_is_refused(exported, tmp_path, runtime):
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(content[:-10])
    with pytest.raises(ExportError, match=r"model\.onnx is not the exported file"):
        Predictor(tmp_path, runtime=runtime)
    description = yaml.safe_load((tmp_path / "deploy.yaml").read_text())
    del description["liteseg"]["sha256"]
    (tmp_path / "deploy.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(ExportError, match=r"cannot load .*model\.onnx"):
        Predictor(tmp_path, runtime=runtime)


def test_missing_converter_says_which_extra(monkeypatch, pointwise, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r"pip install 'liteseg_plugin\[onnx\]'"):
        export_model(pointwise(), tmp_path, transforms=TRANSFORMS, onnx_opset=13)
    assert not list(tmp_path.iterdir())  # nothing half exported


@pytest.mark.parametrize(("runtime", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_missing_runtime_says_which_extra(monkeypatch, pointwise, tmp_path, runtime, extra):
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS)
    with pytest.raises(ExportError, match="export with --format onnx"):
        Predictor(tmp_path, runtime=runtime)
    description = yaml.safe_load((tmp_path / "deploy.yaml").read_text())
    description["liteseg"].update(onnx="model.pdiparams", sha256={})
    (tmp_path / "deploy.yaml").write_text(yaml.safe_dump(description))
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(ExportError, match=rf"not installed: pip install .*\[{extra}\]"):
        Predictor(tmp_path, runtime=runtime)


def test_commands_offer_every_runtime():
    assert set(shared.RUNTIMES) == set(RUNTIMES)
    assert shared.PRECISIONS == PRECISIONS


def test_unknown_runtime_lists_choices(pointwise, tmp_path):
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS)
    with pytest.raises(ValueError, match=r"choose one of .*'onnxruntime', 'openvino'"):
        Predictor(tmp_path, runtime="tflite")
