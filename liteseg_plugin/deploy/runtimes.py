"""The engines that run an exported model, behind one small interface.

Each is made of an export, a device and a number of CPU threads, and maps a batch of transformed
images (N, 3, H, W) of float32 to the graph's output. All compute in float32.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from liteseg_plugin.deploy.exported import ExportedModel
from liteseg_plugin.deploy.tensorrt import TensorRt
from liteseg_plugin.errors import ExportError

if TYPE_CHECKING:
    from paddle import inference


class Runtime(Protocol):
    """An engine that holds one model."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Map images (N, 3, H, W) to labels (N, H, W) or scores (N, C, H, W)."""


class PaddleInference(Runtime):
    """Paddle Inference; on CPU with oneDNN."""

    # Up to this many pixels the deepest feature is one cell high or wide. Paddle 3's oneDNN then
    # reads memory that nobody wrote, and gives other numbers each time.
    ONE_CELL = 32

    def __init__(
        self, exported: ExportedModel, device: str, threads: int, onednn: bool = True
    ) -> None:
        self._exported, self._device, self._threads = exported, device, threads
        self._engine = self._create(onednn)
        self._engine_without_onednn = None

    def run(self, batch: np.ndarray) -> np.ndarray:  # noqa: D102 - the interface's
        engine = self._engine
        if min(batch.shape[2:]) * self._exported.scale <= self.ONE_CELL:
            self._engine_without_onednn = self._engine_without_onednn or self._create(onednn=False)
            engine = self._engine_without_onednn
        [input_name], [output_name] = engine.get_input_names(), engine.get_output_names()
        handle = engine.get_input_handle(input_name)
        handle.reshape(batch.shape)
        handle.copy_from_cpu(batch)
        engine.run()
        return engine.get_output_handle(output_name).copy_to_cpu()

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
            config.enable_use_gpu(256, 0)
        else:
            config.disable_gpu()
            if onednn:
                config.enable_mkldnn()
            elif hasattr(config, "disable_mkldnn"):  # Paddle 3 has it on by default
                config.disable_mkldnn()
            config.set_cpu_math_library_num_threads(self._threads)
        config.enable_memory_optim()
        try:
            return inference.create_predictor(config)
        except Exception as error:
            raise ExportError(
                f"Paddle {paddle.__version__} cannot load {model} with {params.name}; the files "
                f"may be cut short, or of another Paddle: {_last_line(error)}"
            ) from error


class OnnxRuntime(Runtime):
    """ONNX Runtime; on a GPU with its CUDA provider."""

    def __init__(self, exported: ExportedModel, device: str, threads: int) -> None:
        path = _onnx_file(exported)
        try:
            import onnxruntime
        except ImportError:
            raise _missing("onnxruntime", "onnx") from None
        provider = "CUDAExecutionProvider" if device == "gpu" else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise ExportError(
                f"this onnxruntime has no {provider}: pip install onnxruntime-gpu, or --device cpu"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # it warns of each constant that it folded away
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot load {path}: {_last_line(error)}") from error
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: np.ndarray) -> np.ndarray:  # noqa: D102
        return self._session.run(None, {self._input: batch})[0]


class OpenVino(Runtime):
    """OpenVINO, on the CPU (or ``--device gpu``: an Intel GPU)."""

    def __init__(self, exported: ExportedModel, device: str, threads: int) -> None:
        path = _onnx_file(exported)
        try:
            import openvino
        except ImportError:
            raise _missing("openvino", "openvino") from None
        # On CPUs with bf16 units OpenVINO would compute in bf16 without being asked.
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        if device == "cpu":
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = openvino.Core().compile_model(str(path), device.upper(), settings)
        except Exception as error:
            raise ExportError(f"OpenVINO cannot load {path}: {_last_line(error)}") from error
        self._request = model.create_infer_request()

    def run(self, batch: np.ndarray) -> np.ndarray:  # noqa: D102
        # A copy: the next inference writes where this one did.
        return self._request.infer([batch])[0].copy()


RUNTIMES = {
    "paddle": PaddleInference,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "tensorrt": TensorRt,
}
"""The engines by the names that ``--runtime`` takes, which are those of their modules."""


def installed() -> list[str]:
    """Return the names of the runtimes that are installed."""
    return [name for name in RUNTIMES if find_spec(name) is not None]


def create(name: str, exported: ExportedModel, device: str, threads: int) -> Runtime:
    """Load an exported model into an engine.

    Raises:
        ValueError: If there is no engine of that name.
        ExportError: If it is not installed, or cannot load the model.
    """
    if name not in RUNTIMES:
        raise ValueError(f"unknown runtime {name!r}; choose one of {sorted(RUNTIMES)}")
    return RUNTIMES[name](exported, device, threads)


def _onnx_file(exported: ExportedModel) -> Path:
    if exported.onnx is None:
        raise ExportError(f"{exported.model.parent} holds no ONNX file; export with --format onnx")
    return exported.onnx


def _missing(package: str, extra: str) -> ExportError:
    return ExportError(f"{package} is not installed: pip install 'liteseg_plugin[{extra}]'")


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
