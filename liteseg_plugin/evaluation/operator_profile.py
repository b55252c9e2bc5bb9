"""Where ONNX Runtime spends its time."""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from liteseg_plugin.runtimes.onnxruntime import create_session


def time_by_operator(
    path: str | os.PathLike, input_shape: Sequence[int], threads: int
) -> dict[str, float]:
    """Measure the time of each type of operator on a CPU.

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


def profile_text(profile: Mapping[str, float]) -> str:
    """Return the times as lines of text."""
    lines = [f"  {operator:24}{milliseconds:8.2f}" for operator, milliseconds in profile.items()]
    return "\n".join(["ONNX Runtime on the CPU, ms by operator:", *lines])
