"""Quantised exports, in ONNX Runtime and OpenVINO, against the float32 ones."""

from __future__ import annotations

import json
import weakref
from importlib.util import find_spec

import cv2
import numpy as np
import paddle
import pytest
import yaml
from paddleseg.models.backbones.stdcnet import STDCNet
from pictures import write_images

from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.export.quantization_report import QuantizationReport
from liteseg_plugin.export.quantize import quantize
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import (
    DEPLOY_FILE,
    INT8_FILE,
    INT8_REPORT_FILE,
    PARAMS_FILE,
    ExportedModel,
)
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.models import PPLiteSeg

pytestmark = pytest.mark.skipif(
    any(find_spec(module) is None for module in ("paddle2onnx", "onnxruntime", "openvino")),
    reason="needs the extras onnx and openvino, which scripts/test.sh installs",
)
TRANSFORMS = [{"type": "Normalize"}]


def quantized_once(made_once, name, build):
    """Return a folder with both models, of any size, the report, and the calibration images."""

    def make(folder):
        export_model(build(), folder / "model", transforms=TRANSFORMS, onnx_opset=13)
        images = write_images(folder / "images", 3)
        [report] = quantize(folder / "model", images, tolerance=0.2, measured_images=1)
        (folder / "returned.json").write_text(json.dumps(report.to_json()))

    folder = made_once(name, make)
    document = json.loads((folder / "returned.json").read_text())
    images = sorted((folder / "images").iterdir())
    return folder / "model", QuantizationReport.from_json(document), images


@pytest.fixture(scope="module")
def quantized(randomized, made_once):
    """PP-LiteSeg-T with half of the channels and blocks. Each layer is quantised alone, too."""

    def build():
        backbone = STDCNet(base=32, layers=[1, 1, 1])
        arms = {"arm_out_chs": [16, 32, 64], "seg_head_inter_chs": [16, 32, 32]}
        return randomized(PPLiteSeg(19, backbone, cm_out_ch=64, **arms), seed=1)

    return quantized_once(made_once, "quantized", build)


@pytest.fixture(scope="module")
def quantized_few(randomized, made_once):
    """Six convolutions, for what is not about PP-LiteSeg."""

    def build():
        channels = (3, 8, 8, 8, 8, 8, 5)
        layers = [paddle.nn.Conv2D(*pair, 3, padding=1) for pair in zip(channels, channels[1:])]
        return randomized(paddle.nn.Sequential(*layers), seed=1)

    return quantized_once(made_once, "quantized_few", build)


def copy_of(folder, target):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.slow
def test_quantized_model_labels_nearly_as_float32_in_every_runtime(quantized):
    folder, report, images = quantized
    pictures = [cv2.imread(str(path)) for path in images]
    pictures.append(cv2.resize(pictures[0], (130, 97)))  # another size than those it was made with
    floats = [Predictor(folder, "onnxruntime")(picture) for picture in pictures]
    for runtime in ("onnxruntime", "openvino"):
        predictor = Predictor(folder, runtime, precision="int8")
        labels = [predictor(picture) for picture in pictures]
        agreements = [(a == b).mean() for a, b in zip(labels, floats)]
        assert min(agreements) > 0.75, (runtime, agreements)
        assert min(agreements) < 1  # it is another model
    assert report.agreement > 0.75


@pytest.mark.slow
def test_bf16_in_openvino_depends_on_the_image_alone(quantized):
    """Where the size is open, OpenVINO would compute the first image of a size differently."""
    folder, _, images = quantized
    predictor = Predictor(folder, "openvino", precision="bf16")
    first, *_ = [cv2.imread(str(path)) for path in images]
    labels = [predictor(picture) for picture in (first, first, first[:40, :60], first)]
    np.testing.assert_array_equal(labels[1], labels[0])
    np.testing.assert_array_equal(labels[3], labels[0])


@pytest.mark.slow
def test_quantized_model_is_smaller_and_has_a_scale_for_each_channel(quantized):
    import onnx
    from onnx import numpy_helper

    folder, report, _ = quantized
    onnx.checker.check_model(str(folder / INT8_FILE), full_check=True)
    assert (folder / INT8_FILE).stat().st_size < 0.4 * (folder / "model.onnx").stat().st_size
    model = onnx.load(str(folder / INT8_FILE))
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    scales = [
        constants[node.input[1]].size
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and constants.get(node.input[0], np.empty(0)).ndim == 4
    ]
    in_int8 = [layer for layer in report.layers if layer.precision == "int8"]
    assert sorted(scales) == sorted(layer.weight_shape[0] for layer in in_int8)


