"""Graphs of plain operators, for engines of small boards, against the network in eager mode."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import numpy as np
import paddle
import pytest
from paddleseg.core.infer import aug_inference

from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.predictor import Predictor

TRANSFORMS = [{"type": "Normalize"}]

installed = pytest.mark.skipif(
    any(find_spec(module) is None for module in ("paddle2onnx", "onnxruntime", "openvino")),
    reason="needs the extras onnx and openvino, which scripts/test.sh installs",
)


def operators(folder):
    onnx = pytest.importorskip("onnx")
    return Counter(node.op_type for node in onnx.load(str(folder / "model.onnx")).graph.node)


def evaluated(net, images, scale):
    """Return labels (N, H, W) and logits (N, C, H, W) as PaddleSeg's evaluation computes them."""
    net.eval()
    with paddle.no_grad():
        labels, logits = aug_inference(net, paddle.to_tensor(images), [], scales=scale)
    return labels.numpy()[:, 0], logits.numpy()


def noise(shape):
    return np.random.default_rng(2).normal(size=shape).astype("float32")


@installed
def test_plain_graph_equals_eager(build_network, randomized, tmp_path):
    net = randomized(build_network("T"), seed=3)
    # The grid at stride 32 is 4 x 5: its rows divide into 4 bins, its columns do not.
    shape = (2, 3, 97, 131)
    export_model(
        *(net, tmp_path),
        **{"transforms": TRANSFORMS, "output_op": "none", "onnx_opset": 13},
        input_shape=shape,
        plain=True,
    )
    assert operators(tmp_path) == {
        **{"Conv": 53, "Relu": 40, "Sigmoid": 3, "Add": 5, "Mul": 6, "Sub": 3, "ReduceMax": 6},
        # Of the pyramid: 1 bin; 2 and 4 bins, in rows at once and in columns one by one.
        **{"GlobalAveragePool": 1, "AveragePool": 3 + 3 + 5, "Slice": 6, "Concat": 6 + 3 + 2},
        "Resize": 6,
    }
    images = noise(shape)
    _, expected = evaluated(net, images, 1.0)
    for runtime in ("paddle", "onnxruntime", "openvino"):
        output = Predictor(tmp_path, runtime=runtime).run(images)
        assert np.abs(output - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.slow
@installed
def test_plain_graph_has_evaluation_scale_and_argmax(build_network, randomized, tmp_path):
    net = randomized(build_network("T", arm_type="UAFM_ChAtten", resize_mode="nearest"), seed=4)
    shape = (1, 3, 210, 330)
    settings = {"input_shape": shape, "scale": 0.5, "onnx_opset": 13, "plain": True}
    export_model(net, tmp_path, transforms=TRANSFORMS, **settings)
    found = operators(tmp_path)
    assert found["ArgMax"] == 1
    assert found["Resize"] == 8  # of the image, of three levels and two fusions, and back twice
    assert {"MatMul", "Shape", "Gather"}.isdisjoint(found)
    images = noise(shape)
    labels, _ = evaluated(net, images, 0.5)
    for runtime in ("onnxruntime", "openvino"):
        output = Predictor(tmp_path, runtime=runtime).run(images)
        assert (output == labels).mean() >= 0.9999


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"input_shape": [1, 3, 64, 64]}, "add --format onnx"),
        ({"onnx_opset": 13}, "add --input_shape"),
        ({"onnx_opset": 13, "input_shape": [None, 3, 64, 64]}, "add --input_shape"),
    ],
)
def test_plain_graph_needs_an_onnx_file_of_a_fixed_size(pointwise, tmp_path, settings, reason):
    with pytest.raises(ExportError, match=reason):
        export_model(pointwise(), tmp_path, transforms=TRANSFORMS, plain=True, **settings)


class Projection(paddle.nn.Layer):
    """A network with a matrix product of its own."""

    def forward(self, x):
        return [paddle.matmul(paddle.ones([5, 3]), x.flatten(2)).reshape([1, 5, *x.shape[2:]])]


@installed
def test_plain_graph_refuses_other_matrix_products(tmp_path):
    settings = {"input_shape": [1, 3, 8, 8], "onnx_opset": 13, "plain": True}
    with pytest.raises(ExportError, match=r"must not have: MatMul; .*without --graph plain"):
        export_model(Projection(), tmp_path, transforms=TRANSFORMS, **settings)
