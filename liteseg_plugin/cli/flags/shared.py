"""Flags that several commands have."""

from __future__ import annotations

import argparse

# The keys of runtimes.catalog.RUNTIMES, which a test compares; importing it would load Paddle.
RUNTIMES = ("paddle", "paddle_tensorrt", "onnxruntime", "openvino", "tensorrt", "ncnn")
# Those of runtimes.base.PRECISIONS, likewise.
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
CONFIG_HELP = "config file (.yml), or the name of one that `liteseg config list` prints"


def add_config(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add ``--config`` and ``--opts``."""
    add = parser.add_argument
    add("--config", required=required, help=CONFIG_HELP)
    add_opts(parser)
    add("--verbose", action="store_true", help="log environment and config, as PaddleSeg does")


def add_opts(parser: argparse.ArgumentParser) -> None:
    """Add ``--opts``."""
    parser.add_argument(
        "--opts", nargs="+", metavar="KEY=VALUE", help="override values of the config"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        default="auto",
        help="where to compute: cpu, gpu, gpu:N, xpu, npu, mlu; auto takes the best one present",
    )


def add_weights(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add ``--model_path``."""
    parser.add_argument("--model_path", required=required, help="trained weights (model.pdparams)")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add ``--runtime``."""
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=("auto", *RUNTIMES),
        help="what runs an export; auto takes the fastest that is installed, has the --precision, "
        "and agreed with the trained network at export",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add ``--precision`` of a runtime."""
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=PRECISIONS,
        help="what the runtime computes in; int8 needs `liteseg quantize`",
    )


def html_file(text: str) -> str:
    """Check the name of a page to be written; the ``type`` of a flag."""
    from liteseg_plugin.system.files import require_html

    try:
        require_html(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
