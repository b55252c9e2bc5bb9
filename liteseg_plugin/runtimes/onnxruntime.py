"""ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from liteseg_plugin.errors import ExportError, last_line
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.runtimes.base import (
    Runtime,
    missing,
    onnx_file,
)
from liteseg_plugin.runtimes.float16 import half_precision

if TYPE_CHECKING:
    pass


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
