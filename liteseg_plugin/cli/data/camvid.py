"""Convert CamVid, original or SegNet's, to PaddleSeg's layout."""

from __future__ import annotations

import argparse

from liteseg_plugin.errors import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help="folder of the unpacked download")
    add("dest", metavar="DEST", help="folder to create")
    size = "size in pixels to resize to (default: the source's)"
    add("--size", nargs=2, type=int, metavar=("W", "H"), help=size)
    add("--void_unknown", action="store_true", help="set colours without a class to void")
    add("--workers", type=int, help="threads (default: one per processor)")
    add("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> dict:
    """Convert, and say what was left out."""
    from liteseg_plugin.datasets import camvid_conversion

    made = camvid_conversion.convert(
        args.source,
        args.dest,
        resolution_wh=args.size and tuple(args.size),
        void_unknown=args.void_unknown,
        workers=args.workers,
    )
    document = made.to_json()
    for split, published in made.published.items():
        print(f"{split}: {document[split]} of {published} frames")
    if made.left_out:
        print(
            f"{len(made.left_out)} frames are in no split and were skipped: "
            f"{', '.join(map(printable, made.left_out[:5]))}"
        )
    return document
