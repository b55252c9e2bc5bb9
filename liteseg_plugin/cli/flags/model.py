"""A trained model: its config and weights, or the folder of the run that made them."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags import shared
from liteseg_plugin.errors import LitesegError


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, ``--opts``, ``--model_path``, and ``--run`` in place of them."""
    parser.add_argument(
        "--run",
        dest="run_folder",
        metavar="FOLDER",
        help="--save_dir of a training: take its config and weights, the best or else the newest",
    )
    shared.add_config(parser, required=False)
    shared.add_weights(parser, required=False)


def choose_model(args: argparse.Namespace) -> None:
    """Fill ``config`` and ``model_path`` from ``--run``, which is instead of them.

    Raises:
        LitesegError: If both or neither are given, or the folder of the run has no model.
    """
    exported = getattr(args, "exported", None)
    if args.run_folder is None:
        if not args.config or not (args.model_path or exported):
            other = " (or --exported FOLDER)" if hasattr(args, "exported") else ""
            raise LitesegError(f"give --run FOLDER, or --config and --model_path{other}")
        return
    if args.config or args.model_path:
        raise LitesegError(
            "--run takes config and weights from a run's folder; remove --config and --model_path, "
            "or --run"
        )
    from paddleseg.utils import logger

    from liteseg_plugin.training.run import TrainedRun

    trained = TrainedRun.read(args.run_folder)
    args.config = str(trained.config)
    if not exported:
        args.model_path = str(trained.weights)
        logger.info(f"Run {args.run_folder}: {trained}")
