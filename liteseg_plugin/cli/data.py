"""Make or prepare data sets."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    toy = kinds.add_parser("toy", help="draw a small street-scene data set in CamVid's layout")
    toy.add_argument("dest", metavar="DEST", help="folder to make")
    toy.add_argument("--train", type=int, default=160, help="images to train on")
    toy.add_argument("--val", type=int, default=32, help="images to evaluate on")
    toy.add_argument("--test", type=int, default=16, help="images to test on")
    toy.add_argument("--size", nargs=2, type=int, default=(256, 192), metavar=("W", "H"))
    toy.add_argument("--seed", type=int, default=2022)


def run(args: argparse.Namespace) -> None:
    """Make the data set."""
    from liteseg_plugin.datasets import toy_street

    folder = toy_street.generate(
        args.dest,
        train=args.train,
        val=args.val,
        test=args.test,
        resolution_wh=tuple(args.size),
        seed=args.seed,
    )
    print(f"toy street scenes: {folder}")
