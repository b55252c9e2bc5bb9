"""Convert annotations of other tools to PaddleSeg's layout."""

from __future__ import annotations

import argparse
from pathlib import Path

# The keys of datasets.importing.FORMATS, which a test compares.
FORMATS = ("labelme", "coco", "voc", "yolo", "cvat", "colors", "cityscapes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add = parser.add_argument
    add("format", metavar="FORMAT", choices=FORMATS, help=", ".join(FORMATS))
    add("source", metavar="SOURCE", help="folder of the annotations; for coco and cvat also a file")
    add("dest", metavar="DEST", help="folder to create")
    images = "folder of the images (default: as FORMAT has it)"
    add("--images", type=Path, metavar="FOLDER", help=images)
    labels = "folder of the labels (default: as FORMAT has it)"
    add("--labels", type=Path, metavar="FOLDER", help=labels)
    table = "the classes of label images: a line of name and colour for each"
    add("--table", type=Path, metavar="FILE", help=table)
    suffix = "suffix of the labels: _mask if a.jpg has a_mask.png"
    add("--label_suffix", default="", help=suffix)
    classes = "classes to keep, in the order of their indices (default: all)"
    add("--classes", nargs="+", default=(), metavar="NAME", help=classes)
    unlabelled = "pixels outside all shapes become the class background, or 255, which is ignored "
    unlabelled += "(default: background for shapes, ignore for label images)"
    add("--unlabelled", choices=("background", "ignore"), help=unlabelled)
    order = "which shapes cover others: the later in the file, or those of smaller area"
    add("--order", default="file", choices=("file", "area"), help=order)
    add("--line_width", type=int, default=10, help="width in pixels of what is drawn as a line")
    ratio = "shares of train, val and test, or of train and val (default: the source's own split, "
    ratio += "else 0.8 0.1 0.1)"
    add("--ratio", nargs="+", type=float, metavar="SHARE", help=ratio)
    add("--seed", type=int, default=0, help="seed of the split")
    add("--workers", type=int, help="threads (default: one per processor)")
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> dict:
    """Convert, and say what was dropped and why."""
    from liteseg_plugin.datasets import importing

    report = importing.import_data(
        args.format,
        args.source,
        args.dest,
        options=importing.Options(
            images=args.images,
            labels=args.labels,
            table=args.table,
            label_suffix=args.label_suffix,
            line_width=args.line_width,
            class_names=args.classes,
        ),
        unlabelled=args.unlabelled,
        order=args.order,
        ratio=args.ratio,
        seed=args.seed,
        workers=args.workers,
    )
    print(report.text())
    return report.to_json()
