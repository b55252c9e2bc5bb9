"""Time an export in its runtimes, and alternately PaddleSeg's own export of the same weights."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import paddle
import yaml
from paddle import nn
from paddleseg.deploy.export import WrappedModel

from liteseg_plugin.deploy import runtimes
from liteseg_plugin.deploy.export import MODEL_FILES, ONNX_FILE, PARAMS_FILE, file_sha256
from liteseg_plugin.deploy.exported import ExportedModel
from liteseg_plugin.deploy.onnx import DEFAULT_OPSET, convert

_DISTRIBUTIONS = {
    "paddle": ("paddlepaddle", "paddlepaddle-gpu"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
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
    deploy = {"model": model, "params": PARAMS_FILE, "transforms": [], "output_op": "argmax"}
    if onnx:
        convert(folder / model, folder / PARAMS_FILE, folder / ONNX_FILE, DEFAULT_OPSET)
    own = {"onnx": ONNX_FILE if onnx else None}
    text = yaml.safe_dump({"Deploy": deploy, "liteseg": own})
    (folder / "deploy.yaml").write_text(text, encoding="utf-8")
    return folder


def benchmark(
    folders: dict[str, str | os.PathLike],
    runtime: str,
    input_shape: Sequence[int],
    *,
    device: str = "cpu",
    threads: int = 1,
    warmup: int = 5,
    repeats: int = 30,
    progress: Callable[[Sequence[int]], Sequence[int]] = lambda rounds: rounds,
) -> dict:
    """Time exported folders in one runtime, taking turns, on the same random images.

    What is timed is one call of the engine: NumPy images in, NumPy labels out, copies included;
    no decoding, transforms or drawing. Both copies wait for the device.

    Args:
        folders: Exported folders by a name of one's own; ratios are against the first.
        runtime: One of ``runtimes.RUNTIMES``.
        input_shape: (N, 3, H, W).
        device: ``cpu`` or ``gpu``.
        threads: CPU threads.
        warmup: Rounds that do not count.
        repeats: Rounds that count.
        progress: Wraps the rounds, as ``tqdm`` does.

    Returns:
        The conditions, and for each folder ``min_ms``, ``median_ms``, ``p95_ms`` of a call, a
        ``note`` if the engine had to be set up in another way, and ``agreement`` of its labels
        with the first's. With two folders also ``ratio``: the median, over rounds, of the second's
        time over the first's.
    """
    images = np.random.default_rng(0).normal(size=input_shape).astype("float32")
    engines, notes = {}, {}
    for name, folder in folders.items():
        engines[name], notes[name] = _engine(
            runtime, ExportedModel(folder), device, threads, images
        )
    outputs = {name: engine.run(images) for name, engine in engines.items()}
    times = {name: [] for name in engines}
    for round_number in progress(range(warmup + repeats)):
        for name, engine in engines.items():
            # Not counted: the threads of the engine before spin on for a while.
            engine.run(images)
            started = time.perf_counter()
            engine.run(images)
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
        "precision": "float32",
        "input_shape": list(input_shape),
        "warmup": warmup,
        "repeats": repeats,
        "timed": "one call of the engine, copies included",
        "results": {
            name: {
                "min_ms": float(np.min(values)),
                "median_ms": float(np.median(values)),
                "p95_ms": float(np.percentile(values, 95)),
                "note": notes[name],
                "agreement": float((outputs[name] == outputs[first]).mean()),
                "sha256": file_sha256(ExportedModel(folders[name]).params),
            }
            for name, values in times.items()
        },
    }
    if others:
        report["ratio"] = float(np.median(np.divide(times[others[0]], times[first])))
    return report


def _engine(
    runtime: str, exported: ExportedModel, device: str, threads: int, images: np.ndarray
) -> tuple[runtimes.Runtime, str]:
    """Load an export, and run it once; without oneDNN where Paddle cannot run it with."""
    engine = runtimes.create(runtime, exported, device, threads)
    try:
        engine.run(images)
    except Exception as error:
        if runtime != "paddle" or device != "cpu":
            raise
        engine = runtimes.PaddleInference(exported, device, threads, onednn=False)
        reason = str(error).strip().splitlines()[-1].strip()
        return engine, f"without oneDNN, which raises: {reason}"
    return engine, ""


def _version(runtime: str) -> str:
    for name in _DISTRIBUTIONS[runtime]:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