@pytest.mark.slow
def test_report_says_what_each_layer_changes(quantized):
    folder, report, _ = quantized
    written = json.loads((folder / INT8_REPORT_FILE).read_text())
    assert QuantizationReport.from_json(written) == report
    assert (written["images"], written["measured_images"]) == (3, 1)
    # All convolutions but those of the fusion blocks' attention, of one or two channels.
    assert len(report.layers) == 29
    for layer in report.layers:
        assert layer.weight_shape[0] > 2
        assert 0 <= layer.changed_alone <= 1
        assert (layer.precision == "int8") == (layer.changed_alone <= 0.2)


class Joined(paddle.nn.Layer):
    """Two convolutions whose ranges differ, joined, and one that makes scores."""

    def __init__(self):
        super().__init__()
        paddle.seed(1)
        self.large, self.small = (paddle.nn.Conv2D(3, 4, 3, padding=1) for _ in range(2))
        self.small.weight.set_value(self.large.weight / 50)
        self.scores = paddle.nn.Conv2D(8, 5, 1)

    def forward(self, x):
        parts = [paddle.nn.functional.relu(part(x)) for part in (self.large, self.small)]
        return [self.scores(paddle.concat(parts, axis=1))]


def test_what_is_joined_has_one_scale(tmp_path):
    import onnx
    from onnx import numpy_helper

    export_model(Joined(), tmp_path / "exported", transforms=TRANSFORMS, onnx_opset=13)
    quantize(tmp_path / "exported", write_images(tmp_path / "images", 2), tolerance=1)
    graph = onnx.load(str(tmp_path / "exported" / INT8_FILE)).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    [join] = [node for node in graph.node if node.op_type == "Concat"]
    [behind] = [node for node in graph.node if join.output[0] in node.input]
    parts = [makers[name] for name in join.input]
    assert [node.op_type for node in (*parts, behind)] == [
        *["DequantizeLinear"] * 2,
        "QuantizeLinear",
    ]
    assert len({float(constants[node.input[1]]) for node in (*parts, behind)}) == 1


class JoinedWithSigned(Joined):
    def forward(self, x):
        return [
            self.scores(paddle.concat([paddle.nn.functional.relu(self.large(x)), self.small(x)], 1))
        ]


def test_relu_beside_signed_features_stays(tmp_path):
    """Where both had one range, the quantiser would take the ReLU for part of a scale."""
    exported = tmp_path / "exported"
    net = JoinedWithSigned()
    net.small.weight.set_value(-net.large.weight)
    settings = {"transforms": TRANSFORMS, "output_op": "none", "onnx_opset": 13}
    export_model(net, exported, **settings)
    images = write_images(tmp_path / "images", 2)
    quantize(exported, images, tolerance=1)
    x = Predictor(exported, "onnxruntime").preprocess(cv2.imread(str(images[0])))
    floats, integers = (
        Predictor(exported, "onnxruntime", precision=precision).run(x)
        for precision in ("fp32", "int8")
    )
    assert np.abs(integers - floats).max() < 0.03 * np.ptp(floats)


def test_export_of_a_fixed_batch(pointwise, tmp_path):
    exported = tmp_path / "exported"
    settings = {"transforms": TRANSFORMS, "onnx_opset": 13, "input_shape": (2, 3, 64, 96)}
    export_model(pointwise(), exported, **settings)
    images = write_images(tmp_path / "images", 2, size_hw=(64, 96))
    [report] = quantize(exported, images, tolerance=1)
    assert report.agreement > 0.9
    assert Predictor(exported, "onnxruntime", precision="int8")(images[0]).shape == (64, 96)


def test_network_of_few_channels_has_nothing_to_quantise(tmp_path):
    export_model(
        paddle.nn.Conv2D(3, 2, 1), tmp_path / "exported", transforms=TRANSFORMS, onnx_opset=13
    )
    with pytest.raises(ExportError, match="no layer that INT8 makes faster"):
        quantize(tmp_path / "exported", write_images(tmp_path / "images", 1))


