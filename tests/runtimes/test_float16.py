"""float16 for GPUs, run on the CPU by ONNX Runtime."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest

from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.runtimes.float16 import half_precision

pytestmark = pytest.mark.skipif(
    any(package not in {d.metadata["Name"] for d in metadata.distributions()}
        for package in ("paddle2onnx", "onnxruntime")),
    reason="needs the extra onnx, which scripts/test.sh installs",
)  # fmt: skip


def session(model):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.mark.slow
def test_labels_are_those_of_float32_at_every_size(build_network, randomized, tmp_path):
    import onnx

    net = randomized(build_network("T", num_classes=7), seed=5)
    export_model(net, tmp_path, transforms=[{"type": "Normalize"}], onnx_opset=13)
    path = tmp_path / "model.onnx"
    model = half_precision(path)
    onnx.checker.check_model(model, full_check=True)
    exact, half = session(path.read_bytes()), session(model)
    for ours, theirs in zip(half.get_inputs() + half.get_outputs(),
                            exact.get_inputs() + exact.get_outputs()):  # fmt: skip
        assert (ours.name, ours.type, ours.shape) == (theirs.name, theirs.type, theirs.shape)
    # Weights become float16 when the file is loaded or folded: these are constants of the graph.
    convolutions = {node.name: node for node in model.graph.node if node.op_type == "Conv"}
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    assert {types[node.output[0]] for node in convolutions.values()} == {onnx.TensorProto.FLOAT16}
    for shape in [(1, 3, 96, 128), (2, 3, 97, 131), (1, 3, 64, 2400)]:
        images = np.random.default_rng(3).normal(size=shape).astype("float32")
        labels, expected = (s.run(None, {"x": images})[0] for s in (half, exact))
        assert labels.shape == expected.shape
        assert len(np.unique(expected)) > 2
        assert (labels == expected).mean() >= 0.99


def test_positions_stay_exact(tmp_path):
    """Whether a column is odd: float16 has no odd number between 2048 and 4096."""
    from onnx import TensorProto, helper, numpy_helper, save

    def node(kind, inputs, output, **attributes):
        return helper.make_node(kind, inputs, [output], **attributes)

    nodes = [
        node("Shape", ["x"], "shape"),
        node("Gather", ["shape", "three"], "width"),
        node("Range", ["zero", "width", "one"], "columns"),
        node("Cast", ["columns"], "positions", to=TensorProto.FLOAT),
        node("Mul", ["positions", "half"], "halves"),
        node("Floor", ["halves"], "whole"),
        node("Sub", ["halves", "whole"], "odd"),
        node("Mul", ["x", "odd"], "y"),
    ]
    constants = [
        numpy_helper.from_array(np.array(value, kind), name)
        for name, value, kind in (
            ("zero", 0, "int64"), ("one", 1, "int64"), ("three", 3, "int64"),
            ("half", 0.5, "float32"),
        )
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "parity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    save(model, tmp_path / "parity.onnx")
    images = np.full((1, 1, 2, 4000), 2, "float32")
    expected = np.tile(np.float32([0, 1]), 2000)
    result = session(half_precision(tmp_path / "parity.onnx")).run(None, {"x": images})[0]
    np.testing.assert_array_equal(result, np.broadcast_to(expected, images.shape))


def test_what_is_no_onnx_file_is_said(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"model\.onnx is not an ONNX file"):
        half_precision(tmp_path / "model.onnx")
