"""Quantisation of ncnn's files: INT8 weights, and scales behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from liteseg_plugin.exported import (
    NCNN_INT8_FILE,
    NCNN_INT8_REPORT_FILE,
    NCNN_INT8_WEIGHTS_FILE,
    ModelFiles,
)
from liteseg_plugin.runtimes.ncnn import Ncnn
from liteseg_plugin.runtimes.ncnn_layers import INT8_KEY, INT8_TAG, NcnnLayer, read_layers
from liteseg_plugin.system.parallel import usable_cpus

# ncnn's own tool gives these levels to weights of convolutions by Winograd's method: in 32 bits,
# their sums rarely overflow. They are 576 times those of the convolution.
_WINOGRAD_LEVELS = 31
_WINOGRAD_SUM = 2**31 / 576
# Of weights and inputs that are practically 0, and whose scales would not be finite.
_TINY = 1e-30


class NcnnQuantizer:
    """The ncnn files of an export; see :class:`liteseg_plugin.export.quantize.Quantizer`.

    The largest input of a layer is the mean of the largest of each image.
    """

    source: ClassVar = "ncnn"
    runtime: ClassVar = "ncnn"
    files: ClassVar[dict[str, str]] = {
        "ncnn_int8": NCNN_INT8_FILE,
        "ncnn_int8_weights": NCNN_INT8_WEIGHTS_FILE,
    }
    report_file: ClassVar = NCNN_INT8_REPORT_FILE

    def __init__(self, exported: ModelFiles, batches: Iterable[np.ndarray], work: Path) -> None:
        self._exported, self._work = exported, work
        engine = Ncnn(exported, "cpu", usable_cpus())
        self._lines, self._layers = read_layers(engine.graph, engine.weights)
        self.weight_shapes = {layer.name: list(layer.weight_shape) for layer in self._layers}
        inputs = [layer.input for layer in self._layers]
        largest = [[np.abs(x).max() for x in engine.blobs(batch, inputs)] for batch in batches]
        self._largest = dict(zip(self.weight_shapes, np.mean(largest, axis=0)))

    def labels(self, names: Sequence[str], batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the labels of batches with the named layers in INT8."""
        self.write(names, self._work)
        files = replace(
            self._exported,
            ncnn_int8=self._work / NCNN_INT8_FILE,
            ncnn_int8_weights=self._work / NCNN_INT8_WEIGHTS_FILE,
        )
        engine = Ncnn(files, "cpu", usable_cpus(), "int8")
        for batch in batches:
            yield self._exported.labels_of(engine.run(batch))

    def write(self, names: Sequence[str], folder: Path) -> None:
        """Write the files with the named layers in INT8."""
        lines = [*self._lines]
        contents = []
        for layer in self._layers:
            if layer.name in names:
                lines[layer.line] += f" {INT8_KEY}=1"
                contents.append(_in_int8(layer, self._largest[layer.name]))
            else:
                contents.append(layer.content)
        Path(folder, NCNN_INT8_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
        Path(folder, NCNN_INT8_WEIGHTS_FILE).write_bytes(b"".join(contents))


def _in_int8(layer: NcnnLayer, largest_input: float) -> bytes:
    """Return the content of a layer in INT8, whose largest input becomes 127."""
    end = 4 + 4 * int(np.prod(layer.weight_shape))
    rows = np.frombuffer(layer.content[4:end], "<f4").reshape(layer.scales, -1)
    bounds = np.abs(rows).max(axis=1, keepdims=True)
    bounds[bounds < _TINY] = 1
    levels = np.array(127)
    if layer.winograd:
        # More levels where no sum can overflow, rounding included.
        most = _WINOGRAD_SUM / 127 - rows.shape[1] / 2
        sums = np.abs(rows / bounds).sum(axis=1, keepdims=True).clip(min=1)
        levels = np.floor((most / sums).clip(_WINOGRAD_LEVELS, 127))
    scales = levels / bounds
    weights = np.rint(rows * scales).astype(np.int8).tobytes()
    input_scale = 127 / largest_input if largest_input > _TINY else 1
    behind = np.append(scales, input_scale).astype("<f4").tobytes()
    return INT8_TAG + weights + bytes(-len(weights) % 4) + layer.content[end:] + behind
