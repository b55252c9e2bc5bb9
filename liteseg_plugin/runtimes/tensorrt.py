"""TensorRT 8.5 to 11, through polygraphy: an engine for each batch shape, built once and cached.

Not run on a GPU by its authors. The calls to TensorRT and the handling of their results are
tested.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from liteseg_plugin import __version__
from liteseg_plugin.errors import ExportError
from liteseg_plugin.runtimes.base import Runtime, SessionCache, onnx_file
from liteseg_plugin.runtimes.tensorrt_network import network_model, polygraphy_errors
from liteseg_plugin.system.checksums import file_sha256
from liteseg_plugin.system.device import Devices
from liteseg_plugin.system.files import atomic_write, cache_folder, private_folder

if TYPE_CHECKING:
    from liteseg_plugin.exported import ModelFiles

LOADED = 4
"""Maximum number of engines on the GPU."""


class TensorRt(Runtime):
    """TensorRT on an NVIDIA GPU.

    ``fp32`` is exact: without TF32. From TensorRT 10 on networks are strongly typed, that is, the
    ONNX file says what is computed in which type; before, flags of the builder do.

    Args:
        files: The model; it needs its ONNX file, and for ``int8`` its quantised one.
        device: ``gpu``.
        threads: Unused.
        precision: ``fp32``, ``fp16`` or ``int8``.

    Raises:
        ExportError: If something is missing: the file, a package, a GPU.
    """

    precisions: ClassVar = {"gpu": ("fp32", "fp16", "int8")}

    def __init__(
        self, files: ModelFiles, device: str, threads: int, precision: str = "fp32"
    ) -> None:
        self._path = onnx_file(files, precision)
        self._library, self._gpu = _library(), _gpu()
        self._precision = precision
        self._sha256 = file_sha256(self._path)
        self._runners: SessionCache[Any] = SessionCache(LOADED, lambda runner: runner.deactivate())
        self.input_shape = files.input_shape

    @classmethod
    def devices(cls) -> Devices:  # noqa: D102 - the interface's
        try:
            _gpu()
        except ExportError as error:
            return Devices("TensorRT", (), str(error))
        return Devices("TensorRT", ("gpu:0",))

    def feed(self, batch: np.ndarray) -> None:
        """Pass images (N, 3, H, W) to the engine.

        The first batch of a shape waits for minutes, until TensorRT has built its engine.
        """
        self._runner = self._runners.get(batch.shape, lambda: self._activated(batch.shape))
        self._batch = batch

    def compute(self) -> None:  # noqa: D102 - polygraphy copies to and from the GPU here
        [name] = self._runner.get_input_metadata()
        [self._output] = self._runner.infer({name: self._batch}).values()

    def fetch(self) -> np.ndarray:  # noqa: D102
        # A copy: the next inference writes where this one did.
        return self._output.copy()

    def __del__(self) -> None:  # noqa: D105
        with contextlib.suppress(AttributeError):  # __init__ may have raised
            self._runners.clear()  # at the interpreter's end CUDA may be gone before

    def _activated(self, shape: tuple[int, ...]) -> Any:
        """Return a runner of the engine for a shape, ready to infer."""
        with polygraphy_errors() as errors:
            try:
                runner = self._library.TrtRunner(self._engine(shape))
                runner.activate()
            except ExportError:
                raise
            except Exception as error:
                version = self._library.versions["tensorrt"]
                raise ExportError(
                    f"TensorRT {version} built no engine of {self._path} for {shape} in "
                    f"{self._precision}: {errors[-1] if errors else error}"
                ) from error
        return runner

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
                pass  # not usable by this TensorRT: build another
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


class EngineCache:
    """The cache of a built engine, under a name made of all that it depends on.

    The folder is ``engines`` in ``LITESEG_CACHE``, by default in ``liteseg`` in the user's own
    cache. It is not the export's: an engine can contain code, and exports are shared.

    Args:
        facts: What the engine depends on.

    Attributes:
        path: The engine's file; beside it lie its checksum and the facts, as JSON.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self.path = cache_folder() / "engines" / f"{key}.engine"

    def load(self) -> bytes | None:
        """Return the engine, or None if there is no complete one."""
        try:
            private_folder(self.path.parent)
            engine = self.path.read_bytes()
            record = json.loads(self.path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return engine if record == self._record(engine) else None

    def store(self, engine: bytes) -> None:
        """Cache an engine; if that fails, it is built again the next time."""
        from paddleseg.utils import logger

        record = json.dumps(self._record(engine), indent=2).encode()
        try:
            private_folder(self.path.parent)
            atomic_write(self.path, engine)
            atomic_write(self.path.with_suffix(".json"), record)
        except OSError as error:
            logger.warning(
                f"the TensorRT engine is not cached: {error}; LITESEG_CACHE sets the folder"
            )

    def _record(self, engine: bytes) -> dict[str, Any]:
        return {"sha256": hashlib.sha256(engine).hexdigest(), **self._facts}


def _library() -> SimpleNamespace:
    """Import polygraphy, and the versions that an engine depends on."""
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
