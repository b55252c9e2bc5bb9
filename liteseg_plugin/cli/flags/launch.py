"""The flags of launch."""

from __future__ import annotations

import argparse


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
    add(
        "program",
        choices=("train", "val", "predict"),
        help="the command to run, followed by its flags",
    )
    add("arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="its flags")
