"""Compare two reports of `liteseg val --report`: what got better, what got worse."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    add("before", metavar="REPORT_A", help="folder of the first report")
    add("after", metavar="REPORT_B", help="folder of the second report")
    add("--save", metavar="FILE", type=shared.html_file, help="also write a page (.html)")
    add("--json", action="store_true", help="print the comparison as JSON")


def run(args: argparse.Namespace) -> dict:
    """Compare, and print."""
    from liteseg_plugin.evaluation.compare import compare

    comparison = compare(args.before, args.after)
    page = comparison.write_page(args.save) if args.save else None  # first: a pipe may break
    print(comparison.text())
    if page:
        print(f"page: {page}")
    return comparison.to_json()
