"""OpenVINO."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from liteseg_plugin.runtimes.base import Runtime, SessionCache, engine_package, loading, onnx_file
from liteseg_plugin.system.device import Devices
from liteseg_plugin.system.parallel import usable_cpus

if TYPE_CHECKING:
    import openvino

    from liteseg_plugin.exported import ModelFiles


class OpenVino(Runtime):
    """OpenVINO, on the CPU (or ``--device gpu``: an Intel GPU)."""

    # Primitives that the CPU plugin keeps for sizes it has seen. Its default, 5000, takes gigabytes
    # when every image has another size; with 200, repeated sizes still find theirs.
    CACHED_PRIMITIVES = 200

    precisions: ClassVar = {"cpu": ("fp32", "bf16", "int8"), "gpu": ("fp32", "fp16", "int8")}

    def __init__(
        self, files: ModelFiles, device: str, threads: int, precision: str = "fp32"
    ) -> None:
        path = onnx_file(files, precision)
        library = engine_package("openvino", "openvino")
        # On CPUs with bf16 units OpenVINO would compute in bf16 by default.
        hint = {"fp16": "f16", "bf16": "bf16"}.get(precision, "f32")
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint}
        if device == "cpu":
            self._settings["INFERENCE_NUM_THREADS"] = threads
            # Engines side by side would all be pinned to the same processors.
            self._settings["ENABLE_CPU_PINNING"] = threads >= usable_cpus()
        self._core, self._device, self._path = library.Core(), device.upper(), path
        if device == "cpu":
            cache = {"CPU_RUNTIME_CACHE_CAPACITY": self.CACHED_PRIMITIVES}
            # The property is not listed as supported: only setting it shows whether it is.
            with contextlib.suppress(RuntimeError):
                self._core.set_property(self._device, cache)
                self._settings.update(cache)
        with loading("OpenVINO", path):
            self._model = self._core.read_model(str(path))
        extents = self._model.inputs[0].partial_shape
        self.input_shape = tuple(n.get_length() if n.is_static else None for n in extents)
        # A model of one size is a tenth faster; a size gets its own when it comes again. In INT8
        # and bf16 it gets it at once. Where the size is open, OpenVINO 2026.4 on a CPU computes
        # INT8 convolutions wrongly (half the labels were others), and in bf16 the first batch of a
        # size otherwise than the second (0.8 % of the labels).
        self._open = None in self.input_shape
        self._always_fixed = precision in ("int8", "bf16")
        self._requests: SessionCache[openvino.InferRequest] = SessionCache(4)
        self._last_shape: tuple[int, ...] = ()
        if not (self._open and self._always_fixed):
            self._compiled(None)

    @classmethod
    def devices(cls) -> Devices:  # noqa: D102
        library = engine_package("openvino", "openvino")
        # The CPU first: most often the GPU is on the same chip.
        present = ["cpu"]
        if any(name.startswith("GPU") for name in library.Core().available_devices):
            present.append("gpu:0")
        reason = "" if "gpu:0" in present else "it finds no Intel GPU with its driver"
        return Devices(f"OpenVINO {library.__version__}", tuple(present), reason)

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

    def _compiled(self, shape: tuple[int, ...] | None) -> openvino.InferRequest:
        """Return a request for batches of a shape, or of any."""
        return self._requests.get(shape, lambda: self._compile(shape))

    def _compile(self, shape: tuple[int, ...] | None) -> openvino.InferRequest:
        model = self._model
        with loading("OpenVINO", self._path):
            if shape is not None:
                model = model.clone()
                model.reshape(shape)
            compiled = self._core.compile_model(model, self._device, self._settings)
        return compiled.create_infer_request()
