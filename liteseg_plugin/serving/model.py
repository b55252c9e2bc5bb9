"""An exported model as a server holds it."""

from __future__ import annotations

from typing import Any

import numpy as np

from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import INPUT_NAME, OUTPUT_NAMES, ExportedModel
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.serving import tensors

VERSION = "1"
"""The only version of every model."""
_WARM_UP = (64, 64)


class ServedModel:
    """An exported model and a number of engines, each of which takes what :class:`Predictor` does.

    Attributes:
        name: Its name, which is that of its folder.
        exported: What was exported.
        output: Name of its output.
        fixed_rows: Images of a batch where the export fixes them, else None.

    Raises:
        DeviceError: If there is no such device.
        ExportError: If the runtime cannot load it, or it contradicts its ``deploy.yaml``.
    """

    def __init__(
        self,
        exported: ExportedModel,
        runtime: str,
        device: str,
        threads: int,
        precision: str,
        engines: int,
    ) -> None:
        if engines > 1 and runtime.startswith("paddle"):
            # After two had run side by side, one raised std::exception (Paddle 3.3.1, oneDNN).
            raise ExportError(
                f"Paddle runs one engine, not {engines}; take another --runtime, or --engines 1"
            )
        self.name = exported.model.parent.resolve().name
        self.exported = exported
        self._platform = runtime
        self._engines = [
            Predictor(exported, runtime, device, threads, precision) for _ in range(engines)
        ]
        self.output = OUTPUT_NAMES[exported.output_op]
        shape = self.predictor.input_shape
        self.fixed_rows = shape[0]
        height, width = (wanted or n for wanted, n in zip(shape[2:], _WARM_UP))
        for engine in self._engines:
            output = engine.run(np.zeros((shape[0] or 1, shape[1] or 3, height, width), np.float32))
        self._datatype = tensors.datatype_of(output)
        self._output_shape = [-1, *(output.shape[1:-2]), *(n or -1 for n in shape[2:])]

    @property
    def predictor(self) -> Predictor:
        """The first engine, which prepares images and reads outputs for all of them."""
        return self._engines[0]

    def run(self, engine: int, batch: np.ndarray) -> np.ndarray:
        """Map a batch (N, 3, H, W) to the graph's output, in the engine of this number."""
        return self._engines[engine].run(batch)

    def check(self, x: np.ndarray) -> None:
        """Refuse a batch (N, 3, H, W) of a shape that the export does not take.

        Raises:
            DataError: If it has such a shape.
        """
        if self.fixed_rows is not None and len(x) < self.fixed_rows:
            x = np.broadcast_to(x[:1], (self.fixed_rows, *x.shape[1:]))  # as it will be filled
        self.predictor.require_shape(x)

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's description of the model."""
        size = [n or -1 for n in self.predictor.input_shape[2:]]
        taken = self.exported.image_format.channels
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": self._platform,
            "inputs": [{"name": INPUT_NAME, "datatype": "FP32", "shape": [-1, taken, *size]}],
            "outputs": [
                {"name": self.output, "datatype": self._datatype, "shape": self._output_shape}
            ],
        }
