"""TensorRT up to the library's door: polygraphy drives a stand-in that runs ONNX Runtime."""

from __future__ import annotations

import ctypes
import enum
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml

from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.quantize_onnx import OnnxQuantizer
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import INT8_FILE, ExportedModel
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.runtimes import tensorrt as door
from liteseg_plugin.runtimes.catalog import create
from liteseg_plugin.runtimes.tensorrt_network import network_model, symmetric

pytestmark = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("paddle2onnx", "onnxruntime", "polygraphy")),
    reason="needs the extra onnx, which scripts/test.sh installs",
)

OPEN = (None, 3, None, None)
SHAPE = (1, 3, 96, 128)


@pytest.fixture(scope="module")
def exported(build_network, randomized, tmp_path_factory):
    """Return the folder of an export of labels, of any size, with an ONNX file."""
    folder = tmp_path_factory.mktemp("tensorrt")
    net = randomized(build_network("T", num_classes=7), seed=5)
    export_model(net, folder, transforms=[{"type": "Normalize"}], onnx_opset=13)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return an export of a network that takes no time to fold: one convolution, and labels."""
    from onnx import TensorProto, helper, numpy_helper, save

    weight = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype("float32")
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["scores"], pads=[1, 1, 1, 1]),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.INT32),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("labels", TensorProto.INT32, ["N", "H", "W"])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    folder = tmp_path_factory.mktemp("small")
    save(model, folder / "model.onnx")
    return SimpleNamespace(
        model=folder / "model.json", onnx=folder / "model.onnx", onnx_int8=None, input_shape=OPEN
    )


def batch(shape=SHAPE):
    return np.random.default_rng(3).normal(size=shape).astype("float32")


def run(model, images):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


class Flag(enum.IntEnum):
    """Stands for all of TensorRT's enumerations of flags."""

    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1
    FP16 = 2
    INT8 = 3
    TF32 = 4


