"""Draw a small street-scene data set in CamVid's layout."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add = parser.add_argument
    add("dest", metavar="DEST", help="folder to create")
    add("--train", type=int, default=160, help="images to train on")
    add("--val", type=int, default=32, help="images to evaluate on")
    add("--test", type=int, default=16, help="images to test on")
    add("--size", nargs=2, type=int, default=(256, 192), metavar=("W", "H"), help="size in pixels")
    add("--seed", type=int, default=2022, help="seed of the drawing")


def run(args: argparse.Namespace) -> None:
    """Draw the scenes."""
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
