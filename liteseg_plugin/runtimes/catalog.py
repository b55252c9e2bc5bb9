"""The engines that run an exported model, behind one small interface.

Each is made of an export, a device, a number of CPU threads and a precision, and maps a batch of
transformed images (N, 3, H, W) of float32 to the graph's output.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.runtimes.base import (
    PRECISIONS,
    PaddleRuntime,
    Runtime,
    feed_paddle,
    last_line,
    missing,
    onnx_file,
    usable_cpus,
    written_shape,
)
from liteseg_plugin.runtimes.float16 import half_precision
from liteseg_plugin.runtimes.paddle_tensorrt import PaddleTensorRt
from liteseg_plugin.runtimes.tensorrt import TensorRt

if TYPE_CHECKING:
    import openvino
    from paddle import inference


class PaddleInference(PaddleRuntime):
    """Paddle Inference; on CPU with oneDNN."""

    precisions: ClassVar = {"cpu": ("fp32", "bf16"), "gpu": ("fp32", "fp16")}
    # Up to this many pixels the deepest feature is one cell high or wide. Paddle 3's oneDNN then
    # reads memory that nobody wrote, and gives other numbers each time.
    ONE_CELL = 32

    def __init__(
        self,
        exported: ExportedModel,
        device: str,
        threads: int,
        precision: str = "fp32",
        onednn: bool = True,
    ) -> None:
        self._exported, self._device, self._threads = exported, device, threads
        self._precision = precision
        self._engine = self._with_onednn = self._create(onednn)
        self._without_onednn = None
        declared = self._engine.get_input_handle(self._engine.get_input_names()[0]).shape()
        # Of an open shape the engine says nothing.
        self.input_shape = tuple(declared) if len(declared) == 4 else exported.input_shape

    def feed(self, batch: np.ndarray) -> None:  # noqa: D102 - the interface's
        self._engine = self._with_onednn
        if min(batch.shape[2:]) * self._exported.scale <= self.ONE_CELL:
            self._without_onednn = self._without_onednn or self._create(onednn=False)
            self._engine = self._without_onednn
        feed_paddle(self._engine, batch)

    def _create(self, onednn: bool) -> inference.Predictor:
        import paddle
        from paddle import inference

        model, params = self._exported.model, self._exported.params
        config = inference.Config(str(model), str(params))
        config.disable_glog_info()
        if model.suffix == ".json":
            # Without these two, memory optimisation raises on Paddle 3's model format.
            config.enable_new_ir(True)
            config.enable_new_executor(True)
        if self._device == "gpu":
            half = self._precision == "fp16"
            precision = inference.PrecisionType.Half if half else inference.PrecisionType.Float32
            config.enable_use_gpu(256, 0, precision)
        else:
            config.disable_gpu()
            if onednn:
                config.enable_mkldnn()
                if self._precision == "bf16":
                    config.enable_mkldnn_bfloat16()
            elif hasattr(config, "disable_mkldnn"):  # Paddle 3 has it on by default
                config.disable_mkldnn()
            config.set_cpu_math_library_num_threads(self._threads)
        config.enable_memory_optim()
        try:
            return inference.create_predictor(config)
        except Exception as error:
            raise ExportError(
                f"Paddle {paddle.__version__} cannot load {model} with {params.name}; the files "
                f"may be cut short, or of another Paddle: {last_line(error)}"
            ) from error


class OnnxRuntime(Runtime):
    """ONNX Runtime; on a GPU with its CUDA provider."""

    precisions: ClassVar = {"cpu": ("fp32", "int8"), "gpu": ("fp32", "fp16", "int8")}

    def __init__(
        self, exported: ExportedModel, device: str, threads: int, precision: str = "fp32"
    ) -> None:
        path = onnx_file(exported, precision)
        try:
            import onnxruntime
        except ImportError:
            raise missing("onnxruntime", "onnx") from None
        provider = "CUDAExecutionProvider" if device == "gpu" else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise ExportError(
                f"this onnxruntime has no {provider}: pip install onnxruntime-gpu, or --device cpu"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # it warns of each constant that it folded away
        model = half_precision(path).SerializeToString() if precision == "fp16" else str(path)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=[provider])
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot load {path}: {last_line(error)}") from error
        [model_input] = self._session.get_inputs()
        self._name = model_input.name
        self.input_shape = tuple(n if isinstance(n, int) else None for n in model_input.shape)
        self._binding = self._session.io_binding()
        self._place = "cuda" if device == "gpu" else "cpu"

    def feed(self, batch: np.ndarray) -> None:  # noqa: D102
        self._binding.bind_cpu_input(self._name, batch)
        self._binding.bind_output(self._session.get_outputs()[0].name, self._place)

    def compute(self) -> None:  # noqa: D102
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def fetch(self) -> np.ndarray:  # noqa: D102
        return self._binding.copy_outputs_to_cpu()[0]


class OpenVino(Runtime):
    """OpenVINO, on the CPU (or ``--device gpu``: an Intel GPU)."""

    # Primitives that the CPU plugin keeps for sizes it has seen. Its default, 5000, takes gigabytes
    # when every image has another size; with 200, repeated sizes still find theirs.
    CACHED_PRIMITIVES = 200

    precisions: ClassVar = {"cpu": ("fp32", "bf16", "int8"), "gpu": ("fp32", "fp16", "int8")}

    def __init__(
        self, exported: ExportedModel, device: str, threads: int, precision: str = "fp32"
    ) -> None:
        path = onnx_file(exported, precision)
        try:
            import openvino
        except ImportError:
            raise missing("openvino", "openvino") from None
        # On CPUs with bf16 units OpenVINO would compute in bf16 without being asked.
        hint = {"fp16": "f16", "bf16": "bf16"}.get(precision, "f32")
        self._settings = {"INFERENCE_PRECISION_HINT": hint}
        if device == "cpu":
            self._settings["INFERENCE_NUM_THREADS"] = threads
            # Engines side by side would all be pinned to the same processors.
            self._settings["ENABLE_CPU_PINNING"] = threads >= usable_cpus()
        self._core, self._device, self._path = openvino.Core(), device.upper(), path
        if device == "cpu":
            cache = {"CPU_RUNTIME_CACHE_CAPACITY": self.CACHED_PRIMITIVES}
            # The property is not listed among the supported ones: only setting it tells.
            with contextlib.suppress(RuntimeError):
                self._core.set_property(self._device, cache)
                self._settings.update(cache)
        try:
            self._model = self._core.read_model(str(path))
        except Exception as error:
            raise self._cannot_load(error) from error
        extents = self._model.inputs[0].partial_shape
        self.input_shape = tuple(n.get_length() if n.is_static else None for n in extents)
        # A model of one size is a tenth faster; a size gets its own when it comes again. In INT8 it
        # gets it at once: OpenVINO's convolutions are wrong where the size is open (2026.4, CPU;
        # half the labels of a quantised model were others).
        self._open = None in self.input_shape
        self._always_fixed = precision == "int8"
        self._compiled = lru_cache(maxsize=4)(self._compile)
        self._last_shape = None
        if not (self._open and self._always_fixed):
            self._compiled(None)

    def feed(self, batch: np.ndarray) -> None:  # noqa: D102
        import openvino

        fixed = self._open and (self._always_fixed or batch.shape == self._last_shape)
        self._last_shape = batch.shape
        self._request = self._compiled(batch.shape if fixed else None)
        self._request.set_input_tensor(openvino.Tensor(batch, shared_memory=True))
        self._batch = batch  # which the tensor does not hold

    def compute(self) -> None:  # noqa: D102
        self._request.infer()

    def fetch(self) -> np.ndarray:  # noqa: D102
        return self._request.get_output_tensor(0).data.copy()

    def _compile(self, shape: tuple[int, ...] | None) -> openvino.InferRequest:
        model = self._model
        try:
            if shape is not None:
                model = model.clone()
                model.reshape(shape)
            compiled = self._core.compile_model(model, self._device, self._settings)
        except Exception as error:
            raise self._cannot_load(error) from error
        return compiled.create_infer_request()

    def _cannot_load(self, error: Exception) -> ExportError:
        return ExportError(f"OpenVINO cannot load {self._path}: {last_line(error)}")


RUNTIMES = {
    "paddle": PaddleInference,
    "paddle_tensorrt": PaddleTensorRt,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "tensorrt": TensorRt,
}
"""The engines by the names that ``--runtime`` takes, which are those of their modules.

