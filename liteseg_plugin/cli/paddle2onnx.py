"""Convert an exported Paddle model to ONNX, and compare; takes the flags of paddle2onnx."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from liteseg_plugin.cli.infer_shape import add_model
from liteseg_plugin.export.onnx import DEFAULT_OPSET


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    add_model(parser)
    add("--save_file", required=True, help="ONNX file to write")
    add("--opset_version", type=int, default=DEFAULT_OPSET, help="operator set of the ONNX file")
    add("--enable_dev_version", help="ignored: there is one converter")
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> dict:
    """Convert; delete the file if its results differ from Paddle's."""
    from liteseg_plugin.export import third_party

    files = third_party.model_files(args.model_dir, args.model_filename, args.params_filename)
    compared = third_party.convert_and_compare(files, args.save_file, args.opset_version)
    for shape, comparison in compared.items():
        print(f"{shape}: {comparison}")
    print(args.save_file)
    return {
        "onnx": args.save_file,
        "compared": {shape: asdict(comparison) for shape, comparison in compared.items()},
    }
