"""Find errors in images, labels and lists before a training."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _network
from liteseg_plugin.cli.flags import images, shared
from liteseg_plugin.errors import LitesegError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add = parser.add_argument
    add("data", metavar="DATA", nargs="?", help="folder of a data set with lists")
    add("--config", help="check the data sets of a config instead")
    shared.add_opts(parser)
    add("--separator", default=" ", help="what separates image and label in a list")
    add("--num_classes", type=int, help="number of classes (default: the lines of labels.txt)")
    add("--ignore_index", type=int, default=255, help="label of ignored pixels")
    images.add_channels(parser)
    add("--batch_size", type=int, help="of the training, for the suggested min_kept")
    add("--html", metavar="FILE", type=shared.html_file, help="also write a page with overlays")
    add("--samples", type=int, default=24, help="number of overlays in the page")
    add("--workers", type=int, help="threads (default: one per processor)")
    add("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> dict:
    """Check, and tell what was found."""
    if (args.data is None) == (args.config is None):
        raise LitesegError("give a folder to check, or --config")
    from liteseg_plugin.datasets import check

    if args.config:
        data = check.from_config(_network.build(args), args.config)
    else:
        data = check.from_folder(
            args.data,
            separator=args.separator,
            num_classes=args.num_classes,
            ignore_index=args.ignore_index,
            channels=args.channels,
            batch_size=args.batch_size,
        )
    report = check.check(data, samples=args.samples, workers=args.workers)
    page = None
    if args.html:
        from liteseg_plugin.visualization.check_page import write_page

        page = write_page(report, args.html)  # first: a pipe may break
    print(report.text())
    if page:
        print(f"page: {page}")
    return report.to_json()
