"""Rewritten ONNX operators against the original ones, in ONNX Runtime."""

from __future__ import annotations

from importlib.util import find_spec

import cv2
import numpy as np
import paddle
import pytest
from paddle import nn
from pictures import write_images

from liteseg_plugin.export import onnx_rewriting
from liteseg_plugin.export.quantize import quantize
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import INT8_FILE, ONNX_FILE
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.runtimes.onnxruntime import create_session

pytestmark = pytest.mark.skipif(
    find_spec("paddle2onnx") is None, reason="needs the extra onnx, which scripts/test.sh installs"
)


def graph(kind, shape, **attributes):
    """Return a model of one operator behind a ReLU, with the shapes of its tensors."""
    from onnx import TensorProto, helper, shape_inference

    nodes = [
        helper.make_node("Relu", ["x"], ["feature"]),
        helper.make_node(kind, ["feature"], ["y"], "operator", **attributes),
    ]
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, extents)
        for name, extents in (("x", shape), ("y", [None] * 4))
    ]
    made = helper.make_graph(nodes, "graph", tensors[:1], tensors[1:])
    opset = helper.make_opsetid("", 13)
    return shape_inference.infer_shapes(
        helper.make_model(made, opset_imports=[opset], ir_version=8)
    )


def kinds(model):
    return [node.op_type for node in model.graph.node]


def outputs(model, shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    return create_session(model).run(None, {"x": x})[0]


@pytest.mark.parametrize("size_hw", [(8, 12), (7, 13), (1, 2)])
@pytest.mark.parametrize(
    ("kernel", "strides", "pads"),
    [([3, 3], [2, 2], [1, 1, 1, 1]), ([3, 2], [1, 2], [2, 0, 0, 1]), ([1, 1], [1, 1], [0] * 4)],
)
def test_pool_as_convolution(size_hw, kernel, strides, pads):
    shape = [2, 4, *size_hw]
    model = graph("AveragePool", shape, kernel_shape=kernel, strides=strides, pads=pads)
    expected = outputs(model, shape)
    [(convolution, product)] = onnx_rewriting.pools_as_convolutions(model, {"feature"})
    assert kinds(model) == ["Relu", "Conv", "Mul"]
    assert (convolution, product) == tuple(model.graph.node[1:])
    np.testing.assert_allclose(outputs(model, shape), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "features", "attributes"),
    [
        ([1, 4, None, None], {"feature"}, {}),
        ([1, 4, 8, 8], {"another"}, {}),
        ([1, 4, 8, 8], {"feature"}, {"count_include_pad": 1}),
        ([1, 4, 8, 8], {"feature"}, {"ceil_mode": 1}),
    ],
)
def test_other_pools_stay(shape, features, attributes):
    geometry = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    model = graph("AveragePool", shape, **geometry, **attributes)
    assert onnx_rewriting.pools_as_convolutions(model, features) == []
    assert kinds(model) == ["Relu", "AveragePool"]


@pytest.mark.parametrize("shape", [[2, 64, 5, 7], [1, 8, 4, 4]])
def test_maxima_in_groups(shape):
    for declared in (shape, [None, shape[1], None, None]):
        model = graph("ReduceMax", declared, axes=[1], keepdims=1)
        expected = outputs(model, shape)
        onnx_rewriting.maxima_in_groups(model)
        assert kinds(model) == ["Relu", *["Reshape", "ReduceMax"] * 2]
        np.testing.assert_array_equal(outputs(model, shape), expected)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ([1, 20, 4, 4], {"axes": [1], "keepdims": 1}),
        ([1, 64, 4, 4], {"axes": [1], "keepdims": 0}),
        ([1, 64, 4, 4], {"axes": [2, 3], "keepdims": 1}),
        ([1, 64], {"axes": [1], "keepdims": 1}),
    ],
)
def test_other_maxima_stay(shape, attributes):
    model = graph("ReduceMax", shape, **attributes)
    onnx_rewriting.maxima_in_groups(model)
    assert kinds(model) == ["Relu", "ReduceMax"]


class Pooling(nn.Layer):
    """A convolution and a pool, as in STDC's blocks, and one that makes scores."""

    def __init__(self):
        super().__init__()
        paddle.seed(1)
        self.feature, self.scores = nn.Conv2D(3, 8, 3, padding=1), nn.Conv2D(8, 5, 1)

    def forward(self, x):
        feature = nn.functional.relu(self.feature(x))
        return [self.scores(nn.functional.avg_pool2d(feature, 3, 2, 1))]


def test_quantised_file_of_a_fixed_size_pools_in_int8(tmp_path):
    import onnx

    exported = tmp_path / "exported"
    arguments = {"transforms": [{"type": "Normalize"}], "output_op": "none", "onnx_opset": 13}
    export_model(Pooling(), exported, input_shape=(1, 3, 97, 131), **arguments)
    images = write_images(tmp_path / "images", 2, size_hw=(97, 131))
    quantize(exported, images, tolerance=1)
    assert "AveragePool" in kinds(onnx.load(str(exported / ONNX_FILE)))
    model = onnx.load(str(exported / INT8_FILE))
    makers = {output: node for node in model.graph.node for output in node.output}
    [product] = [node for node in model.graph.node if node.op_type == "Mul"]
    assert {makers[name].op_type for name in product.input} == {"DequantizeLinear"}
    assert "AveragePool" not in kinds(model)

    x = Predictor(exported, "onnxruntime").preprocess(cv2.imread(str(images[0])))
    floats, integers = (
        create_session(str(exported / name)).run(None, {"x": x})[0]
        for name in (ONNX_FILE, INT8_FILE)
    )
    # At the border, too, where means are of fewer pixels.
    assert np.abs(integers - floats).max() < 0.02 * np.ptp(floats)
