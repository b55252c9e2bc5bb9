from __future__ import annotations

from liteseg_plugin.export.quantization_report import QuantizationReport, QuantizedLayer


def report(*changes):
    layers = [
        QuantizedLayer(f"conv_{i}", [8, 4, 3, 3], change, "int8" if change <= 0.005 else "fp32")
        for i, change in enumerate(changes)
    ]
    return QuantizationReport("model_int8.onnx", 24, 8, 0.005, 0.985, 0.9942, layers)


def test_summary_names_the_worst_layer_only():
    made = report(0.001, 0.006, 0.0791, 0.005)
    lines = made.text().split("\n")
    assert lines == [
        "model_int8.onnx: 2 of 4 convolutions in INT8, calibrated on 24 images",
        "labels equal to float32's: 99.42% (with all convolutions in INT8: 98.50%)",
        "2 stay in float32: each alone changes more than 0.50% of the labels; the most: "
        "conv_2 (8x4x3x3): 7.91% (--verbose lists all)",
    ]
    listed = made.text(verbose=True).split("\n")
    assert listed[-2:] == ["  conv_2 (8x4x3x3): 7.91%", "  conv_1 (8x4x3x3): 0.60%"]
    assert "--verbose" not in made.text(verbose=True)
    assert len(report(0.001).text(verbose=True).split("\n")) == 2


def test_report_survives_json():
    made = report(0.001, 0.006)
    assert QuantizationReport.from_json(made.to_json()) == made
