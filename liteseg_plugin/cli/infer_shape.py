"""Fix the input shape of an exported Paddle model; takes the flags of paddle_infer_shape.py."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence

from liteseg_plugin.errors import ExportError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_model(parser)
    parser.add_argument("--save_dir", required=True, help="folder of the fixed model")
    parser.add_argument(
        "--input_shape_dict",
        required=True,
        help="shape by name of the input: \"{'x':[1,3,512,512]}\"",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name an exported Paddle model."""
    parser.add_argument("--model_dir", required=True, help="folder of the exported model")
    parser.add_argument("--model_filename", default="model.pdmodel", help="file of the graph")
    parser.add_argument("--params_filename", default="model.pdiparams", help="file of the weights")


def run(args: argparse.Namespace) -> None:
    """Fix the shape."""
    shapes = _parse(args.input_shape_dict)

    from liteseg_plugin.export.fixed_shape import fix_shape
    from liteseg_plugin.export.third_party import model_files

    files = model_files(args.model_dir, args.model_filename, args.params_filename)
    fixed = fix_shape(files, shapes, args.save_dir)
    print(f"{fixed.model} takes {shapes}")


def _parse(text: str) -> dict[str, Sequence[int]]:
    try:
        shapes = ast.literal_eval(text)
        shapes = {str(name): [int(n) for n in shape] for name, shape in shapes.items()}
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError):
        shapes = {}
    if not shapes:
        raise ExportError(
            f"--input_shape_dict is shapes by input, as {{'x':[1,3,512,512]}}, got {text!r}"
        )
    return shapes
