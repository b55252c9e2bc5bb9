"""ONNX Runtime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from liteseg_plugin.runtimes.base import Runtime, engine_package, loading, onnx_file
from liteseg_plugin.runtimes.float16 import half_precision
from liteseg_plugin.system.device import Devices

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from liteseg_plugin.exported import ModelFiles


_CUDA = "CUDAExecutionProvider"


class OnnxRuntime(Runtime):
    """ONNX Runtime; on a GPU with its CUDA provider."""

    precisions: ClassVar = {"cpu": ("fp32", "int8"), "gpu": ("fp32", "fp16", "int8")}

    def __init__(
        self, files: ModelFiles, device: str, threads: int, precision: str = "fp32"
    ) -> None:
        path = onnx_file(files, precision)
        model = half_precision(path) if precision == "fp16" else path
        with loading("ONNX Runtime", path):
            self._session = create_session(model, threads=threads, device=device)
        [model_input] = self._session.get_inputs()
        self._name = model_input.name
        self.input_shape = tuple(n if isinstance(n, int) else None for n in model_input.shape)
        self._binding = self._session.io_binding()
        self._place = "cuda" if device == "gpu" else "cpu"

    @classmethod
    def devices(cls) -> Devices:  # noqa: D102
        onnxruntime = engine_package("onnxruntime", "onnx")
        engine = f"ONNX Runtime {onnxruntime.__version__}"
        if _CUDA in onnxruntime.get_available_providers():
            return Devices(engine, ("gpu:0", "cpu"))
        return Devices(engine, ("cpu",), f"it has no {_CUDA}: pip install onnxruntime-gpu")

    def feed(self, batch: np.ndarray) -> None:  # noqa: D102
        self._binding.bind_cpu_input(self._name, batch)
        self._binding.bind_output(self._session.get_outputs()[0].name, self._place)

    def compute(self) -> None:  # noqa: D102
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def fetch(self) -> np.ndarray:  # noqa: D102
        return self._binding.copy_outputs_to_cpu()[0]


def create_session(
    model: str | os.PathLike | onnx.ModelProto,
    *,
    threads: int = 0,
    device: str = "cpu",
    profile_prefix: str | None = None,
) -> onnxruntime.InferenceSession:
    """Load a model into ONNX Runtime, which logs errors only.

    Args:
        model: The ONNX file, or the model itself.
        threads: CPU threads; 0 leaves the number to ONNX Runtime.
        device: ``cpu`` or ``gpu``.
        profile_prefix: Where to write a profile, up to the date in its name; None for no profile.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # it warns of each constant that it folded away
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    return onnxruntime.InferenceSession(
        os.fspath(model) if isinstance(model, (str, os.PathLike)) else model.SerializeToString(),
        options,
        providers=[_CUDA if device == "gpu" else "CPUExecutionProvider"],
    )
