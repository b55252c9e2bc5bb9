"""Write labels with other values to a new folder."""

from __future__ import annotations

import argparse
import os
import shlex

from liteseg_plugin.errors import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add = parser.add_argument
    add("source", metavar="LABELS", help="folder of the labels, which do not change")
    add("dest", metavar="DEST", help="folder to create")
    values = "new values, such as 255=1, 1-19=0-18 or 1-127=0 128-255=1; other values stay"
    add("--map", nargs="+", required=True, metavar="OLD=NEW", help=values)
    add("--label_suffix", default="", help="suffix of the labels: _mask if a.jpg has a_mask.png")
    add("--workers", type=int, help="threads (default: one per processor)")
    add("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> dict:
    """Write the labels, and say what they hold now."""
    from liteseg_plugin.datasets.relabel import read_map, relabel

    changes = read_map(args.map)
    made = relabel(
        args.source, args.dest, changes, label_suffix=args.label_suffix, workers=args.workers
    )
    total = sum(made.pixels.values())
    values = ", ".join(f"{value} ({n / total:.1%})" for value, n in made.pixels.items())
    print(f"{made.labels} labels in {printable(made.folder)}, with values {values} of the pixels")
    folder, name = os.path.split(made.folder)
    words = ["liteseg", "data", "split", folder or ".", "--labels", name, "--overwrite"]
    if args.label_suffix:
        words += ["--label_suffix", args.label_suffix]
    command = printable(" ".join(map(shlex.quote, words)))
    print(f"lists that name it (add --images and --separator as for the first lists): {command}")
    return made.to_json()
