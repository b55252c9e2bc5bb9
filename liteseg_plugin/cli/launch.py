"""Run train, val or predict in several processes, by paddle.distributed.launch.

Flags of the launch come first: liteseg launch --nproc_per_node 2 train --config ...
"""

from __future__ import annotations

import argparse
import shlex
import sys
from importlib import import_module
from pathlib import Path

from liteseg_plugin.cli.flags.launch import add_arguments
from liteseg_plugin.cli.flags.numbers import check_numbers
from liteseg_plugin.cli.flags.parser import Parser, add_common
from liteseg_plugin.errors import LitesegError

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> None:
    """Launch, and wait for the end."""
    from liteseg_plugin.system.device import visible_gpus
    from liteseg_plugin.training.launch import Launch
    from liteseg_plugin.training.supervise import supervise

    parser = Parser(prog=f"liteseg {args.program}")
    add_common(parser)
    import_module(f"liteseg_plugin.cli.{args.program}").add_arguments(parser)
    theirs = parser.parse_args(args.arguments)
    check_numbers(theirs)
    usual = 1 if theirs.device == "cpu" else max(1, visible_gpus(args.devices))
    launch = Launch(
        nproc_per_node=args.nproc_per_node or usual,
        log_dir=_log_dir(args, getattr(theirs, "save_dir", None)),
        nnodes=args.nnodes,
        master=args.master,
        rank=args.rank,
        devices=args.devices,
        host=args.host,
    )
    chosen = getattr(theirs, "resume_model", None)
    if args.max_restarts and chosen not in (None, "auto"):
        raise LitesegError(
            f"--max_restarts restarts from the newest checkpoint in --save_dir, not from {chosen}; "
            "give --resume_model auto, or remove --max_restarts"
        )
    arguments = [args.program, *args.arguments, *_common_flags(args)]
    if args.program == "train":
        arguments += _batch_flags(theirs, launch.processes)
    if args.dry_run:
        print(shlex.join(launch.command(arguments)))
        return
    resume = ("--resume_model", "auto") if args.program == "train" else ()
    supervise(
        launch,
        arguments,
        max_restarts=args.max_restarts,
        resume=resume,
        timeout=args.timeout,
        hang_timeout=args.hang_timeout,
    )


def _log_dir(args: argparse.Namespace, save_dir: str | None) -> Path:
    folder = Path(args.log_dir or Path(save_dir or "", "log"))
    return folder / f"host_{args.rank}" if args.nnodes > 1 else folder  # hosts may share it


def _common_flags(args: argparse.Namespace) -> list[str]:
    pixels = [] if args.max_pixels is None else ["--max_pixels", str(args.max_pixels)]
    return [*pixels, *(["--debug"] if args.debug else [])]


def _batch_flags(theirs: argparse.Namespace, processes: int) -> list[str]:
    from liteseg_plugin.integration import config
    from liteseg_plugin.training.launch import Batch

    content = config.load(theirs.config, theirs.opts, batch_size=theirs.batch_size)
    recipe = content.dic.get("total_batch_size")
    given = Batch(content.batch_size, theirs.gradient_accumulation_steps, processes, recipe)
    batch = given if theirs.batch_size else given.as_in_recipe()
    print(f"Batch: {batch.text()}", file=sys.stderr)
    return batch.flags(given)
