"""Model repositories of Triton and of OpenVINO Model Server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.repository import require_name, write_model
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.predictor import Predictor

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("paddle2onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

X = np.random.default_rng(0).normal(0, 1, (2, 3, 24, 32)).astype("float32")
SCHEMA = Path(__file__).parents[1] / "data" / "ovms_config_schema.json"


@pytest.fixture(scope="module")
def repository(pointwise, tmp_path_factory):
    """A repository of two models: labels at any size, and probabilities of a fixed size."""
    folder = tmp_path_factory.mktemp("repository")
    classes = [ClassInfo(f"class {n}", (n, n, n)) for n in range(5)]
    more = {"street": {}, "soft": {"output_op": "softmax", "input_shape": [2, 3, 24, 32]}}
    for name, options in more.items():
        options = {"transforms": [], "classes": classes, "onnx_opset": 13, **options}
        export_model(pointwise(), folder / name, **options)
        for server in ("triton", "ovms"):
            write_model(folder / name, server)
    return folder


@pytest.mark.parametrize("name, output", [("street", "labels"), ("soft", "probabilities")])
def test_version_holds_the_exported_graph(repository, name, output):
    session = onnxruntime.InferenceSession(str(repository / name / "1" / "model.onnx"))
    [result] = session.run([output], {"x": X})
    assert np.array_equal(result, Predictor(repository / name, "onnxruntime", "cpu", 1).run(X))
    labels = (repository / name / "labels.txt").read_text()
    assert labels.splitlines() == [f"class {n}" for n in range(5)]


def test_openvino_knows_the_output_by_its_name(repository):
    openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
    model = openvino.Core().read_model(str(repository / "street" / "1" / "model.onnx"))
    assert {"labels"} <= model.outputs[0].get_names() and {"x"} <= model.inputs[0].get_names()


@pytest.mark.parametrize("name", ["street", "soft"])
def test_config_of_triton_is_its_message_and_fits_the_graph(repository, name):
    messages = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="extra serve")
    from google.protobuf import text_format

    text = (repository / name / "config.pbtxt").read_text()
    config = text_format.Parse(text, messages.ModelConfig())
    assert (config.name, config.backend) == (name, "onnxruntime")
    graph = onnx.load(repository / name / "1" / "model.onnx").graph
    for entry, tensor in ((config.input[0], graph.input[0]), (config.output[0], graph.output[0])):
        kind = tensor.type.tensor_type
        extents = [d.dim_value or -1 for d in kind.shape.dim]
        if config.max_batch_size:
            assert extents.pop(0) == -1  # Triton adds it
        # Paddle leaves extents open that it could know.
        fits = [given in (-1, own) for given, own in zip(extents, entry.dims)]
        assert entry.name == tensor.name and all(fits) and len(fits) == len(entry.dims)
        types = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.INT32: "TYPE_INT32"}
        assert messages.DataType.Name(entry.data_type) == types[kind.elem_type]
    assert config.output[0].label_filename == "labels.txt"
    assert bool(config.max_batch_size) == config.HasField("dynamic_batching") == (name == "street")


def test_config_of_ovms_fits_its_schema_and_keeps_other_models(repository):
    jsonschema = pytest.importorskip("jsonschema", reason="the extra dev is not installed")
    config = json.loads((repository / "config.json").read_text())
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(config, schema)
    entries = [entry["config"] for entry in config["model_config_list"]]
    assert entries == [{"name": n, "base_path": n} for n in ("street", "soft")]
    for entry in entries:
        assert (repository / entry["base_path"] / "1" / "model.onnx").is_file()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model_config_list": [{"config": {"base_path": "x"}}]}, schema)


def test_repository_errors_say_what_to_do(repository, pointwise, tmp_path):
    with pytest.raises(ExportError, match=r"its name becomes that of the model.* got 'my model'"):
        require_name(tmp_path / "my model")
    export_model(pointwise(), tmp_path / "plain", transforms=[])
    with pytest.raises(ExportError, match="has no ONNX file; export with --format onnx"):
        write_model(tmp_path / "plain", "triton")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ExportError, match="is not a config of OpenVINO Model Server"):
        write_model(tmp_path / "plain", "ovms")
