from __future__ import annotations

import pytest

from liteseg_plugin.errors import ExportError
from liteseg_plugin.evaluation.benchmark import (
    BenchmarkResult,
    Conditions,
    Timing,
    choose_runtimes,
    choose_shape,
    need_onnx,
)
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import ExportedModel


def timing(median_ms, note=""):
    return Timing("fp32", median_ms - 1, median_ms, median_ms + 1, note, 1.0, "0" * 64)


def test_benchmark_refuses_what_cannot_be_timed():
    with pytest.raises(ValueError, match=r"unknown timed 'all'; choose one of \['call', 'engine'"):
        Conditions((1, 3, 8, 8), timed="all")


def test_benchmark_result_as_text_and_as_json():
    conditions = Conditions((1, 3, 8, 16), threads=2, repeats=7)
    results = {"ours": timing(5), "stock": timing(10, "without oneDNN")}
    both = BenchmarkResult("paddle", "3.3.1", "x86_64", conditions, results, ratio=2.0)
    head, ours, stock, ratio = both.text().split("\n")
    assert head.startswith("paddle 3.3.1, cpu, 2 threads, 1x3x8x16; ")
    assert head.endswith("; 7 rounds after 5")
    assert "median     5.0" in ours and not ours.endswith(")")
    assert "100.0000% of labels agree   (without oneDNN)" in stock
    assert ratio == "  stock takes 2.00 times as long (median over rounds)"
    document = both.to_json()
    assert document["input_shape"] == [1, 3, 8, 16] and document["ratio"] == 2.0
    assert document["results"]["stock"]["note"] == "without oneDNN"
    alone = BenchmarkResult("paddle", "3.3.1", "x86_64", conditions, {"ours": timing(5)})
    assert "ratio" not in alone.to_json() and len(alone.text().split("\n")) == 2


def test_runtimes_of_an_onnx_file_are_those_that_read_it():
    assert "paddle" not in choose_runtimes(None, "cpu", "fp32", only_onnx=True)
    assert "paddle" in choose_runtimes(None, "cpu", "fp32", only_onnx=False)
    assert choose_runtimes(["openvino"], "cpu", "fp32", only_onnx=True) == ["openvino"]
    with pytest.raises(ExportError, match="Paddle and ncnn do not read ONNX"):
        choose_runtimes(["openvino", "paddle"], "cpu", "fp32", only_onnx=True)


def test_runtimes_of_an_export_are_those_that_it_has_files_for(pointwise, tmp_path):
    settings = {"transforms": [{"type": "Normalize"}]}
    exported = ExportedModel.read(export_model(pointwise(), tmp_path, **settings))
    assert choose_runtimes(None, "cpu", "fp32", exported=exported) == ["paddle"]
    with pytest.raises(ExportError, match="create one with liteseg quantize"):
        choose_runtimes(None, "cpu", "int8", exported=exported)


def test_shape_is_the_exports_if_it_is_fixed(pointwise, tmp_path):
    assert choose_shape((None, 3, None, 96), None) == (1, 3, 512, 96)
    settings = {"transforms": [{"type": "Normalize"}], "input_shape": (2, 3, 24, 32)}
    exported = ExportedModel.read(export_model(pointwise(), tmp_path, **settings))
    assert choose_shape((None, 3, None, None), exported) == (2, 3, 24, 32)
    with pytest.raises(ExportError, match="takes 2x3x24x32, not 1x3x24x32"):
        choose_shape((1, 3, None, None), exported)


def test_which_runtimes_need_onnx():
    assert need_onnx(["paddle", "openvino"]) and not need_onnx(["paddle", "paddle_tensorrt"])
