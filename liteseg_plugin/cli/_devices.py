"""Devices and hosts: what a command does before it computes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from liteseg_plugin.integration.config import ConfigBuilder

# A host may have its own; what they name is compared.
_OWN_FLAGS = (
    *("command", "run", "config", "opts", "run_folder", "model_path", "exported", "image_path"),
    *("save_dir", "device", "device_id", "cpu_threads", "num_workers", "verbose", "debug"),
)


def use_device(asked: str) -> str:
    """Let Paddle compute on a device, for ``auto`` on the best one; log and return which.

    Raises:
        DeviceError: If there is no such device.
    """
    import paddle
    from paddleseg.utils import logger

    from liteseg_plugin.system.device import paddle_devices

    devices = paddle_devices()
    chosen = devices.choose(asked)
    paddle.set_device(chosen)
    logger.info(devices.describe(asked, chosen))
    return chosen


def connect(device: str) -> None:
    """Let the processes of a launch meet, before one of them fails by itself.

    Only what is connected notices that another process ends.
    """
    from liteseg_plugin.system import heartbeat
    from liteseg_plugin.training import processes

    if processes.count() > 1:
        import paddle

        from liteseg_plugin.system.device import paddle_devices

        paddle.set_device(paddle_devices().choose(device))
        processes.connect()
    heartbeat.reached("connected")


def check_same_on_hosts(
    args: argparse.Namespace, builder: ConfigBuilder, weights: str | Path, lists: dict[str, Any]
) -> None:
    """Refuse to run a trained network on hosts that were given different things.

    Raises:
        TrainingError: If hosts differ; it names host, rank and what differs.
    """
    from liteseg_plugin.system.checksums import file_sha256
    from liteseg_plugin.training import changes, processes

    if processes.count() == 1:
        return
    flags = {name: value for name, value in vars(args).items() if name not in _OWN_FLAGS}
    flags["report"] = bool(getattr(args, "report", None))
    sha256 = file_sha256(weights)[:8] if Path(weights).is_file() else weights
    inputs = {**lists, "SHA-256 of the weights": sha256}
    changes.check_same_on_hosts(builder.config.dic, flags, inputs)
