"""The flags of val."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags import model, shared, windows
from liteseg_plugin.errors import LitesegError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    model.add_model(parser)
    add("--exported", metavar="FOLDER", help="evaluate an exported model instead")
    shared.add_device(parser)
    add(
        "--num_workers",
        type=int,
        default=0,
        help="processes that load images (with --exported or --report: threads, at least 2)",
    )
    windows.add_augmentation(parser, "--aug_eval")
    windows.add_tiles(parser)
    add("--auc_roc", action="store_true", help="also compute the area under the ROC curve")
    shared.add_runtime(parser)
    shared.add_precision(parser)
    add("--cpu_threads", type=int, help="CPU threads of --exported (default: all available)")
    add("--report", metavar="DIR", help="folder of a report: metrics.json, figures, index.html")
    add("--worst", type=int, default=10, help="number of images to draw in the report")
    add("--json", action="store_true", help="print the numbers as JSON")


def refuse_what_does_not_go_together(args: argparse.Namespace) -> None:
    """Refuse flags that exclude or need each other."""
    if args.exported and args.model_path:
        raise LitesegError("give --exported or --model_path, not both")
    if args.auc_roc and (args.exported or args.report):
        raise LitesegError("--auc_roc does not work with --exported or --report; remove it")
    if args.exported and (args.aug_eval or args.is_slide):
        raise LitesegError(
            "an exported model infers once, at the scale it was exported with; for --aug_eval and "
            "--is_slide give the trained weights (--model_path), for a sliding window --tile W H"
        )
    chosen = args.runtime != "auto" or args.precision != "fp32"
    if not args.exported and (chosen or args.cpu_threads):
        raise LitesegError("--runtime, --precision and --cpu_threads need --exported")
