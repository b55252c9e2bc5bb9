"""Time exports in a runtime, taking turns."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from liteseg_plugin.datasets.image_format import RGB, ImageFormat
from liteseg_plugin.errors import ExportError, last_line
from liteseg_plugin.exported import ExportedModel, ModelFiles
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.metrics.agreement import label_agreement
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.runtimes.base import Runtime, written_shape
from liteseg_plugin.runtimes.choice import choose
from liteseg_plugin.runtimes.paddle import PaddleInference
from liteseg_plugin.system.checksums import file_sha256
from liteseg_plugin.system.versions import installed_versions

if TYPE_CHECKING:
    from paddleseg.cvlibs import SegBuilder

TIMED = {
    "engine": "the engine alone, without copies",
    "call": "one call of the engine, copies included",
    "file": "from an image file to its label map",
}
"""What can be timed. All wait for the device."""

_WITHOUT_ONNX = {"paddle", "paddle_tensorrt", "ncnn"}
_DISTRIBUTIONS = {
    "paddle": ("paddlepaddle", "paddlepaddle-gpu"),
    "paddle_tensorrt": ("paddlepaddle-gpu",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
    "ncnn": ("ncnn",),
}


@dataclass(frozen=True)
class Conditions:
    """Conditions of a benchmark.

    Attributes:
        input_shape: (N, 3, H, W).
        device: ``auto``, ``cpu`` or ``gpu``.
        threads: CPU threads.
        precision: Of the first export; the others compute in float32.
        timed: A key of ``TIMED``.
        warmup: Warm-up rounds.
        repeats: Timed rounds.

    Raises:
        ValueError: If ``timed`` is unknown.
    """

    input_shape: tuple[int, int, int, int]
    device: str = "cpu"
    threads: int = 1
    precision: str = "fp32"
    timed: str = "call"
    warmup: int = 5
    repeats: int = 30

    def __post_init__(self) -> None:
        """Check what is timed."""
        if self.timed not in TIMED:
            raise ValueError(f"unknown timed {self.timed!r}; choose one of {sorted(TIMED)}")


@dataclass(frozen=True)
class Timing:
    """Times of one export.

    Attributes:
        precision: What it computes in.
        min_ms: Shortest time, in milliseconds.
        median_ms: Median time, in milliseconds.
        p95_ms: 95th percentile, in milliseconds.
        note: How the set-up of the engine differs from the default; empty for the default.
        agreement: Share of its labels that are those of the first export, 0 to 1.
        sha256: Of the model file, in hexadecimal.
    """

    precision: str
    min_ms: float
    median_ms: float
    p95_ms: float
    note: str
    agreement: float
    sha256: str


@dataclass(frozen=True)
class BenchmarkResult:
    """Times of exports in one runtime.

    Attributes:
        runtime: One of ``catalog.RUNTIMES``.
        cpu: What Python's ``platform`` says of the processor.
        results: A timing for each export, by its name.
        ratio: Median, over rounds, of the second export's time over the first's; None for one
            export.
    """

    runtime: str
    version: str
    cpu: str
    conditions: Conditions
    results: Mapping[str, Timing]
    ratio: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        conditions = asdict(self.conditions)
        document = {
            "runtime": self.runtime,
            "version": self.version,
            "device": conditions["device"],
            "cpu": self.cpu,
            "threads": conditions["threads"],
            "input_shape": list(conditions["input_shape"]),
            "warmup": conditions["warmup"],
            "repeats": conditions["repeats"],
            "timed": TIMED[conditions["timed"]],
            "results": {name: asdict(timing) for name, timing in self.results.items()},
        }
        return document if self.ratio is None else {**document, "ratio": self.ratio}

    def text(self) -> str:
        """Return the result as lines for the terminal."""
        of = self.conditions
        shape = "x".join(map(str, of.input_shape))
        lines = [
            f"{self.runtime} {self.version}, {of.device}, {of.threads} threads, {shape}; "
            f"{TIMED[of.timed]}; {of.repeats} rounds after {of.warmup}"
        ]
        lines += [
            f"  {name:16}{timing.precision}  min {timing.min_ms:7.1f}  "
            f"median {timing.median_ms:7.1f}  p95 {timing.p95_ms:7.1f} ms   "
            f"{timing.agreement:.4%} of labels agree"
            + (f"   ({timing.note})" if timing.note else "")
            for name, timing in self.results.items()
        ]
        if self.ratio is not None:
            other = list(self.results)[1]
            lines.append(f"  {other} takes {self.ratio:.2f} times as long (median over rounds)")
        return "\n".join(lines)


def choose_runtimes(
    wanted: Sequence[str] | None,
    device: str,
    precision: str,
    *,
    exported: ExportedModel | None = None,
    only_onnx: bool = False,
) -> list[str]:
    """Return the runtimes to time.

    Args:
        wanted: Names of runtimes; None for all that are installed and have a file, but ncnn, which
            is for other processors.
        device: ``auto``, ``cpu`` or ``gpu``.
        precision: What they compute in.
        exported: The export; None for one that will be made, with all files.
        only_onnx: Whether the model is an ONNX file by itself.

    Raises:
        ExportError: If one of them does not read the ONNX file, or none can run the export.
    """
    if wanted is not None:
        if only_onnx and not _WITHOUT_ONNX.isdisjoint(wanted):
            raise ExportError(
                "--onnx_model_path: Paddle and ncnn do not read ONNX; take another --runtime"
            )
        return list(wanted)
    if exported is None:
        left_out = _WITHOUT_ONNX if only_onnx else {"ncnn"}
        return [name for name in catalog.installed(device, precision) if name not in left_out]
    names = [name for name in catalog.installed_for(exported, device, precision) if name != "ncnn"]
    return names or [choose(exported, device=device, precision=precision).runtime]  # its error


def channels_of(builder: SegBuilder | None, exported: ExportedModel | None) -> int:
    """Return the channels of the images that a config's model or an export takes; 3 by default."""
    if exported is not None:
        return exported.image_format.channels
    if builder is None:
        return RGB.channels
    config = builder.config
    return ImageFormat.of_config(config.val_dataset_cfg, config.model_cfg).channels


