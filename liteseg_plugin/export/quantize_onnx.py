"""Quantisation of an ONNX file with onnxruntime's quantiser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from liteseg_plugin.export.onnx import fold, quiet
from liteseg_plugin.export.onnx_rewriting import (
    add_fourth_channel,
    maxima_in_groups,
    pools_as_convolutions,
)
from liteseg_plugin.exported import INT8_FILE, INT8_REPORT_FILE, ModelFiles
from liteseg_plugin.runtimes.base import onnx_file
from liteseg_plugin.runtimes.onnxruntime import create_session

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization.calibrate import TensorsData

# For fewer output channels, converting the input costs more than INT8 saves.
_LEAST_CHANNELS = 4
# 9 pixels over the 4 or 6 of a mean at the border, exactly.
_BORDER_SCALE = {"scale": np.float32(0.25), "zero_point": np.uint8(0)}


class OnnxQuantizer:
    """The ONNX file of an export; see :class:`liteseg_plugin.export.quantize.Quantizer`.

    Inputs and outputs have the range of their values in all images.
    """

    source: ClassVar = "onnx"
    runtime: ClassVar = "onnxruntime"
    files: ClassVar[dict[str, str]] = {"onnx_int8": INT8_FILE}
    report_file: ClassVar = INT8_REPORT_FILE

    def __init__(self, exported: ModelFiles, batches: Iterable[np.ndarray], work: Path) -> None:
        self._exported = exported
        self._model = fold(onnx_file(exported, "fp32"))
        maxima_in_groups(self._model)
        self._ranges = _ranges(self._model, batches, work)
        graph = self._model.graph
        shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        self.weight_shapes = {
            node.name: shapes[node.input[1]]
            for node in graph.node
            if node.op_type == "Conv" and shapes.get(node.input[1], [0])[0] >= _LEAST_CHANNELS
        }

    def labels(self, names: Sequence[str], batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the labels of batches with the named layers in INT8."""
        session = create_session(self._quantized(names) if names else self._model)
        name = session.get_inputs()[0].name
        for batch in batches:
            [output] = session.run(None, {name: batch})
            yield self._exported.labels_of(output)

    def write(self, names: Sequence[str], folder: Path) -> None:
        """Write the file with the named layers in INT8."""
        Path(folder, INT8_FILE).write_bytes(self._quantized(names).SerializeToString())

    def _quantized(self, names: Sequence[str]) -> onnx.ModelProto:
        """Return the model with the named convolutions in INT8, between Q and DQ nodes."""
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        copied = onnx.ModelProto()
        copied.CopyFrom(self._model)
        nodes = copied.graph.node
        # A ReLU behind becomes part of the scale, which then spends no step on negative numbers.
        made = {node.output[0] for node in nodes if node.name in names}
        relus = [n for n in nodes if n.op_type == "Relu" and n.input[0] in made]
        layers = [*names, *(relu.name for relu in relus)]
        overrides = {}
        for convolution, product in pools_as_convolutions(copied, {r.output[0] for r in relus}):
            layers += [convolution.name, product.name]
            self._ranges.data[convolution.output[0]] = self._ranges[product.output[0]]
            overrides[product.input[1]] = [_BORDER_SCALE]
        quantizer = QDQQuantizer(
            copied,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            # Features are positive behind a ReLU. With signed ones both CPU runtimes are half as
            # fast.
            activation_qType=QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=layers,
            nodes_to_exclude=[],
            op_types_to_quantize=["Conv", "Relu", "Mul"],
            extra_options={"TensorQuantOverrides": overrides},
        )
        quantizer.quantize_model()
        add_fourth_channel(quantizer.model.model)
        quantizer.model.topological_sort()
        return quantizer.model.model


def _ranges(model: onnx.ModelProto, batches: Iterable[np.ndarray], work: Path) -> TensorsData:
    """Return the range of each input and output of the convolutions over the images.

    One batch is held at a time.
    """
    import onnx
    from onnxruntime.quantization.calibrate import create_calibrator

    feeds = ({model.graph.input[0].name: batch} for batch in batches)
    path = work / "calibrated.onnx"
    onnx.save(model, str(path))
    calibrator = create_calibrator(
        path, ["Conv", "Relu", "AveragePool"], augmented_model_path=str(work / "augmented.onnx")
    )
    with quiet():
        calibrator.set_execution_providers(["CPUExecutionProvider"])
        calibrator.collect_data(SimpleNamespace(get_next=lambda: next(feeds, None)))
        ranges = calibrator.compute_data()
    for node in reversed(model.graph.node):
        whole = ranges.data.get(node.output[0])
        # Parts in the range of the whole are copied as they are. A negative range would have the
        # quantiser drop the ReLUs of other parts.
        if node.op_type == "Concat" and whole is not None and whole.lowest >= 0:
            ranges.data.update({part: whole for part in node.input})
    return ranges