@pytest.fixture
def library(monkeypatch, tmp_path):
    """Stand in for the package tensorrt, on a machine with a GPU, and record what it is asked.

    Its engines are the ONNX files that it was given.
    """
    # One module for all tests: polygraphy holds on to the first that it sees.
    fake = sys.modules.setdefault("tensorrt_for_tests", ModuleType("tensorrt"))
    record = SimpleNamespace(module=fake, builds=[], deserialized=[], error=None, loaded=[])

    class Network:
        def __init__(self, flags):
            self.flags = flags
            self.num_inputs = 1

        def get_input(self, _):
            return SimpleNamespace(name="x", shape=SHAPE, dtype="float32", is_shape_tensor=False)

        def __iter__(self):
            return iter(())

    class Parser:
        num_errors = 0

        def __init__(self, network, logger):
            self.network = network

        def parse(self, content):
            self.network.onnx = content
            return True

    class Profile:
        def set_shape(self, *shapes):
            self.shapes = shapes

    class Config:
        DLA_core = -1
        default_device_type = None
        num_optimization_profiles = 1

        def __init__(self):
            self.flags, self.profiles = {Flag.TF32}, []
            self.set_flag, self.clear_flag = self.flags.add, self.flags.discard
            self.get_flag = self.flags.__contains__
            self.add_optimization_profile = self.profiles.append

    class Builder:
        def __init__(self, logger):
            self.logger = logger
            self.create_builder_config, self.create_optimization_profile = Config, Profile

        def create_network(self, flags):
            return Network(flags)

        def build_serialized_network(self, network, config):
            if record.error:
                self.logger.log(fake.Logger.ERROR, record.error)
                return None
            record.builds.append(
                SimpleNamespace(
                    onnx=network.onnx,
                    strongly_typed=bool(network.flags >> Flag.STRONGLY_TYPED & 1),
                    flags={flag.name for flag in config.flags},
                    profiles=[profile.shapes for profile in config.profiles],
                )
            )
            return network.onnx

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, content):
            record.deserialized.append(content)
            return SimpleNamespace(onnx=content) if content.startswith(b"\x08") else None

    class Runner:
        def __init__(self, engine):
            self.engine = engine
            record.loaded.append(self)

        def activate(self):
            self.is_active = True

        def deactivate(self):
            self.is_active = False

        def get_input_metadata(self):
            return {"x": None}

        def infer(self, feed):
            return {"labels": run(self.engine.onnx, feed["x"])}

    fake.__version__ = "10.3.0"
    fake.ILogger = type("ILogger", (), {})
    fake.Logger = enum.Enum("Logger", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
    fake.NetworkDefinitionCreationFlag = fake.BuilderFlag = Flag
    fake.LayerType = enum.Enum("LayerType", "QUANTIZE DEQUANTIZE SHAPE")
    fake.DeviceType = enum.Enum("DeviceType", "GPU DLA")
    fake.init_libnvinfer_plugins = lambda logger, namespace: True
    fake.Builder, fake.OnnxParser, fake.Runtime = Builder, Parser, Runtime
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr("polygraphy.backend.trt.TrtRunner", Runner)
    monkeypatch.setattr(door, "_gpu", lambda: "Test GPU, compute capability 9.0")
    monkeypatch.setenv("LITESEG_CACHE", str(tmp_path / "cache"))
    return record


def engine(export, precision="fp32"):
    return door.TensorRt(export, "gpu", 1, precision)


@pytest.mark.slow
def test_predictor_gives_the_labels_of_the_network(library, exported):
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    expected = Predictor(exported, runtime="onnxruntime")(image)
    assert len(np.unique(expected)) > 2
    mask = Predictor(exported, runtime="tensorrt", device="gpu")(image)
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("shape", [(2, 3, 97, 131), (1, 3, 64, 2400)])
def test_network_is_of_fixed_shapes_and_gives_the_same_labels(exported, shape):
    import onnx

    model = network_model(exported / "model.onnx", shape, "fp32", strongly_typed=True)
    onnx.checker.check_model(model, full_check=True)
    extents = [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    assert extents == [shape[0], *shape[2:]]
    left = {node.op_type for node in model.graph.node}
    assert not left & {"Shape", "Range", "Floor", "Less", "Greater", "Constant"}
    images = batch(shape)
    np.testing.assert_array_equal(
        run(model, images), run((exported / "model.onnx").read_bytes(), images)
    )


def test_network_of_another_shape_than_the_exports_is_refused(exported):
    with pytest.raises(ExportError, match=r"exported for \[0, 3, 0, 0\].*\(1, 4, 96, 128\)"):
        network_model(exported / "model.onnx", (1, 4, 96, 128), "fp32", True)


@pytest.mark.parametrize(
    ("version", "precision", "strongly_typed", "flags"),
    [
        ("8.6.1", "fp32", False, set()),
        ("8.6.1", "fp16", False, {"FP16", "TF32"}),
        ("10.3.0", "fp32", True, set()),
        ("10.3.0", "fp16", True, {"TF32"}),
        ("11.4.0.106", "fp16", True, {"TF32"}),
    ],
)
def test_types_are_said_by_flags_before_10_and_by_the_network_after(
    library, small, version, precision, strongly_typed, flags
):
    library.module.__version__ = version
    labels = engine(small, precision).run(batch())
    [build] = library.builds
    assert (build.strongly_typed, build.flags) == (strongly_typed, flags)
    assert build.profiles == [("x", SHAPE, SHAPE, SHAPE)]
    halves = precision == "fp16" and strongly_typed
    import onnx

    model = onnx.load_from_string(build.onnx)
    weights = {t.data_type for t in model.graph.initializer if len(t.dims) == 4}
    assert weights == {onnx.TensorProto.FLOAT16 if halves else onnx.TensorProto.FLOAT}
    expected = run(small.onnx.read_bytes(), batch())
    assert (labels == expected).mean() >= (0.99 if halves else 1)


@pytest.mark.slow
def test_int8_is_the_quantised_file_with_symmetric_ranges(
    library, build_network, randomized, tmp_path
):
    import onnx

    # Of a fixed size: its pools are quantised, too, and their border is a constant of uint8.
    net = randomized(build_network("T", num_classes=7), seed=5)
    arguments = {"transforms": [{"type": "Normalize"}], "input_shape": SHAPE, "onnx_opset": 13}
    exported = ExportedModel.read(export_model(net, tmp_path / "exported", **arguments))
    quantizer = OnnxQuantizer(exported, [batch()], tmp_path)
    quantizer.write([*quantizer.weight_shapes], tmp_path)
    quantised = tmp_path / INT8_FILE
    kinds = [node.op_type for node in onnx.load(str(quantised)).graph.node]
    assert kinds.count("Relu") == 3  # of the fusion blocks' attention, which stays in float32
    assert kinds.count("Pad") == 1  # a fourth channel of the image
    assert "AveragePool" not in kinds
    source = SimpleNamespace(
        input_shape=OPEN,
        model=exported.model,
        onnx=exported.onnx,
        onnx_int8=quantised,
    )
    labels = door.TensorRt(source, "gpu", 1, "int8").run(batch())
    [build] = library.builds
    model = onnx.load_from_string(build.onnx)
    assert "Pad" not in [node.op_type for node in model.graph.node]
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = {"QuantizeLinear": 0, "DequantizeLinear": 0}
    for node in model.graph.node:
        if node.op_type in pairs:
            pairs[node.op_type] += 1
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
    assert pairs["QuantizeLinear"] == pairs["DequantizeLinear"] > 100
    assert build.strongly_typed
    assert (labels == run(quantised.read_bytes(), batch())).mean() > 0.9

    library.module.__version__ = "8.6.1"
    door.TensorRt(source, "gpu", 1, "int8").run(batch())
    assert library.builds[-1].flags == {"INT8", "TF32"}


def test_symmetric_ranges_hold_the_old_ones_and_weights_their_values():
    from onnx import TensorProto, helper, numpy_helper

    def tensor(name, values, dtype):
        return numpy_helper.from_array(np.array(values, dtype), name)

    constants = [
        tensor("scale", 0.5, "float32"),
        tensor("zero", 55, "uint8"),  # from -27.5 to 100
        tensor("weight", [[[[2]]], [[[-3]]]], "int8"),
        tensor("weight_scale", [0.25, 2], "float32"),
        tensor("weight_zero", [0, 0], "int8"),
        tensor("bias", [4, -8], "int32"),
        tensor("bias_scale", [0.125, 1], "float32"),
        tensor("bias_zero", [0, 0], "int32"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node(
            "DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], axis=0
        ),
        helper.make_node("DequantizeLinear", ["bias", "bias_scale", "bias_zero"], ["b"], axis=0),
        helper.make_node("Conv", ["d", "w", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 1, 3])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model = symmetric(model)
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    [quantise] = [n for n in model.graph.node if n.input[0] == "x"]
    assert values[quantise.input[1]] == pytest.approx(100 / 127)
    assert values["b"].tolist() == [0.5, -8]
    weight = next(v for v in values.values() if v.ndim == 4)
    assert weight.ravel().tolist() == [0.5, -6]
    images = np.array([[[[0, 100, -27.5]]]], "float32")
    step = 100 / 127
    seen = np.round(images / step) * step
    expected = np.concatenate([seen * 0.5 + 0.5, seen * -6 - 8], axis=1)
    np.testing.assert_allclose(run(model, images), expected, rtol=1e-5)


def test_engine_is_built_once_and_kept_by_all_that_it_depends_on(
    library, small, monkeypatch, tmp_path
):
    images = batch()
    first = engine(small).run(images)
    np.testing.assert_array_equal(engine(small).run(images), first)
    assert len(library.builds) == 1
    cache = tmp_path / "cache" / "engines"
    [file] = cache.glob("*.engine")
    assert file.read_bytes() == library.builds[0].onnx
    assert sorted(f.suffix for f in cache.iterdir()) == [".engine", ".json"]  # nothing half written
    facts = yaml.safe_load(file.with_suffix(".json").read_text())
    assert facts["shape"] == list(SHAPE)
    assert facts["gpu"] == "Test GPU, compute capability 9.0"

    engine(small).run(batch((1, 3, 64, 64)))
    engine(small, "fp16").run(images)
    library.module.__version__ = "10.4.0"
    engine(small).run(images)
    monkeypatch.setattr(door, "_gpu", lambda: "Test GPU, compute capability 8.6")
    engine(small).run(images)
    monkeypatch.setattr(door, "__version__", "999")
    engine(small).run(images)
    assert len(library.builds) == len(list(cache.glob("*.engine"))) == 6


@pytest.mark.parametrize("damage", ["truncated", "another", "no record", "refused by TensorRT"])
def test_engine_that_is_not_the_one_that_was_kept_is_built_again(library, small, tmp_path, damage):
    import hashlib
    import json

    expected = engine(small).run(batch())
    [file] = (tmp_path / "cache" / "engines").glob("*.engine")
    record = file.with_suffix(".json")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "another":
        record.write_text(record.read_text().replace("fp32", "fp16"))
    elif damage == "no record":
        record.unlink()
    else:
        file.write_bytes(b"of another TensorRT")
        facts = json.loads(record.read_text())
        facts["sha256"] = hashlib.sha256(b"of another TensorRT").hexdigest()
        record.write_text(json.dumps(facts))
    library.deserialized.clear()
    np.testing.assert_array_equal(engine(small).run(batch()), expected)
    assert len(library.builds) == 2
    assert file.read_bytes() == library.builds[1].onnx
    tried = 2 if damage == "refused by TensorRT" else 1
    assert len(library.deserialized) == tried


def test_cache_that_cannot_be_written_is_no_error(library, small, monkeypatch, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LITESEG_CACHE", str(tmp_path / "file"))
    engine(small).run(batch())
    captured = capfd.readouterr()
    assert "LITESEG_CACHE" in captured.out + captured.err


def test_engine_in_a_folder_that_is_not_the_users_is_not_loaded(
    library, small, monkeypatch, tmp_path, capfd
):
    engine(small).run(batch())
    assert len(library.builds) == 1
    (tmp_path / "cache").rename(tmp_path / "theirs")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "engines").symlink_to(tmp_path / "theirs" / "engines")
    engine(small).run(batch())
    assert len(library.builds) == 2
    captured = capfd.readouterr()
    assert "engines is not used: it is a symbolic link" in captured.out + captured.err


def test_cache_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("LITESEG_CACHE", raising=False)
    monkeypatch.setenv(
        "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path)
    )
    assert door.cache_folder() == tmp_path / "liteseg"


def test_engines_on_the_gpu_are_bounded(library, small, monkeypatch):
    monkeypatch.setattr(door, "LOADED", 1)
    runtime = engine(small)
    for shape in (SHAPE, (1, 3, 64, 64)):
        runtime.run(batch(shape))
    assert [runner.is_active for runner in library.loaded] == [False, True]


def test_failed_build_says_what_tensorrt_said_last(library, small, capfd):
    library.error = "Error Code 2: OutOfMemory (Requested size was 1 bytes)"
    with pytest.raises(
        ExportError, match=r"TensorRT 10\.3\.0 built no engine .*fp32: Error Code 2: OutOf"
    ):
        engine(small).run(batch())
    captured = capfd.readouterr()
    assert "OutOfMemory" not in captured.out + captured.err


def test_builder_that_does_not_start_is_one_error(library, small, monkeypatch):
    def no_builder(logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(library.module, "Builder", no_builder)
    with pytest.raises(ExportError, match=r"built no engine .*returned nullptr"):
        engine(small).run(batch())


def test_missing_things_are_said(small, monkeypatch):
    with pytest.raises(ExportError, match="tensorrt does not run on cpu: --device gpu"):
        create("tensorrt", small, "cpu", 1)
    with pytest.raises(
        ExportError, match=r"in bf16 on gpu; choose one of \['fp32', 'fp16', 'int8'\]"
    ):
        create("tensorrt", small, "gpu", 1, "bf16")
    bare = SimpleNamespace(model=small.model, onnx=None, onnx_int8=None)
    with pytest.raises(ExportError, match="export with --format onnx"):
        door.TensorRt(bare, "gpu", 1)
    with pytest.raises(ExportError, match="liteseg quantize"):
        door.TensorRt(small, "gpu", 1, "int8")
    for module in ("tensorrt", "polygraphy"):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ExportError, match=rf"{module} is not installed: .*\[tensorrt\]"):
            door.TensorRt(small, "gpu", 1)


def test_machine_without_a_gpu_is_said(library, small, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tensorrt", library.module)

    def no_driver(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_driver)
    with pytest.raises(ExportError, match=r"needs an NVIDIA GPU and its driver: .*cuda"):
        door._gpu()
    no_device = SimpleNamespace(cuInit=lambda _: 100)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: no_device)
    with pytest.raises(ExportError, match=r"CUDA finds none \(error 100\)"):
        door._gpu()


def test_gpu_is_named_by_its_driver(monkeypatch):
    def name(buffer, size, device):
        buffer.value = b"NVIDIA H200"

    def attribute(value, which, device):
        value._obj.value = {75: 9, 76: 0}[which]

    driver = SimpleNamespace(
        cuInit=lambda _: 0,
        cuDeviceGet=lambda device, number: 0,
        cuDeviceGetName=name,
        cuDeviceGetAttribute=attribute,
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert door._gpu() == "NVIDIA H200, compute capability 9.0"
