"""Write the lists of your own images and labels."""

from __future__ import annotations

import argparse

from liteseg_plugin.errors import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add = parser.add_argument
    add("root", metavar="FOLDER", help="folder of the data set, which holds images and labels")
    add("--images", default="images", help="folder of the images in FOLDER")
    add("--labels", default="annot", help="folder of the labels in FOLDER")
    ratio = "shares of train, val and test, or of train and val"
    add("--ratio", nargs="+", type=float, default=(0.8, 0.1, 0.1), metavar="SHARE", help=ratio)
    add("--seed", type=int, default=0, help="seed of the shuffle")
    add("--label_suffix", default="", help="suffix of the labels: _mask if a.jpg has a_mask.png")
    add("--keep_sequences", action="store_true", help="keep the frames of a video in one split")
    add("--separator", default=" ", help="what separates image and label in a list")
    add("--overwrite", action="store_true", help="replace existing lists")
    add("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> dict:
    """Write the lists, and say what was left out."""
    from liteseg_plugin.datasets.split import split_folder

    made = split_folder(
        args.root,
        images=args.images,
        labels=args.labels,
        ratio=args.ratio,
        seed=args.seed,
        label_suffix=args.label_suffix,
        keep_sequences=args.keep_sequences,
        separator=args.separator,
        overwrite=args.overwrite,
    )
    print(f"{made.root}: train {made.train}, val {made.val}, test {made.test} pairs")
    for what, names in (("label", made.without_label), ("image", made.without_image)):
        if names:
            print(f"skipped, no {what}: {len(names)} files, e.g. {printable(names[0])}")
    return made.to_json()