def choose_shape(
    asked: tuple[int | None, int, int | None, int | None], exported: ExportedModel | None
) -> tuple[int, int, int, int]:
    """Return the shape (N, C, H, W) to time: as asked, else the export's, else 1 x C x 512 x 1024.

    Raises:
        ExportError: If the export takes another.
    """
    fixed = exported.input_shape if exported else (None,) * 4
    choices = zip(asked, fixed, (1, asked[1], 512, 1024))
    batch, channels, height, width = (next(n for n in c if n is not None) for c in choices)
    shape = batch, channels, height, width
    if exported and any(taken not in (None, n) for taken, n in zip(fixed, shape)):
        raise ExportError(
            f"{exported.model.parent} takes {written_shape(fixed)}, not {written_shape(shape)} "
            "(N x C x H x W): see --batch_size, --height and --width"
        )
    return shape


def need_onnx(runtimes: Iterable[str]) -> bool:
    """Tell whether one of these runtimes loads the ONNX file of an export."""
    return not _WITHOUT_ONNX.issuperset(runtimes)


def benchmark(
    exports: Mapping[str, ModelFiles],
    runtime: str,
    conditions: Conditions,
    *,
    progress: Callable[[Sequence[int]], Iterable[int]],
) -> BenchmarkResult:
    """Time exports in one runtime, taking turns, on the same random images.

    Before each timed call, the engine makes an untimed one: the threads of the previous engine
    keep spinning for a while.

    Args:
        exports: Exports by name; ratios are against the first.
        runtime: One of ``catalog.RUNTIMES``.
        conditions: Of all exports.
        progress: Wraps the rounds, as ``tqdm`` does.
    """
    device, _ = catalog.choose_device(runtime, conditions.device, conditions.precision)
    of = conditions = replace(conditions, device=device)
    images = np.random.default_rng(0).normal(size=of.input_shape).astype("float32")
    engines: dict[str, Runtime] = {}
    notes, labels, calls = {}, {}, {}
    precisions = dict(zip(exports, (of.precision, *["fp32"] * len(exports))))
    for name, export in exports.items():
        engines[name], notes[name] = _engine(runtime, export, of, precisions[name], images)
        labels[name] = export.labels_of(engines[name].run(images))
    with tempfile.TemporaryDirectory() as folder:
        exported = next(iter(exports.values()))
        image_format = exported.image_format if isinstance(exported, ExportedModel) else RGB
        path = _picture(folder, of.input_shape[2:], image_format) if of.timed == "file" else ""
        for name, engine in engines.items():
            calls[name] = _call(of.timed, engine, exports[name], images, path)
        times: dict[str, list[float]] = {name: [] for name in engines}
        for round_number in progress(range(of.warmup + of.repeats)):
            for name, call in calls.items():
                call()
                started = time.perf_counter()
                call()
                elapsed = (time.perf_counter() - started) * 1000
                if round_number >= of.warmup:
                    times[name].append(elapsed)
    first, *others = engines
    ratio = None
    if others:
        # A clock that did not advance would make 0 / 0.
        ratios = np.maximum(times[others[0]], 1e-3) / np.maximum(times[first], 1e-3)
        ratio = float(np.median(ratios))
    return BenchmarkResult(
        runtime=runtime,
        version=next(iter(installed_versions(*_DISTRIBUTIONS[runtime]).values()), "unknown"),
        cpu=platform.processor() or platform.machine(),
        conditions=conditions,
        results={
            name: Timing(
                precision=precisions[name],
                min_ms=float(np.min(values)),
                median_ms=float(np.median(values)),
                p95_ms=float(np.percentile(values, 95)),
                note=notes[name],
                agreement=label_agreement(labels[name], labels[first]),
                sha256=file_sha256(exports[name].model),
            )
            for name, values in times.items()
        },
        ratio=ratio,
    )


