"""Which runtime runs an export: the one that was named, or the fastest that can, and why."""

from __future__ import annotations

from dataclasses import dataclass

from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import REQUIRED_AGREEMENT, ModelFiles
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.system.device import kind_of

AUTO = "auto"

# On the CPU as measured (docs/deploy.md, "Speed"). No GPU was measured: Paddle, which trained the
# model, comes first, and TensorRT, which builds an engine for minutes, where Paddle cannot.
# paddle_tensorrt and ncnn run only if they are named.
_FASTEST = {
    "cpu": ("openvino", "onnxruntime", "paddle"),
    "gpu": ("paddle", "tensorrt", "openvino", "onnxruntime"),
}


_NO_DEVICE = "has no such device here"


@dataclass(frozen=True)
class Choice:
    """A runtime, and where it computes.

    Attributes:
        runtime: One of ``catalog.RUNTIMES``.
        device: The kind of the device, such as ``cpu``.
        text: Lines for the log: which, and why.
    """

    runtime: str
    device: str
    text: str


def choose(
    files: ModelFiles, runtime: str = AUTO, device: str = "auto", precision: str = "fp32"
) -> Choice:
    """Choose what runs a model.

    ``auto`` takes the fastest runtime that is installed, has the file, device and precision, and
    agreed with the trained network when the model was exported. Where no such check is recorded, it
    takes Paddle, or else the fastest.

    Args:
        files: The model.
        runtime: One of ``catalog.RUNTIMES``, or ``auto``.
        device: ``auto``, or a device; see :mod:`liteseg_plugin.system.device`.
        precision: One of ``runtimes.base.PRECISIONS``.

    Raises:
        ValueError: If the runtime is unknown.
        DeviceError: If there is no such device.
        ExportError: If the runtime, or for ``auto`` every runtime, cannot run the model.
    """
    if runtime != AUTO:
        kind, line = catalog.choose_device(runtime, device, precision)
        return Choice(runtime, kind, line)
    problems: dict[str, str] = {}
    for kind in ("gpu", "cpu") if device == "auto" else (kind_of(device),):
        order = [n for n in _FASTEST.get(kind, ()) if catalog.computes(n, kind, precision)]
        problems.update((n, _problem(n, files, kind, device, precision)) for n in order)
        able = [name for name in order if not problems[name]]
        agreed = [name for name in able if name in files.agreement]
        if not able:
            continue
        chosen = (agreed or [name for name in able if name == "paddle"] or able)[0]
        if agreed:
            faster = order[: order.index(chosen)]
            passed = [f"{name} {problems[name] or 'was not checked at export'}" for name in faster]
            why = ", ".join(["it agreed with the trained network at export", *passed])
        else:
            why = "the export has no record of a check, which `liteseg export` makes"
        _, line = catalog.choose_device(chosen, device, precision)
        return Choice(chosen, kind, f"Runtime: {chosen} (--runtime auto: {why})\n{line}")
    without_device = [name for name, problem in problems.items() if problem == _NO_DEVICE]
    if without_device or not problems:
        catalog.choose_device([*without_device, "paddle"][0], device, precision)  # its error
    listed = ", ".join(f"{name} {problem}" for name, problem in problems.items())
    if precision == "int8" and files.ncnn_int8:
        listed += "; for its ncnn files add --runtime ncnn"
    elif precision == "int8" and files.onnx_int8 is None:
        listed += f"; create one with liteseg quantize {files.model.parent}"
    raise ExportError(f"no runtime can run {files.model.parent} in {precision}: {listed}")


def _problem(name: str, files: ModelFiles, kind: str, asked: str, precision: str) -> str:
    """Return why a runtime cannot run the model on a kind of device; empty if it can."""
    if not catalog.is_installed(name):
        return "is not installed"
    if not catalog.has_file(name, files, precision):
        if name == "paddle":
            return "does not read ONNX files"
        return "has no INT8 model" if precision == "int8" else "has no ONNX file"
    if files.agreement.get(name, 1) < REQUIRED_AGREEMENT:
        return f"gave other labels at export ({files.agreement[name]:.2%} agreed)"
    try:
        devices = catalog.RUNTIMES[name].devices()
    except ExportError as error:
        return f"does not work: {error}"
    usable = devices.only(lambda there: catalog.computes(name, there, precision)).present
    kinds = [kind_of(there) for there in usable]
    fits = kind in kinds[:1] if asked == "auto" else asked in (*usable, *kinds)
    return "" if fits else _NO_DEVICE
