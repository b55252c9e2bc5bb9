"""Post-training static quantisation of an export to INT8."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.export.quantization_report import QuantizationReport, QuantizedLayer
from liteseg_plugin.export.quantize_ncnn import NcnnQuantizer
from liteseg_plugin.export.quantize_onnx import OnnxQuantizer
from liteseg_plugin.export.replacing import replace_files
from liteseg_plugin.exported import DEPLOY_FILE, ExportedModel, ModelFiles
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.metrics.agreement import label_agreement
from liteseg_plugin.system.checksums import file_sha256
from liteseg_plugin.system.files import scratch_folder
from liteseg_plugin.system.text import read_yaml

TOLERANCE = 0.005
"""Share of labels that a layer may change, quantised alone, and still be quantised."""


class Quantizer(Protocol):
    """A model in one format, each layer of which can be quantised.

    Args:
        exported: The export.
        batches: Calibration images, each (N, C, H, W); one is held at a time.
        work: A folder for temporary files.

    Attributes:
        source: Attribute of :class:`ModelFiles` that names the model in float32.
        runtime: A runtime that runs it.
        files: Names of the files in INT8, by their keys in ``deploy.yaml``.
        report_file: Name of the file for the report.
        weight_shapes: (C_out, C_in, h, w) by name of the layer, in the order of the graph.
    """

    source: ClassVar[str]
    runtime: ClassVar[str]
    files: ClassVar[dict[str, str]]
    report_file: ClassVar[str]
    weight_shapes: dict[str, list[int]]

    def __init__(self, exported: ModelFiles, batches: Iterable[np.ndarray], work: Path) -> None: ...

    def labels(self, names: Sequence[str], batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the labels of batches with the named layers in INT8."""

    def write(self, names: Sequence[str], folder: Path) -> None:
        """Write the files with the named layers in INT8."""


QUANTIZERS: tuple[type[Quantizer], ...] = (OnnxQuantizer, NcnnQuantizer)


def quantize(
    path: str | os.PathLike,
    images: Sequence[str | os.PathLike],
    *,
    tolerance: float = TOLERANCE,
    measured_images: int = 8,
    progress: Callable[[Iterable], Iterable] = lambda steps: steps,
) -> list[QuantizationReport]:
    """Add a quantised model to an exported folder, for its ONNX file, its ncnn files, or both.

    Convolutions compute in INT8, with a scale for each output channel of their weights, and one
    for each of their inputs and outputs, from the range that the calibration images cause. Which
    convolutions that hurts is measured: each is quantised alone, and those that change more labels
    than ``tolerance`` stay in float32.

    Args:
        path: The exported folder.
        images: Calibration images: typical ones, a few dozen.
        tolerance: Share of labels that a layer may change, quantised alone, from 0 to 1.
        measured_images: How many of the images the layers are measured on; these are held in
            memory, the others one at a time.
        progress: Wraps steps of work, as ``tqdm`` does.

    Returns:
        The report of each model, also written beside it, as ``model_int8.json`` and
        ``model_ncnn_int8.json``.

    Raises:
        DataError: If there is no image, or one cannot be read, or is of a size that the export does
            not take.
        ExportError: If there are neither ONNX nor ncnn files, or they cannot be read, or a package
            for them is missing.
        ValueError: If ``tolerance`` is not a share.
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must be a share of labels from 0 to 1, got {tolerance}")
    if not images:
        raise DataError("calibration needs images, but there are none")
    exported = ExportedModel.read(path)
    kinds = [kind for kind in QUANTIZERS if getattr(exported, kind.source)]
    if not kinds:
        raise ExportError(
            f"{exported.model.parent} has neither an ONNX nor an ncnn file; export with --format "
            "onnx or --format ncnn"
        )
    every = len(images) // min(measured_images, len(images))
    reports = []
    for kind in kinds:
        predictor = Predictor(exported, kind.runtime, "cpu")

        def read(image: str | os.PathLike, predictor: Predictor = predictor) -> np.ndarray:
            return predictor.filled(predictor.preprocess(predictor.read(image)))

        with tempfile.TemporaryDirectory() as work:
            model = kind(exported, map(read, images), Path(work))
            probe = [read(image) for image in images[::every][:measured_images]]
            report = _measure(model, probe, len(images), tolerance, progress)
            _write(exported.model.parent, model, report)
        reports.append(report)
    return reports


def _measure(
    model: Quantizer,
    probe: Sequence[np.ndarray],
    images: int,
    tolerance: float,
    progress: Callable[[Iterable], Iterable],
) -> QuantizationReport:
    """Decide which layers compute in INT8."""
    wanted = list(model.labels([], probe))

    def agreement(names: Sequence[str]) -> float:
        return float(np.mean([*map(label_agreement, model.labels(names, probe), wanted)]))

    names = [*model.weight_shapes]
    if not names:
        raise ExportError("the network has no layer that INT8 makes faster: nothing to quantise")
    changes = {name: 1 - agreement([name]) for name in progress(names)}
    kept = [name for name in names if changes[name] <= tolerance]
    if not kept:
        raise ExportError(
            f"every layer changes more than {tolerance:.2%} of the labels in INT8: nothing is "
            "left to quantise; are the calibration images typical ones?"
        )
    return QuantizationReport(
        model=next(iter(model.files.values())),
        images=images,
        measured_images=len(probe),
        tolerance=tolerance,
        agreement_all=agreement(names),
        agreement=agreement(kept),
        layers=[
            QuantizedLayer(
                name=name,
                weight_shape=model.weight_shapes[name],
                changed_alone=changes[name],
                precision="int8" if name in kept else "fp32",
            )
            for name in names
        ],
    )


def _write(folder: Path, model: Quantizer, report: QuantizationReport) -> None:
    """Put model and report in place; an existing INT8 model works until then."""
    kept = [layer.name for layer in report.layers if layer.precision == "int8"]
    with scratch_folder(folder, "quantize") as complete:
        model.write(kept, Path(complete))
        document = json.dumps(report.to_json(), indent=1)
        Path(complete, model.report_file).write_text(document, encoding="utf-8")
        deploy = read_yaml(folder / DEPLOY_FILE)
        own = deploy["liteseg"]  # which names the model in float32
        own.update(model.files)
        checksums = own["sha256"] = own.get("sha256") or {}
        checksums.update({n: file_sha256(Path(complete, n)) for n in model.files.values()})
        replace_files(folder, complete, deploy)
