"""The smallest number that each flag takes, checked in one place for all commands."""

from __future__ import annotations

import argparse

from liteseg_plugin.errors import LitesegError

_LEAST_POSITIVE = 5e-324
_SMALLEST = {
    1: (
        *("iters", "batch_size", "save_interval", "log_iters", "early_stop_intervals", "repeats"),
        *("gradient_accumulation_steps", "cpu_threads", "workers", "width", "height", "size"),
        *("images", "num_images", "num_classes", "opset_version", "server_port"),
        *("crop_size", "stride", "nproc_per_node", "nnodes"),
        *("engines", "max_batch_size", "max_requests", "max_body_mb", "tile"),
    ),
    0: (
        *("num_workers", "max_restarts", "timeout", "hang_timeout", "device_id", "warmup"),
        *("worst", "samples", "seed", "train", "val", "test", "tolerance", "http_port"),
        *("grpc_port", "max_batch_delay", "overlap"),
    ),
    _LEAST_POSITIVE: ("learning_rate", "scales", "request_timeout"),
}


def check_numbers(args: argparse.Namespace) -> None:
    """Refuse numbers that a command cannot use.

    Raises:
        LitesegError: If one is too small, or is not a number.
    """
    for smallest, flags in _SMALLEST.items():
        words = "greater than 0" if smallest == _LEAST_POSITIVE else f"at least {smallest}"
        for flag in flags:
            given = getattr(args, flag, None)
            for number in given if isinstance(given, (list, tuple)) else [given]:
                # Not `number < smallest`, which lets NaN pass.
                if isinstance(number, (int, float)) and not smallest <= number < float("inf"):
                    raise LitesegError(f"--{flag} must be {words}, got {number}")
