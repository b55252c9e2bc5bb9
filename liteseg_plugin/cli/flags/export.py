"""The flags of export."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags import model
from liteseg_plugin.export.onnx import DEFAULT_OPSET


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    model.add_model(parser)
    add("--save_dir", default="./output/inference_model", help="folder of the export")
    add(
        "--input_shape",
        nargs=4,
        type=int,
        metavar=("N", "C", "H", "W"),
        help="fixed shape of the input (default: any size)",
    )
    add(
        "--format",
        default="paddle",
        choices=("paddle", "onnx", "ncnn", "triton", "ovms"),
        help="onnx and ncnn write files of that format beside the Paddle model (ncnn needs "
        "--input_shape 1 3 H W); triton and ovms (OpenVINO Model Server) write ONNX, and make "
        "--save_dir a model of that server, in the folder around it",
    )
    add("--opset_version", type=int, default=DEFAULT_OPSET, help="operator set of the ONNX file")
    add(
        "--graph",
        default="matrices",
        choices=("matrices", "plain"),
        help="plain: without matrix products in the ONNX file, for engines of small boards and "
        "their converters; needs --input_shape",
    )
    add(
        "--output_op",
        default="argmax",
        choices=("argmax", "confidence", "softmax", "none"),
        help="what the model gives: labels, labels and their probabilities, probabilities of all "
        "classes, or logits",
    )