def _call(
    timed: str, engine: Runtime, export: ModelFiles, images: np.ndarray, path: str
) -> Callable[[], object]:
    """Return what is timed."""
    if timed == "call":
        return lambda: engine.run(images)
    engine.feed(images)
    if timed == "engine":
        return engine.compute
    if not isinstance(export, ExportedModel) or len(images) != 1:
        raise ExportError("--timed file needs an exported folder and one image")
    predictor = Predictor.from_engine(export, engine)
    return lambda: predictor(predictor.read(path))


def _picture(folder: str, size_hw: tuple[int, int], image_format: ImageFormat) -> str:
    """Write smooth noise, which compresses like a photograph: as a JPEG, or a PNG if it must be."""
    height, width = size_hw
    channels, dtype = image_format.channels, image_format.dtype
    if channels not in (1, 3, 4):
        raise ExportError(f"--timed file needs images of 1, 3 or 4 channels, not of {channels}")
    size = (height // 8 + 1, width // 8 + 1, channels)
    coarse = np.random.default_rng(0).integers(0, image_format.max_value + 1, size).astype(dtype)
    path = f"{folder}/picture.{'jpg' if channels < 4 and dtype == 'uint8' else 'png'}"
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(path, picture.clip(0, image_format.max_value))
    return path


def _engine(
    runtime: str, export: ModelFiles, of: Conditions, precision: str, images: np.ndarray
) -> tuple[Runtime, str]:
    """Load an export, and run it once; without oneDNN where Paddle cannot run it with."""
    engine = catalog.create(runtime, export, of.device, of.threads, precision)
    try:
        engine.run(images)
    except Exception as error:
        if runtime != "paddle" or of.device != "cpu":
            raise
        engine = PaddleInference(export, of.device, of.threads, accelerated=False)
        return engine, f"without oneDNN, which raises: {last_line(error)}"
    if isinstance(engine, PaddleInference) and of.device == "cpu" and not engine.with_onednn:
        return engine, "in Paddle's OpenVINO"
    return engine, ""
