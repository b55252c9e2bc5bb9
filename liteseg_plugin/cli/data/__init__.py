"""Create, convert, check or split data sets."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.data import camvid, check, cityscapes, config, import_, relabel, split, toy
from liteseg_plugin.cli.flags.parser import add_command

_KINDS = {
    "toy": (toy, "draw a small street-scene data set in CamVid's layout"),
    "import": (import_, "convert annotations of labelme, COCO, VOC, YOLO, CVAT and others"),
    "camvid": (camvid, "convert CamVid, original or SegNet's, to PaddleSeg's layout"),
    "cityscapes": (cityscapes, "make labelTrainIds and lists for Cityscapes"),
    "check": (check, "find errors in images, labels and lists before a training"),
    "config": (config, "write a config for your own images, made from what check measures"),
    "relabel": (relabel, "write labels with other values, such as 0 and 1 for 0 and 255"),
    "split": (split, "write lists for your own images and labels"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, (kind, help_text) in _KINDS.items():
        sub = add_command(kinds, name, help_text, kind.__doc__ or "")
        kind.add_arguments(sub)
        sub.set_defaults(make=kind.run)


def run(args: argparse.Namespace) -> dict | None:
    """Run the subcommand, and return its result."""
    return args.make(args)
