"""The ``liteseg`` command: one module per subcommand; each parses, builds and calls."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module

_COMMANDS = {
    "train": "train with a config, as PaddleSeg's tools/train.py",
    "val": "evaluate trained weights, as tools/val.py, or an exported model; write a report",
    "compare": "compare two reports of val",
    "curves": "draw the training curves of runs",
    "predict": "segment images with trained weights, as tools/predict.py",
    "export": "write a model for deployment, as tools/export.py",
    "quantize": "add an INT8 model to an export",
    "verify": "compare an exported model with the trained network, in every runtime",
    "infer": "segment images with an exported model",
    "demo": "open a local page that segments pictures with an exported model",
    "benchmark": "time the export of a config, also against PaddleSeg's own",
    "infer_shape": "give a model that PaddleSeg exported a fixed shape",
    "paddle2onnx": "convert an exported model to ONNX, compared with Paddle",
    "run": "run an unmodified PaddleSeg script with the plugin's components",
    "autoload": "let PaddleSeg's unmodified scripts use the plugin (opt-in)",
    "data": "create, convert, check or split data sets",
    "doctor": "show what works here, and why the rest does not",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: Arguments after the program's name; by default the process's own.
    """
    parser = argparse.ArgumentParser(prog="liteseg", description="PP-LiteSeg for PaddleSeg.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_text in _COMMANDS.items():
        command = import_module(f"liteseg_plugin.cli.{name}")
        sub = commands.add_parser(name, help=help_text, description=command.__doc__)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.add_argument("--max_pixels", type=int, metavar="N", help="refuse larger images")
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    args = parser.parse_args(argv)

    from liteseg_plugin.system.pixels import limited

    # Paddle's advice to people who compile extensions, at each import.
    warnings.filterwarnings("ignore", message="No ccache found")
    wants_json = getattr(args, "json", False)
    aside = _output_to_stderr() if wants_json else contextlib.nullcontext()
    try:
        with limited(args.max_pixels), aside:
            document = args.run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            sys.excepthook = sys.__excepthook__
            raise
        return _report(error, args.command)
    if wants_json:
        import json

        print(json.dumps(document, indent=2))
    return 0 if document is None or document.get("ok", True) else 1


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Keep standard output for the JSON document; logs and output of Paddle's C++ go to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _report(error: Exception, command: str) -> int:
    from liteseg_plugin.errors import LitesegError, printable_lines

    if command == "run" and not isinstance(error, LitesegError):
        raise error  # a script's own error: its traceback says where
    message = str(error)
    if not isinstance(error, (LitesegError, OSError, ValueError)):  # these say what is wrong
        message = f"{type(error).__name__}: {error}\n(--debug shows the traceback)"
    print(f"error: {printable_lines(message)}", file=sys.stderr)
    return 1
