"""Create, convert, check or split data sets."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli._parser import add_common
from liteseg_plugin.cli.data import camvid, check, cityscapes, import_, relabel, split, toy

_KINDS = {
    "toy": (toy, "draw a small street-scene data set in CamVid's layout"),
    "import": (import_, "convert annotations of labelme, COCO, VOC, YOLO, CVAT and others"),
    "camvid": (camvid, "convert CamVid, original or SegNet's, to PaddleSeg's layout"),
    "cityscapes": (cityscapes, "make labelTrainIds and lists for Cityscapes"),
    "check": (check, "find errors in images, labels and lists before a training"),
    "relabel": (relabel, "write labels with other values, such as 0 and 1 for 0 and 255"),
    "split": (split, "write lists for your own images and labels"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, (kind, help_text) in _KINDS.items():
        sub = kinds.add_parser(name, help=help_text, description=kind.__doc__)
        add_common(sub)
        kind.add_arguments(sub)
        sub.set_defaults(make=kind.run)


def run(args: argparse.Namespace) -> dict | None:
    """Run the subcommand, and return its result."""
    return args.make(args)
