"""Show what works here (train, val, predict, export, ONNX, runtimes), and why the rest fails."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> dict:
    """Examine the environment; the exit code is 1 if something essential does not work."""
    from liteseg_plugin import doctor

    report = doctor.examine()
    print(doctor.describe(report))
    return report
