"""Time an export in its runtimes, and alternately PaddleSeg's own export of the same weights."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import paddle
import yaml
from paddle import nn
from paddleseg.deploy.export import WrappedModel

from liteseg_plugin.datasets.validation import read_image
from liteseg_plugin.errors import ExportError, last_line
from liteseg_plugin.export.onnx import DEFAULT_OPSET, convert
from liteseg_plugin.exported import (
    MODEL_FILES,
    ONNX_FILE,
    PARAMS_FILE,
    ExportedModel,
    ModelFiles,
    file_sha256,
)
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.runtimes.base import Runtime
from liteseg_plugin.runtimes.onnxruntime import create_session
from liteseg_plugin.runtimes.paddle import PaddleInference

TIMED = {
    "engine": "the engine alone, without copies",
    "call": "one call of the engine, copies included",
    "file": "from an image file to its label map",
}
"""What can be timed. All wait for the device."""

_DISTRIBUTIONS = {
    "paddle": ("paddlepaddle", "paddlepaddle-gpu"),
    "paddle_tensorrt": ("paddlepaddle-gpu",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
}


def export_as_paddleseg(
    network: nn.Layer, folder: str | os.PathLike, input_shape: Sequence[int], onnx: bool
) -> Path:
    """Export a network of PaddleSeg's own class as PaddleSeg's tools/export.py does, with argmax.

    Args:
        network: PaddleSeg's network.
        folder: Where the files go.
        input_shape: (N, 3, H, W); at an open size PaddleSeg's export cannot be converted to ONNX.
        onnx: Whether to convert it with paddle2onnx.

    Returns:
        The folder.
    """
    network.eval()
    spec = [paddle.static.InputSpec(list(input_shape), "float32", "x")]
    paddle.jit.save(paddle.jit.to_static(WrappedModel(network, "argmax"), spec), f"{folder}/model")
    folder = Path(folder)
    model = next(f for f in MODEL_FILES if (folder / f).exists())
    deploy = {
        "model": model,
        "params": PARAMS_FILE,
        "transforms": [{"type": "Normalize"}],
        "output_op": "argmax",
    }
    if onnx:
        convert(folder / model, folder / PARAMS_FILE, folder / ONNX_FILE, DEFAULT_OPSET)
    own = {"onnx": ONNX_FILE if onnx else None}
    text = yaml.safe_dump({"Deploy": deploy, "liteseg": own})
    (folder / "deploy.yaml").write_text(text, encoding="utf-8")
    return folder


def benchmark(
    exports: Mapping[str, ModelFiles],
    runtime: str,
    input_shape: Sequence[int],
    *,
    device: str = "cpu",
    threads: int = 1,
    precision: str = "fp32",
    timed: str = "call",
    warmup: int = 5,
    repeats: int = 30,
    progress: Callable[[Sequence[int]], Sequence[int]] = lambda rounds: rounds,
) -> dict:
    """Time exports in one runtime, taking turns, on the same random images.

    Before the call that counts each engine makes one that does not: the threads of the engine
    before spin on for a while.

    Args:
        exports: Exports by a name of one's own; ratios are against the first.
        runtime: One of ``catalog.RUNTIMES``.
        input_shape: (N, 3, H, W).
        device: ``cpu`` or ``gpu``.
        threads: CPU threads.
        precision: Of the first export; the others compute in float32.
        timed: A key of ``TIMED``.
        warmup: Rounds that do not count.
        repeats: Rounds that count.
        progress: Wraps the rounds, as ``tqdm`` does.

    Returns:
        The conditions, and for each export ``precision``, ``min_ms``, ``median_ms``, ``p95_ms``, a
        ``note`` if the engine had to be set up in another way, and ``agreement`` of its labels
        with the first's. With two exports also ``ratio``: the median, over rounds, of the second's
        time over the first's.

    Raises:
        ValueError: If ``timed`` is unknown.
    """
    if timed not in TIMED:
        raise ValueError(f"unknown timed {timed!r}; choose one of {sorted(TIMED)}")
    images = np.random.default_rng(0).normal(size=input_shape).astype("float32")
    engines, notes, outputs, calls = {}, {}, {}, {}
    for name, export in exports.items():
        engine, notes[name] = _engine(runtime, export, device, threads, precision, images)
        engines[name], outputs[name] = (engine, precision), engine.run(images)
        precision = "fp32"
    with tempfile.TemporaryDirectory() as folder:
        path = _picture(folder, *input_shape[2:])
        for name, (engine, _) in engines.items():
            calls[name] = _call(timed, engine, exports[name], images, path)
        times: dict[str, list[float]] = {name: [] for name in engines}
        for round_number in progress(range(warmup + repeats)):
            for name, call in calls.items():
                call()
                started = time.perf_counter()
                call()
                elapsed = (time.perf_counter() - started) * 1000
                if round_number >= warmup:
                    times[name].append(elapsed)
    first, *others = engines
    report = {
        "runtime": runtime,
        "version": _version(runtime),
        "device": device,
        "cpu": platform.processor() or platform.machine(),
        "threads": threads,
        "input_shape": list(input_shape),
        "warmup": warmup,
        "repeats": repeats,
        "timed": TIMED[timed],
        "results": {
            name: {
                "precision": engines[name][1],
                "min_ms": float(np.min(values)),
                "median_ms": float(np.median(values)),
                "p95_ms": float(np.percentile(values, 95)),
                "note": notes[name],
                "agreement": float((outputs[name] == outputs[first]).mean()),
                "sha256": file_sha256(exports[name].model),
            }
            for name, values in times.items()
        },
    }
    if others:
        report["ratio"] = float(
            # A clock that stood still makes no ratio of nothing to nothing.
            np.median(np.maximum(times[others[0]], 1e-3) / np.maximum(times[first], 1e-3))
        )
    return report


def _call(
    timed: str,
    engine: Runtime,
    export: ModelFiles,
    images: np.ndarray,
    path: str,
) -> Callable[[], object]:
    """Return what is timed."""
    if timed == "call":
        return lambda: engine.run(images)
    engine.feed(images)
    if timed == "engine":
        return engine.compute
    if not isinstance(export, ExportedModel) or len(images) != 1:
        raise ExportError(
            "the way from a file to labels is that of one image of an exported folder"
        )
    predictor = Predictor.from_engine(export, engine)
    return lambda: predictor(read_image(path))


def _picture(folder: str, height: int, width: int) -> str:
    """Write a JPEG of smooth noise, which compresses about as a photograph does."""
    coarse = np.random.default_rng(0).integers(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), "uint8"
    )
    path = f"{folder}/picture.jpg"
    cv2.imwrite(path, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    return path


def _engine(
    runtime: str,
    export: ModelFiles,
    device: str,
    threads: int,
    precision: str,
    images: np.ndarray,
) -> tuple[Runtime, str]:
    """Load an export, and run it once; without oneDNN where Paddle cannot run it with."""
    engine = catalog.create(runtime, export, device, threads, precision)
    try:
        engine.run(images)
    except Exception as error:
        if runtime != "paddle" or device != "cpu":
            raise
        engine = PaddleInference(export, device, threads, onednn=False)
        return engine, f"without oneDNN, which raises: {last_line(error)}"
    return engine, ""


def time_by_operator(path: str | os.PathLike, input_shape: Sequence[int], threads: int) -> dict:
    """Say where ONNX Runtime spends its time on a CPU.

    Args:
        path: An ONNX file.
        input_shape: (N, 3, H, W).
        threads: CPU threads.

    Returns:
        Milliseconds of one call by type of operator, the largest first; medians over 10 calls.
    """
    images = np.random.default_rng(0).normal(size=input_shape).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        session = create_session(path, threads=threads, profile_prefix=f"{folder}/profile")
        for _ in range(10):
            session.run(None, {session.get_inputs()[0].name: images})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    by_node = defaultdict(list)
    for event in events:
        if event["name"].endswith("_kernel_time"):
            by_node[event["args"]["op_name"], event["name"]].append(event["dur"] / 1000)
    total: dict[str, float] = defaultdict(float)
    for (operator, _), durations in by_node.items():
        total[operator] += float(np.median(durations))
    return dict(sorted(total.items(), key=lambda entry: -entry[1]))


def _version(runtime: str) -> str:
    for name in _DISTRIBUTIONS[runtime]:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
