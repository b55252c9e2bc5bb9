"""The engines that run an exported model, behind one small interface.

Each is made of an export, a device, a number of CPU threads and a precision, and maps a batch of
preprocessed images (N, 3, H, W) of float32 to the graph's output.
"""

from __future__ import annotations

from importlib.util import find_spec

from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import ModelFiles
from liteseg_plugin.runtimes.base import PRECISIONS, Runtime, written_shape
from liteseg_plugin.runtimes.onnxruntime import OnnxRuntime
from liteseg_plugin.runtimes.openvino import OpenVino
from liteseg_plugin.runtimes.paddle import PaddleInference
from liteseg_plugin.runtimes.paddle_tensorrt import PaddleTensorRt
from liteseg_plugin.runtimes.tensorrt import TensorRt

RUNTIMES: dict[str, type[Runtime]] = {
    "paddle": PaddleInference,
    "paddle_tensorrt": PaddleTensorRt,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "tensorrt": TensorRt,
}
"""The engines by the names that ``--runtime`` takes, which are those of their modules.

``paddle_tensorrt`` is not a module: it runs only if it is named.
"""


_PREFERRED = {
    "cpu": ("paddle", "openvino", "onnxruntime"),
    "gpu": ("paddle", "tensorrt", "onnxruntime", "openvino"),
}


def installed(device: str = "cpu", precision: str = "fp32") -> list[str]:
    """Return the installed runtimes with this precision on a device."""
    return [
        name
        for name, runtime in RUNTIMES.items()
        if find_spec(name) is not None and precision in runtime.precisions.get(device, ())
    ]


def installed_for(files: ModelFiles, device: str = "cpu", precision: str = "fp32") -> list[str]:
    """Return the names of those of :func:`installed` that a model has the file for."""
    names = installed(device, precision)
    return [name for name in names if name == "paddle" or files.onnx is not None]


def choose(device: str = "cpu", precision: str = "fp32") -> str:
    """Return the installed runtime to use where none is named: Paddle if it has the precision.

    Raises:
        ExportError: If no installed runtime has this precision on this device.
    """
    names = _PREFERRED.get(device, ())
    able = [name for name in names if precision in RUNTIMES[name].precisions[device]]
    for name in able:
        if find_spec(name) is not None:
            return name
    if not able:
        raise ExportError(f"no runtime computes in {precision} on {device}")
    raise ExportError(
        f"no installed runtime computes in {precision} on {device}: install {' or '.join(able)}"
    )


def create(
    name: str, files: ModelFiles, device: str, threads: int, precision: str = "fp32"
) -> Runtime:
    """Load a model into an engine.

    Raises:
        ValueError: If the engine or the precision is unknown.
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
    engine = runtime(files, device, threads, precision)
    fixed = ((a, b) for a, b in zip(engine.input_shape, files.input_shape) if a and b)
    if any(a != b for a, b in fixed):
        raise ExportError(
            f"deploy.yaml says input_shape {written_shape(files.input_shape)}, the model in "
            f"{files.model.parent} takes {written_shape(engine.input_shape)}; export again"
        )
    return engine
