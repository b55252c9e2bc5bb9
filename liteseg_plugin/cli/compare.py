"""Compare two reports of `liteseg val --report`: what got better, what got worse."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("before", metavar="REPORT_A", help="folder of a report")
    parser.add_argument("after", metavar="REPORT_B", help="folder of the report to compare with")
    parser.add_argument("--save", metavar="FILE", help="write a page (.html)")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def run(args: argparse.Namespace) -> dict:
    """Compare, and print."""
    from liteseg_plugin.evaluation.compare import compare

    comparison = compare(args.before, args.after)
    print(comparison.text())
    if args.save:
        comparison.write_page(args.save)
        print(f"page: {args.save}")
    return comparison.to_json()
