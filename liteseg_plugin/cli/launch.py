"""Run train, val or predict in several processes, by paddle.distributed.launch.

Flags of the launch come first: liteseg launch --nproc_per_node 2 train --config ...
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from liteseg_plugin.cli.flags.numbers import check_numbers
from liteseg_plugin.cli.flags.parser import Parser, add_common
from liteseg_plugin.errors import LitesegError

_PROGRAMS = ("train", "val", "predict")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    add("--nproc_per_node", type=int, help="processes on this host (default: one per GPU, else 1)")
    add("--nnodes", type=int, default=1, help="number of hosts")
    add("--master", metavar="HOST:PORT", help="where the hosts meet: the host of --rank 0")
    add("--rank", type=int, help="number of this host, from 0")
    add("--devices", metavar="0,1,...", help="GPUs to use (default: the visible ones)")
    add("--host", help="address of this host, if its name gives the wrong one")
    add("--log_dir", help="folder of workerlog.N and launcher.log (default: log in --save_dir)")
    restarts = "how often to start all processes again, from the newest checkpoint, if one dies"
    add("--max_restarts", type=int, default=0, metavar="N", help=restarts)
    wait = "seconds to wait for the other hosts"
    add("--timeout", type=float, default=600, metavar="SECONDS", help=wait)
    hang = "seconds without progress after which all processes are ended; 0: never"
    add("--hang_timeout", type=float, default=600, metavar="SECONDS", help=hang)
    add("--dry-run", action="store_true", help="print the command line of Paddle's launcher")
    add("program", choices=_PROGRAMS, help="the command to run, followed by its flags")
    add("arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="its flags")


def run(args: argparse.Namespace) -> None:
    """Launch, and wait for the end."""
    import shlex

    from liteseg_plugin.training.launch import Launch
    from liteseg_plugin.training.supervise import supervise

    parser = Parser(prog=f"liteseg {args.program}")
    add_common(parser)
    import_module(f"liteseg_plugin.cli.{args.program}").add_arguments(parser)
    theirs = parser.parse_args(args.arguments)
    check_numbers(theirs)
    launch = Launch(
        nproc_per_node=args.nproc_per_node
        or (1 if theirs.device == "cpu" else _visible_gpus(args.devices)),
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
    arguments = [args.program, *args.arguments]
    if args.max_pixels is not None:
        arguments += ["--max_pixels", str(args.max_pixels)]
    if args.debug:
        arguments.append("--debug")
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


def _batch_flags(theirs: argparse.Namespace, processes: int) -> list[str]:
    import sys

    from liteseg_plugin.integration import config
    from liteseg_plugin.training.launch import Batch, share_batch

    content = config.load(theirs.config, theirs.opts, batch_size=theirs.batch_size)
    size, passes = content.batch_size, theirs.gradient_accumulation_steps
    recipe = content.dic.get("total_batch_size")
    batch = Batch(size, passes, processes, recipe)
    if recipe is not None and theirs.batch_size is None and passes == 1:
        batch = share_batch(recipe, size, processes)
    print(f"Batch: {batch.text()}", file=sys.stderr)
    flags = {"batch_size": (size, batch.size)}
    flags["gradient_accumulation_steps"] = (passes, batch.passes)
    return [
        word
        for name, (given, chosen) in flags.items()
        if chosen != given
        for word in (f"--{name}", str(chosen))
    ]


def _visible_gpus(devices: str | None) -> int:
    if devices:
        return len(devices.split(","))
    from liteseg_plugin.system.device import kind_of, paddle_devices

    return max([kind_of(name) for name in paddle_devices().present].count("gpu"), 1)
