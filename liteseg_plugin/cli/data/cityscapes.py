"""Make labelTrainIds and lists for Cityscapes."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help="folder that holds leftImg8bit and gtFine")
    add("--overwrite", action="store_true", help="write existing labels again")
    add("--workers", type=int, help="threads (default: one per processor)")
    add("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> dict:
    """Make labels and lists, and say how many."""
    from liteseg_plugin.datasets import cityscapes

    made = cityscapes.prepare(args.source, overwrite=args.overwrite, workers=args.workers)
    print(f"train {made.train}, val {made.val}, test {made.test} images")
    print(f"{made.made} labels made, {made.kept} kept; lists: {', '.join(made.lists)}")
    return made.to_json()
