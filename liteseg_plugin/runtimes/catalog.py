"""The engines that run an exported model, behind one small interface.

Each is made of an export, a device, a number of CPU threads and a precision, and maps a batch of
preprocessed images (N, 3, H, W) of float32 to the graph's output.
"""

from __future__ import annotations

from importlib.util import find_spec

from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import ModelFiles
from liteseg_plugin.runtimes.base import PRECISIONS, Runtime, written_shape
from liteseg_plugin.runtimes.ncnn import Ncnn
from liteseg_plugin.runtimes.onnxruntime import OnnxRuntime
from liteseg_plugin.runtimes.openvino import OpenVino
from liteseg_plugin.runtimes.paddle import PaddleInference
from liteseg_plugin.runtimes.paddle_tensorrt import PaddleTensorRt
from liteseg_plugin.runtimes.tensorrt import TensorRt
from liteseg_plugin.system.device import KINDS, kind_of

RUNTIMES: dict[str, type[Runtime]] = {
    "paddle": PaddleInference,
    "paddle_tensorrt": PaddleTensorRt,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "tensorrt": TensorRt,
    "ncnn": Ncnn,
}
"""The engines by the names that ``--runtime`` takes, which are those of their modules.

``paddle_tensorrt`` is not a module: it runs only if it is named.
"""


def is_installed(name: str) -> bool:
    """Whether the package of a runtime is installed."""
    return find_spec(name) is not None


def installed(device: str = "cpu", precision: str = "fp32") -> list[str]:
    """Return the installed runtimes with this precision on a device, or on any for ``auto``."""
    names = (name for name in RUNTIMES if is_installed(name))
    if device != "auto":
        return [name for name in names if computes(name, device, precision)]
    return [
        name
        for name in names
        if any(computes(name, there, precision) for there in RUNTIMES[name].devices().present)
    ]


def choose_device(name: str, asked: str, precision: str = "fp32") -> tuple[str, str]:
    """Return the kind of device that a runtime uses, and one line that says so.

    Args:
        name: One of ``RUNTIMES``.
        asked: ``auto``, or a device; see :mod:`liteseg_plugin.system.device`.
        precision: One of ``PRECISIONS``; ``auto`` takes a device that has it.

    Raises:
        ValueError: If the runtime or the precision is unknown.
        DeviceError: If there is no such device.
        ExportError: If the runtime is not installed, or does not run on such a device, or not in
            that precision.
    """
    if name not in RUNTIMES:
        raise ValueError(f"unknown runtime {name!r}; choose one of {sorted(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose one of {PRECISIONS}")
    if asked != "auto" and kind_of(asked) in KINDS:
        _require_precision(name, kind_of(asked), precision)
    devices = RUNTIMES[name].devices()
    if asked == "auto":
        able = devices.only(lambda kind: computes(name, kind, precision))
        devices = able if able.present else devices
    chosen = devices.choose(asked)
    _require_precision(name, kind_of(chosen), precision)
    return kind_of(chosen), devices.describe(asked, chosen)


def _require_precision(name: str, kind: str, precision: str) -> None:
    known = RUNTIMES[name].precisions
    if kind not in known:
        raise ExportError(f"{name} does not run on {kind}: --device {', '.join(known)}")
    if precision not in known[kind]:
        able = [other for other in RUNTIMES if computes(other, kind, precision)]
        raise ExportError(
            f"{name} does not compute in {precision} on {kind}; choose one of {list(known[kind])}"
            + (f", or --runtime {', '.join(able)}" if able else "")
        )


def computes(name: str, device: str, precision: str) -> bool:
    """Whether a runtime computes in a precision on a kind of device."""
    return precision in RUNTIMES[name].precisions.get(kind_of(device), ())


def has_file(name: str, files: ModelFiles, precision: str = "fp32") -> bool:
    """Whether a model has the file that a runtime reads for a precision."""
    if name == "paddle":
        return files.params is not None
    kind = "ncnn" if name == "ncnn" else "onnx"
    return getattr(files, f"{kind}_int8" if precision == "int8" else kind) is not None


def installed_for(files: ModelFiles, device: str = "cpu", precision: str = "fp32") -> list[str]:
    """Return the names of those of :func:`installed` that a model has the file for."""
    return [name for name in installed(device, precision) if has_file(name, files, precision)]


def create(
    name: str, files: ModelFiles, device: str, threads: int, precision: str = "fp32"
) -> Runtime:
    """Load a model into an engine.

    Args:
        name: One of ``RUNTIMES``.
        files: The model.
        device: ``auto``, or a device; see :mod:`liteseg_plugin.system.device`.
        threads: CPU threads.
        precision: One of ``PRECISIONS``.

    Raises:
        DeviceError: If there is no such device.
        ValueError: If the engine or the precision is unknown.
        ExportError: If it is not installed, cannot load the model, or does not compute in that
            precision on that device.
    """
    kind, _ = choose_device(name, device, precision)
    engine = RUNTIMES[name](files, kind, threads, precision)
    engine.name, engine.device = name, kind
    fixed = ((a, b) for a, b in zip(engine.input_shape, files.input_shape) if a and b)
    if any(a != b for a, b in fixed):
        raise ExportError(
            f"deploy.yaml says input_shape {written_shape(files.input_shape)}, the model in "
            f"{files.model.parent} takes {written_shape(engine.input_shape)}; export again"
        )
    return engine
