"""Draw training curves: loss, learning rate and mIoU of one or several runs in one figure."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    add(
        "runs",
        metavar="RUN",
        nargs="+",
        help="the folder of a training (--save_dir), metrics.csv, a log (standard output, "
        "workerlog.0), or VisualDL records",
    )
    add("--save", metavar="FILE", required=True, help="the figure (.png, .svg, .pdf)")
    add("--json", action="store_true", help="print the points as JSON")


def run(args: argparse.Namespace) -> dict:
    """Read, draw, and print how each run ended."""
    from liteseg_plugin.visualization import curves, figures

    runs = [curves.read(path) for path in args.runs]
    figures.save(curves.draw(runs), args.save)
    for run_curves in runs:
        print(run_curves.text())
    print(f"figure: {args.save}")
    return {"runs": [run_curves.to_json() for run_curves in runs], "figure": args.save}
