"""Let PaddleSeg's unmodified scripts use the plugin in this Python environment."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("action", choices=("enable", "disable", "status"), help="what to do")


def run(args: argparse.Namespace) -> None:
    """Enable, disable, or show the state."""
    from liteseg_plugin import autoload
    from liteseg_plugin.errors import LitesegError

    try:
        if args.action == "enable":
            autoload.enable()
        elif args.action == "disable":
            autoload.disable()
    except OSError as error:
        raise LitesegError(
            f"cannot write {autoload.path()} ({error.strerror}); use a virtual environment of "
            "your own, or `liteseg run SCRIPT` instead"
        ) from error
    print(f"autoload is {'enabled' if autoload.is_enabled() else 'disabled'}: {autoload.path()}")
