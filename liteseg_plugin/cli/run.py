"""Run an unmodified PaddleSeg script (tools/train.py, val.py, ...) with the plugin active.

With several processes: python -m paddle.distributed.launch $(which liteseg) run tools/train.py ...
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("script", metavar="SCRIPT", help="path of the script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="its arguments")


def run(args: argparse.Namespace) -> None:
    """Run the script in this process."""
    import runpy
    import sys
    from pathlib import Path

    from liteseg_plugin.errors import LitesegError
    from liteseg_plugin.integration.registry import activate

    script = Path(args.script)
    if not script.is_file():
        raise LitesegError(
            f"script not found: {script}. The wheel of paddleseg has no tools/; run from a "
            "PaddleSeg checkout, or use `liteseg train`, `val`, `predict` and `export`"
        )
    sys.argv = [str(script), *args.arguments]
    activate(sys.argv)
    sys.path[0] = str(script.resolve().parent)

    from liteseg_plugin.integration.scripts import explain

    try:
        runpy.run_path(str(script), run_name="__main__")
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        raise explained from error