``paddle_tensorrt`` is no module's: it runs only where it is asked for.
"""


def installed(device: str = "cpu", precision: str = "fp32") -> list[str]:
    """Return the names of the runtimes that are installed and compute so on a device."""
    return [
        name
        for name, runtime in RUNTIMES.items()
        if find_spec(name) is not None and precision in runtime.precisions.get(device, ())
    ]


def create(
    name: str, exported: ExportedModel, device: str, threads: int, precision: str = "fp32"
) -> Runtime:
    """Load an exported model into an engine.

    Raises:
        ValueError: If there is no engine, or no precision, of that name.
        ExportError: If it is not installed, cannot load the model, or does not compute in that
            precision on that device.
    """
    if name not in RUNTIMES:
        raise ValueError(f"unknown runtime {name!r}; choose one of {sorted(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose one of {PRECISIONS}")
    runtime = RUNTIMES[name]
    known = runtime.precisions.get(device)
    if known is None:
        raise ExportError(
            f"{name} does not run on {device}: --device {', '.join(runtime.precisions)}"
        )
    if precision not in known:
        able = [n for n, other in RUNTIMES.items() if precision in other.precisions.get(device, ())]
        raise ExportError(
            f"{name} does not compute in {precision} on {device}; choose one of {list(known)}"
            + (f", or --runtime {', '.join(able)}" if able else "")
        )
    engine = runtime(exported, device, threads, precision)
    fixed = ((a, b) for a, b in zip(engine.input_shape, exported.input_shape) if a and b)
    if any(a != b for a, b in fixed):
        raise ExportError(
            f"deploy.yaml says input_shape {written_shape(exported.input_shape)}, the model in "
            f"{exported.model.parent} takes {written_shape(engine.input_shape)}; export again"
        )
    return engine
