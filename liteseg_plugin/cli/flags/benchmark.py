"""The flags of benchmark."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags; the common ones are those of infer_onnx_trt.py."""
    add = parser.add_argument
    add("--config", help=f"export and time this model: {shared.CONFIG_HELP}")
    shared.add_opts(parser)
    add("--model_path", help="trained weights (default: random weights)")
    add("--exported", metavar="FOLDER", help="time this export instead of a new one")
    add("--onnx_model_path", help="time this ONNX file instead of a new export")
    add("--width", type=int, help="width of the images (default: the export's, or 1024 pixels)")
    add("--height", type=int, help="height of the images (default: the export's, or 512 pixels)")
    add("--batch_size", type=int, help="images per call (default: the export's, or 1)")
    add("--warmup", type=int, default=5, help="warm-up rounds")
    add("--repeats", type=int, default=30, help="timed rounds")
    add(
        "--runtime",
        nargs="+",
        choices=shared.RUNTIMES,
        help="runtimes to time (default: all installed but ncnn)",
    )
    shared.add_device(parser)
    shared.add_precision(parser)
    add("--cpu_threads", type=int, help="CPU threads (default: all available)")
    add(
        "--timed",
        default="call",
        choices=("engine", "call", "file"),
        help="what to time: the engine alone, its call with copies of input and output, or all "
        "from an image file to its labels",
    )
    add(
        "--against",
        choices=("paddleseg",),
        help="also time PaddleSeg's own export, in turns, in float32",
    )
    add("--enable_profile", action="store_true", help="also print ONNX Runtime's time by operator")
    add("--print_model", action="store_true", help="also print the ONNX graph")
    add("--json", action="store_true", help="print the report as JSON")
