"""Post-training static quantisation of an export to INT8, with onnxruntime's quantiser."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.export.onnx import fold, quiet
from liteseg_plugin.export.quantization_report import QuantizationReport, QuantizedLayer
from liteseg_plugin.export.replacing import replace_files
from liteseg_plugin.exported import (
    DEPLOY_FILE,
    INT8_FILE,
    INT8_REPORT_FILE,
    ModelFiles,
)
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.metrics.agreement import label_agreement
from liteseg_plugin.runtimes.base import onnx_file
from liteseg_plugin.runtimes.onnxruntime import create_session
from liteseg_plugin.system.checksums import file_sha256
from liteseg_plugin.system.files import scratch_folder
from liteseg_plugin.system.text import read_yaml

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization.calibrate import TensorsData

TOLERANCE = 0.005
"""Share of labels that a layer may change, quantised alone, and still be quantised."""


def quantize(
    path: str | os.PathLike,
    images: Sequence[str | os.PathLike],
    *,
    tolerance: float = TOLERANCE,
    measured_images: int = 8,
    progress: Callable[[Iterable], Iterable] = lambda steps: steps,
) -> QuantizationReport:
    """Add a quantised ONNX file to an exported folder.

    Convolutions compute in INT8, with a scale for each output channel of their weights, and one
    for each of their inputs and outputs, from the range that the calibration images cause. Which
    convolutions that hurts is measured: each is quantised alone, and those that change more labels
    than ``tolerance`` stay in float32.

    Args:
        path: The exported folder; it must hold an ONNX file.
        images: Calibration images: typical ones, a few dozen.
        tolerance: Share of labels that a layer may change, quantised alone, from 0 to 1.
        measured_images: How many of the images the layers are measured on; these are held in
            memory, the others one at a time.
        progress: Wraps steps of work, as ``tqdm`` does.

    Returns:
        The report, also written beside the model as ``model_int8.json``.

    Raises:
        DataError: If there is no image, or one cannot be read, or is of a size that the export does
            not take.
        ExportError: If there is not an ONNX file, or onnxruntime or onnx is missing.
        ValueError: If ``tolerance`` is not a share.
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must be a share of labels from 0 to 1, got {tolerance}")
    if not images:
        raise DataError("calibration needs images, but there are none")
    predictor = Predictor(path, "onnxruntime", "cpu")
    exported = predictor.exported

    def read(image: str | os.PathLike) -> np.ndarray:
        batch = predictor.preprocess(predictor.read(image))
        predictor.require_shape(batch)
        return batch

    with tempfile.TemporaryDirectory() as work:
        source = fold(onnx_file(exported, "fp32"))
        ranges = _ranges(source, map(read, images), work)
        layers = [node for node in source.graph.node if node.op_type == "Conv"]

        names = [layer.name for layer in layers]
        every = len(images) // min(measured_images, len(images))
        probe = [read(image) for image in images[::every][:measured_images]]
        wanted = list(_labels(source, probe, exported))
        changes = {
            name: 1 - _agreement(_quantized(source, ranges, [name]), probe, wanted, exported)
            for name in progress(names)
        }
        kept = [name for name in names if changes[name] <= tolerance]
        if not kept:
            raise ExportError(
                f"every layer changes more than {tolerance:.2%} of the labels in INT8: nothing is "
                "left to quantise; are the calibration images typical ones?"
            )
        agreement_all = _agreement(_quantized(source, ranges, names), probe, wanted, exported)
        result = _quantized(source, ranges, kept)
        agreement = _agreement(result, probe, wanted, exported)

    report = QuantizationReport(
        images=len(images),
        measured_images=len(probe),
        tolerance=tolerance,
        agreement_all=agreement_all,
        agreement=agreement,
        layers=[
            QuantizedLayer(
                name=layer.name,
                weight_shape=_weight_shape(source, layer),
                changed_alone=changes[layer.name],
                precision="int8" if layer.name in kept else "fp32",
            )
            for layer in layers
        ],
    )
    _write(exported.model.parent, result, report)
    return report


def _ranges(model: onnx.ModelProto, batches: Iterable[np.ndarray], work: str) -> TensorsData:
    """Return the range of each input and output of the convolutions over the images.

    One batch is held at a time.
    """
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator

    name = model.graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = ({name: batch} for batch in batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    path = Path(work, "calibrated.onnx")
    onnx.save(model, str(path))
    calibrator = create_calibrator(
        path, ["Conv", "Relu"], augmented_model_path=str(Path(work, "augmented.onnx"))
    )
    with quiet():
        calibrator.set_execution_providers(["CPUExecutionProvider"])
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


def _quantized(
    model: onnx.ModelProto, ranges: TensorsData, names: Sequence[str]
) -> onnx.ModelProto:
    """Return the model with the named convolutions in INT8, between Q and DQ nodes."""
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    # A ReLU behind becomes part of the scale, which then spends no step on negative numbers.
    made = {node.output[0] for node in model.graph.node if node.name in names}
    relus = [n.name for n in model.graph.node if n.op_type == "Relu" and n.input[0] in made]
    quantizer = QDQQuantizer(
        copied,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        # Features are positive behind a ReLU. With signed ones both CPU runtimes are half as fast.
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[*names, *relus],
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv", "Relu"],
        extra_options={},
    )
    quantizer.quantize_model()
    return quantizer.model.model


def _labels(
    model: onnx.ModelProto, batches: Iterable[np.ndarray], exported: ModelFiles
) -> Iterator[np.ndarray]:
    session = create_session(model)
    name = session.get_inputs()[0].name
    for batch in batches:
        [output] = session.run(None, {name: batch})
        yield exported.labels_of(output)


def _agreement(
    model: onnx.ModelProto,
    batches: Sequence[np.ndarray],
    wanted: Sequence[np.ndarray],
    exported: ModelFiles,
) -> float:
    pairs = zip(_labels(model, batches, exported), wanted)
    return float(np.mean([label_agreement(labels, others) for labels, others in pairs]))


def _weight_shape(model: onnx.ModelProto, layer: onnx.NodeProto) -> list[int]:
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return shapes.get(layer.input[1], [])


def _write(folder: Path, model: onnx.ModelProto, report: QuantizationReport) -> None:
    """Put model and report in place; an existing INT8 model works until then."""
    with scratch_folder(folder, "quantize") as complete:
        Path(complete, INT8_FILE).write_bytes(model.SerializeToString())
        document = json.dumps(report.to_json(), indent=1)
        Path(complete, INT8_REPORT_FILE).write_text(document, encoding="utf-8")
        deploy = read_yaml(folder / DEPLOY_FILE)
        own = deploy["liteseg"]  # which names the ONNX file
        own["onnx_int8"] = INT8_FILE
        checksums = own["sha256"] = own.get("sha256") or {}
        checksums[INT8_FILE] = file_sha256(Path(complete, INT8_FILE))
        replace_files(folder, complete, deploy)