def test_layers_that_hurt_stay_in_float(quantized_few, tmp_path):
    folder, report, images = quantized_few
    changes = sorted(layer.changed_alone for layer in report.layers)
    tolerance = changes[len(changes) // 2]
    assert tolerance < changes[-1]
    [stricter] = quantize(
        copy_of(folder, tmp_path / "copy"), images, tolerance=tolerance, measured_images=1
    )
    kept = [layer for layer in stricter.layers if layer.precision == "fp32"]
    assert len(kept) == sum(change > tolerance for change in changes)
    assert stricter.agreement > stricter.agreement_all


def test_new_export_takes_the_quantized_model_of_the_old_one_away(
    pointwise, quantized_few, tmp_path, capsys
):
    folder = copy_of(quantized_few[0], tmp_path / "copy")
    assert ExportedModel.read(folder).onnx_int8 is not None
    (folder / "notes.txt").write_text("mine")
    capsys.readouterr()
    export_model(pointwise(), folder, transforms=TRANSFORMS)
    said = capsys.readouterr().out
    assert f"Removed from {folder}: model.onnx, {INT8_FILE}, {INT8_REPORT_FILE}, which" in said
    left = {path.name for path in folder.iterdir()}
    assert left == {ExportedModel.read(folder).model.name, PARAMS_FILE, DEPLOY_FILE, "notes.txt"}
    with pytest.raises(ExportError, match="has no ONNX file"):
        Predictor(folder, "onnxruntime", precision="int8")


def test_spoilt_quantized_model_is_refused(quantized_few, tmp_path):
    folder = copy_of(quantized_few[0], tmp_path / "copy")
    with (folder / INT8_FILE).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ExportError, match=rf"{INT8_FILE} is not the exported file"):
        Predictor(folder, "onnxruntime", precision="int8")


@pytest.fixture
def small(pointwise, tmp_path):
    export_model(pointwise(), tmp_path / "small", transforms=TRANSFORMS, onnx_opset=13)
    return tmp_path / "small"


def test_calibration_without_images(small):
    with pytest.raises(DataError, match="calibration needs images, but there are none"):
        quantize(small, [])


def test_calibration_image_that_is_none(small, tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no picture")
    with pytest.raises(DataError, match=r"cannot read image .*text\.png"):
        quantize(small, [path])


def test_calibration_image_of_another_size(pointwise, tmp_path):
    shape = [1, 3, 24, 32]
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS, input_shape=shape, onnx_opset=13)
    with pytest.raises(DataError, match="the export takes 1x3x24x32, not 1x3x64x96"):
        quantize(tmp_path, write_images(tmp_path, 1))


def test_images_are_read_one_at_a_time(small, tmp_path, monkeypatch):
    alive, most = set(), []
    preprocess = Predictor.preprocess

    def watched(self, image):
        batch = preprocess(self, image)
        alive.add(id(batch))
        weakref.finalize(batch, alive.discard, id(batch))
        most.append(len(alive))
        return batch

    monkeypatch.setattr(Predictor, "preprocess", watched)
    quantize(small, write_images(tmp_path, 12), tolerance=1, measured_images=2)
    assert len(most) == 12 + 2
    assert max(most) <= 2 + 1  # those that layers are measured on, and the one before


def test_tolerance_that_is_no_share(small, tmp_path):
    with pytest.raises(ValueError, match=r"tolerance must be a share of labels from 0 to 1, got 5"):
        quantize(small, write_images(tmp_path, 1), tolerance=5)


def test_quantizing_needs_onnx_or_ncnn(pointwise, tmp_path):
    export_model(pointwise(), tmp_path / "paddle", transforms=TRANSFORMS)
    with pytest.raises(ExportError, match="has neither an ONNX nor an ncnn file; export with"):
        quantize(tmp_path / "paddle", write_images(tmp_path, 1))


def test_precision_that_a_runtime_has_not_lists_those_it_has(small):
    with pytest.raises(ExportError, match=r"onnxruntime does not compute in bf16 on cpu"):
        Predictor(small, "onnxruntime", precision="bf16")
    with pytest.raises(ExportError, match="has no INT8 model; create it with liteseg quantize"):
        Predictor(small, "openvino", precision="int8")
    with pytest.raises(ValueError, match=r"unknown precision 'fp8'; choose one of"):
        Predictor(small, "openvino", precision="fp8")


def test_mention_follows_the_files(quantized_few):
    own = yaml.safe_load((quantized_few[0] / DEPLOY_FILE).read_text())["liteseg"]
    assert own["onnx_int8"] == INT8_FILE
    assert len(own["sha256"][INT8_FILE]) == 64
