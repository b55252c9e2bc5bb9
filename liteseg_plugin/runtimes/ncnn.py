"""ncnn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.runtimes.base import Runtime, engine_package, quantized_file
from liteseg_plugin.runtimes.ncnn_layers import read_layers
from liteseg_plugin.system.device import Devices

if TYPE_CHECKING:
    from liteseg_plugin.exported import ModelFiles


class Ncnn(Runtime):
    """ncnn on the CPU, to check here what runs on a phone or a board.

    ``fp16`` loads the weights in half precision. ncnn computes in it only on processors that can,
    such as ARM's; others compute in float32.

    Attributes:
        graph: Path of the graph.
        weights: Path of its weights.
    """

    precisions: ClassVar = {"cpu": ("fp32", "fp16", "bf16", "int8")}

    def __init__(
        self, files: ModelFiles, device: str, threads: int, precision: str = "fp32"
    ) -> None:
        graph = files.ncnn
        weights = files.ncnn_fp16_weights if precision == "fp16" else files.ncnn_weights
        if graph is None or weights is None:
            raise ExportError(f"{files.model.parent} has no ncnn file; export with --format ncnn")
        library = engine_package("ncnn", "ncnn")
        if precision == "int8":
            graph = quantized_file(files, files.ncnn_int8)
            weights = quantized_file(files, files.ncnn_int8_weights)
            read_layers(graph, weights)  # ncnn crashes if scales are missing
        self.graph, self.weights = graph, weights
        self._net = library.Net()
        self._mat = library.Mat
        options = self._net.opt
        options.num_threads = threads
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(options, name, precision == "fp16")
        options.use_bf16_storage = precision == "bf16"
        if self._net.load_param(str(graph)) or self._net.load_model(str(weights)):
            raise ExportError(f"ncnn cannot load {graph} with {weights.name}")
        self.input_shape = files.input_shape
        # ncnn has no argmax over channels, so that its graphs end in logits.
        self._labels = isinstance(files, ExportedModel) and files.output_op == "argmax"

    @classmethod
    def devices(cls) -> Devices:  # noqa: D102
        library = engine_package("ncnn", "ncnn")
        return Devices(f"ncnn {library.__version__}", ("cpu",), "it is used on the CPU only")

    def feed(self, batch: np.ndarray) -> None:  # noqa: D102
        self._batch = np.ascontiguousarray(batch[0])  # which the matrix does not hold
        self._extractor = self._net.create_extractor()
        self._extractor.input("in0", self._mat(self._batch))

    def compute(self) -> None:  # noqa: D102
        code, self._output = self._extractor.extract("out0")
        if code:
            raise ExportError(f"ncnn cannot compute an image of {self._batch.shape}: code {code}")

    def fetch(self) -> np.ndarray:  # noqa: D102
        logits = np.array(self._output)[np.newaxis]
        return logits.argmax(axis=1).astype("int32") if self._labels else logits

    def blobs(self, batch: np.ndarray, names: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield what the layers compute from an image, by the names in the graph.

        Args:
            batch: (1, C, H, W).
            names: Of blobs.
        """
        self.feed(batch)
        self._extractor.set_light_mode(False)  # which forgets what was used
        for name in names:
            yield np.array(self._extractor.extract(name)[1])
