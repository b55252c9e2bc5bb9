from __future__ import annotations

import importlib.util
import json

import pytest


@pytest.mark.slow
def test_benchmark_times_both_exports_and_says_how(run, trained):
    with_onnx = importlib.util.find_spec("paddle2onnx") is not None
    runtimes = ("paddle", "onnxruntime", "openvino") if with_onnx else ("paddle",)
    result = run(
        *("benchmark", "--config", trained.config, "--model_path", trained.weights),
        *("--width", 256, "--height", 128, "--repeats", 3, "--warmup", 1, "--json"),
        *("--against", "paddleseg", "--cpu_threads", 2, "--runtime", *runtimes),
    )
    reports = json.loads(result.stdout)["reports"]
    assert [report["runtime"] for report in reports] == list(runtimes)
    for report in reports:
        assert report["input_shape"] == [1, 3, 128, 256]
        assert (report["threads"], report["warmup"], report["repeats"]) == (2, 1, 3)
        assert report["version"] != "unknown"
        assert report["ratio"] > 0
        results = report["results"]
        assert list(results) == ["liteseg_plugin", "paddleseg"]
        for timing in results.values():
            assert 0 < timing["min_ms"] <= timing["median_ms"] <= timing["p95_ms"]
        # Both are exact here: the grid of 4x8 cells divides into 1, 2 and 4 bins. (At 96x128, 3x4
        # cells, PaddleSeg's own ONNX file divides by zero and takes the process along.)
        assert results["paddleseg"]["agreement"] > 0.999
