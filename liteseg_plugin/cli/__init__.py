"""The ``liteseg`` command: one module per subcommand; each parses, builds and calls."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import sys
from collections.abc import Sequence
from importlib import import_module

from liteseg_plugin.cli import _output
from liteseg_plugin.cli.flags.help import ShowVersions
from liteseg_plugin.cli.flags.numbers import check_numbers
from liteseg_plugin.cli.flags.parser import Parser, add_command

_COMMANDS = {
    "train": "train a model, as PaddleSeg's tools/train.py",
    "launch": "run train, val or predict in several processes or on several hosts",
    "val": "evaluate trained weights or an exported model, as tools/val.py; write a report",
    "compare": "compare two reports of liteseg val",
    "curves": "draw the training curves of runs",
    "predict": "segment images with trained weights, as tools/predict.py",
    "export": "write a model for deployment, as tools/export.py",
    "quantize": "add INT8 models to an exported folder (ONNX, ncnn)",
    "verify": "compare an exported model with the trained network, in every runtime",
    "infer": "segment images with an exported model",
    "demo": "open a local page that segments pictures with an exported model",
    "serve": "answer requests with exported models, over HTTP and gRPC",
    "benchmark": "time a model in every runtime, also against PaddleSeg's own export",
    "infer_shape": "fix the input shape of a model that PaddleSeg exported",
    "paddle2onnx": "convert a model that PaddleSeg exported to ONNX, and compare the results",
    "run": "run an unmodified PaddleSeg script with the plugin's components",
    "autoload": "let PaddleSeg's unmodified scripts use the plugin in this environment",
    "config": "list, show or copy the configs that come with the plugin",
    "weights": "list, download, check or convert weights",
    "data": "create, convert, check or split data sets",
    "doctor": "show what works here, and why the rest does not",
}


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="liteseg",
        description="PP-LiteSeg for PaddleSeg. `liteseg COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action=ShowVersions, help="print versions, and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_text in _COMMANDS.items():
        command = import_module(f"liteseg_plugin.cli.{name}")
        sub = add_command(commands, name, help_text, command.__doc__ or "")
        command.add_arguments(sub)
        sub.set_defaults(run=command.run, debug=False, max_pixels=None)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: Arguments after the program's name; by default the process's own.
    """
    args = create_parser().parse_args(argv)
    # At its end Python would search all that Paddle made for garbage, for half a second.
    atexit.register(gc.freeze)

    from liteseg_plugin.system.pixels import limited

    _output.ignore_noise()
    wants_json = getattr(args, "json", False)
    aside = _output.kept_for_json() if wants_json else contextlib.nullcontext()
    try:
        with limited(args.max_pixels), aside:
            check_numbers(args)
            document = args.run(args)
        if wants_json:
            print(json.dumps(document, indent=2))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _output.is_unread():
            return 141  # of SIGPIPE, as any command in `command | head`
        if args.debug:
            sys.excepthook = sys.__excepthook__
            raise
        return _output.report(error, args.command)
    return 0 if document is None or document.get("ok", True) else 1
