"""TensorRT 8.5 to 11, through polygraphy: an engine for each shape of batch, built once and kept.

Not run on a GPU by its authors. What it hands to TensorRT, and what it does with what comes back,
is tested.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from liteseg_plugin import __version__
from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import ExportedModel, file_sha256
from liteseg_plugin.runtimes.base import Runtime, onnx_file
from liteseg_plugin.runtimes.float16 import graphsurgeon, half_precision
from liteseg_plugin.system.files import atomic_write, cache_folder

if TYPE_CHECKING:
    import onnx

LOADED = 4
"""Engines that are held on the GPU at a time."""


class TensorRt(Runtime):
    """TensorRT on an NVIDIA GPU.

    ``fp32`` is exact: without TF32. From TensorRT 10 on networks are strongly typed, that is, the
    ONNX file says what is computed in which type; before, flags of the builder do.

    Args:
        exported: The export; it needs its ONNX file, and for ``int8`` its quantised one.
        device: ``gpu``.
        threads: Of no use here.
        precision: ``fp32``, ``fp16`` or ``int8``.

    Raises:
        ExportError: If something is missing: the file, a package, a GPU.
    """

    precisions: ClassVar = {"gpu": ("fp32", "fp16", "int8")}

    def __init__(
        self, exported: ExportedModel, device: str, threads: int, precision: str = "fp32"
    ) -> None:
        self._path = onnx_file(exported, precision)
        self._library, self._gpu = _library(), _gpu()
        self._precision = precision
        self._sha256 = file_sha256(self._path)
        self._runners: dict[tuple[int, ...], Any] = {}
        self.input_shape = exported.input_shape

    def feed(self, batch: np.ndarray) -> None:
        """Give the engine images (N, 3, H, W).

        The first batch of a shape waits, for minutes, until TensorRT has built an engine for it.
        """
        if batch.shape not in self._runners:
            if len(self._runners) == LOADED:
                self._runners.pop(next(iter(self._runners))).deactivate()
            with _polygraphys_errors() as errors:
                try:
                    runner = self._library.TrtRunner(self._engine(batch.shape))
                    runner.activate()
                except ExportError:
                    raise
                except Exception as error:
                    version = self._library.versions["tensorrt"]
                    raise ExportError(
                        f"TensorRT {version} makes no engine of {self._path} for {batch.shape} in "
                        f"{self._precision}: {(errors or [error])[-1]}"
                    ) from error
            self._runners[batch.shape] = runner
        self._runner, self._batch = self._runners[batch.shape], batch

    def compute(self) -> None:  # noqa: D102 - polygraphy copies to and from the GPU here
        [name] = self._runner.get_input_metadata()
        [self._output] = self._runner.infer({name: self._batch}).values()

    def fetch(self) -> np.ndarray:  # noqa: D102
        # A copy: the next inference writes where this one did.
        return self._output.copy()

    def __del__(self) -> None:  # noqa: D105
        for runner in getattr(self, "_runners", {}).values():
            # At the interpreter's end CUDA may be gone before.
            with contextlib.suppress(Exception):
                runner.deactivate()

    def _engine(self, shape: Sequence[int]) -> Any:
        cache = EngineCache(
            {
                "onnx": self._sha256,
                "shape": list(shape),
                "precision": self._precision,
                "gpu": self._gpu,
                "liteseg_plugin": __version__,
                **self._library.versions,
            }
        )
        engine = cache.load()
        if engine is not None:
            try:
                return self._library.engine_from_bytes(engine)
            except self._library.PolygraphyException:
                pass  # of no use to this TensorRT: build another
        engine = self._build(shape)
        cache.store(engine)
        return self._library.engine_from_bytes(engine)

    def _build(self, shape: Sequence[int]) -> bytes:
        strongly_typed = int(self._library.versions["tensorrt"].split(".")[0]) >= 10
        model = network_model(self._path, shape, self._precision, strongly_typed)
        network = self._library.NetworkFromOnnxBytes(
            model.SerializeToString(), strongly_typed=strongly_typed
        )
        config = self._library.CreateConfig(
            profiles=[self._library.Profile().add(model.graph.input[0].name, *[tuple(shape)] * 3)],
            tf32=self._precision != "fp32",
            fp16=self._precision == "fp16" and not strongly_typed,
            int8=self._precision == "int8" and not strongly_typed,
        )
        return bytes(self._library.EngineBytesFromNetwork(network, config)())


def network_model(
    path: str | os.PathLike, shape: Sequence[int], precision: str, strongly_typed: bool
) -> onnx.ModelProto:
    """Return the network that TensorRT is given: of one shape, its constants folded.

    Args:
        path: The export's ONNX file, for ``int8`` the quantised one.
        shape: (N, 3, H, W).
        precision: ``fp32``, ``fp16`` or ``int8``.
        strongly_typed: Whether the network itself says its types.

    Raises:
        ExportError: If the file has another shape, or cannot be folded.
    """
    import onnx

    half = precision == "fp16" and strongly_typed
    model = fix_and_fold(half_precision(path) if half else onnx.load(str(path)), shape)
    return symmetric(model) if precision == "int8" else model


def fix_and_fold(model: onnx.ModelProto, shape: Sequence[int]) -> onnx.ModelProto:
    """Give a model of one input a fixed shape, and compute what no longer depends on the image.

    Raises:
        ExportError: If the model was exported with another shape, or cannot be folded.
    """
    graphsurgeon()
    from polygraphy.backend.onnx import FoldConstants

    extents = model.graph.input[0].type.tensor_type.shape.dim
    declared = [d.dim_value for d in extents]
    if len(declared) != len(shape) or any(d not in (0, n) for d, n in zip(declared, shape)):
        raise ExportError(
            f"the model was exported for {declared} (0: any), which {tuple(shape)} does not fit"
        )
    for extent, n in zip(extents, shape):
        extent.dim_value = n
    # They name open extents, and inference would not contradict them.
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    with _polygraphys_errors() as errors:
        try:
            folded = FoldConstants(model, error_ok=False, allow_onnxruntime_shape_inference=False)()
        except Exception as error:
            raise ExportError(
                f"the ONNX model cannot be folded for {tuple(shape)}: {(errors or [error])[-1]}"
            ) from error
    return folded


def symmetric(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a QDQ model, whose constants are initializers, as every TensorRT takes it.

    Zero points are 0 and of int8: other activations get the smallest symmetric range that holds
    their own, which costs those of uint8 one bit. Weights are in float before a pair of quantise
    and dequantise that gives back their int8 values. Biases are in float.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def constant(name: str, value: np.ndarray) -> str:
        if name not in constants:
            constants[name] = value
            graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    nodes = []
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            nodes.append(node)
            continue
        source, scale_name, zero_name = node.input
        scale, zero = constants[scale_name], constants[zero_name]
        if source not in constants:
            if zero.dtype != np.int8 or zero.any():
                limits = np.iinfo(zero.dtype)
                ends = [(end - zero.astype("float64")) * scale for end in (limits.min, limits.max)]
                widest = (np.abs(ends).max(axis=0) / 127).astype("float32")
                node.input[1] = constant(f"{scale_name}_symmetric_{zero_name}", widest)
                node.input[2] = constant(f"{zero_name}_zero", np.zeros_like(zero, np.int8))
            nodes.append(node)
            continue
        if zero.any() or zero.dtype not in (np.int8, np.int32):
            raise ExportError(f"the weights {source} are not quantised symmetrically in int8")
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        values = constants[source].astype("float32")
        broadcast = [-1 if n == axis and scale.ndim else 1 for n in range(values.ndim)]
        values = values * (scale.reshape(broadcast) if scale.ndim else scale)
        if zero.dtype == np.int32:
            constant(node.output[0], values)
            continue
        quantise = helper.make_node(
            "QuantizeLinear",
            [constant(f"{source}_float", values), scale_name, zero_name],
            [f"{node.output[0]}_quantised"],
            name=f"{node.name}_quantise",
            axis=axis,
        )
        node.input[0] = quantise.output[0]
        nodes += [quantise, node]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    return model


class EngineCache:
    """Where a built engine is kept, under a name made of all that it depends on.

    The folder is ``LITESEG_CACHE``, by default ``liteseg`` in the user's own cache. It is not the
    export's: an engine can hold code, and exports are handed around.

    Args:
        facts: What the engine depends on.

    Attributes:
        path: The engine's file; beside it lie its checksum and the facts, as JSON.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self.path = cache_folder() / f"{key}.engine"

    def load(self) -> bytes | None:
        """Return the engine, or None where there is no complete one."""
        try:
            engine = self.path.read_bytes()
            record = json.loads(self.path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return engine if record == self._record(engine) else None

    def store(self, engine: bytes) -> None:
        """Keep an engine; one that cannot be kept is built again the next time."""
        from paddleseg.utils import logger

        record = json.dumps(self._record(engine), indent=2).encode()
        try:
            atomic_write(self.path, engine)
            atomic_write(self.path.with_suffix(".json"), record)
        except OSError as error:
            logger.warning(
                f"the TensorRT engine is not kept: {error}; LITESEG_CACHE names a folder"
            )

    def _record(self, engine: bytes) -> dict[str, Any]:
        return {"sha256": hashlib.sha256(engine).hexdigest(), **self._facts}


def _library() -> SimpleNamespace:
    """Import what is used of polygraphy, and the versions that an engine depends on."""
    way_out = "pip install 'liteseg_plugin[tensorrt]'"
    try:
        import onnx_graphsurgeon
        import onnxruntime
        import polygraphy
        import tensorrt
        from polygraphy.backend import trt
        from polygraphy.exception import PolygraphyException
    except ModuleNotFoundError as error:
        raise ExportError(f"{error.name} is not installed: {way_out}") from None
    except (ImportError, OSError) as error:
        raise ExportError(f"TensorRT cannot be imported: {error}; {way_out}") from error
    modules = (onnx_graphsurgeon, onnxruntime, polygraphy, tensorrt)
    return SimpleNamespace(
        versions={module.__name__: module.__version__ for module in modules},
        PolygraphyException=PolygraphyException,
        NetworkFromOnnxBytes=trt.NetworkFromOnnxBytes,
        CreateConfig=trt.CreateConfig,
        Profile=trt.Profile,
        EngineBytesFromNetwork=trt.EngineBytesFromNetwork,
        engine_from_bytes=trt.engine_from_bytes,
        TrtRunner=trt.TrtRunner,
    )


def _gpu() -> str:
    """Return name and compute capability of the GPU that TensorRT will use, from CUDA's driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise ExportError(f"TensorRT needs an NVIDIA GPU and its driver: {error}") from None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
    if status:
        raise ExportError(f"TensorRT needs an NVIDIA GPU; CUDA finds none (error {status})")
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    return f"{name.value.decode()}, compute capability {major.value}.{minor.value}"


@contextlib.contextmanager
def _polygraphys_errors() -> Iterator[list[str]]:
    """Collect the errors that polygraphy logs, TensorRT's among them, instead of printing them."""
    from polygraphy.logger import G_LOGGER

    errors: list[str] = []
    handler = logging.Handler(logging.ERROR)

    def collect(record: logging.LogRecord) -> None:
        if record.levelno == logging.ERROR:  # what is worse is raised
            errors.append(record.getMessage().removeprefix("[E] "))

    handler.emit = collect
    logger = logging.getLogger("Polygraphy")
    before = G_LOGGER.use_python_logging_system, logger.propagate
    G_LOGGER.use_python_logging_system, logger.propagate = True, False
    logger.addHandler(handler)
    try:
        yield errors
    finally:
        logger.removeHandler(handler)
        G_LOGGER.use_python_logging_system, logger.propagate = before
