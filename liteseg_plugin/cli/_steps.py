"""Steps that several commands take, from their arguments to a network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liteseg_plugin.errors import ConfigError, LitesegError, printable

if TYPE_CHECKING:
    from paddle import nn
    from paddleseg.cvlibs import SegBuilder

    from liteseg_plugin.inference.tiles import Tiling
    from liteseg_plugin.integration.config import ConfigBuilder

# A host may have its own; what they name is compared.
_OWN_FLAGS = (
    *("command", "run", "config", "opts", "run_folder", "model_path", "exported", "image_path"),
    *("save_dir", "device", "device_id", "cpu_threads", "num_workers", "verbose", "debug"),
)


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


def config_to_write(path: str, *, overwrite: bool) -> Path:
    """Return the path of a config that a command is to write.

    Args:
        path: As the user gave it.
        overwrite: Whether an existing file is replaced.

    Raises:
        ConfigError: If the name does not end in ``.yml`` or ``.yaml``, or the file exists.
    """
    dest = Path(path)
    if dest.suffix not in (".yml", ".yaml"):
        raise ConfigError(f"{printable(dest)} must end in .yml, as PaddleSeg requires of a config")
    if dest.exists() and not overwrite:
        raise ConfigError(f"{printable(dest)} already exists; --overwrite replaces it")
    return dest


def use_device(asked: str) -> str:
    """Let Paddle compute on a device, and log which.

    Args:
        asked: ``auto``, or a device.

    Returns:
        The device.

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

    Args:
        device: As in :func:`use_device`.
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

    Args:
        args: Of the command.
        builder: Holds the config.
        weights: Path, or URL, of the weights.
        lists: Lists of images, by name.

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


def augmentation(args: argparse.Namespace, switch: str, test_config: dict) -> dict:
    """Return the config's test settings, overridden by the flags of ``add_augmentation``."""
    chosen = dict(test_config)
    if getattr(args, switch):
        chosen["aug_eval"] = True
        for name in ("scales", "flip_horizontal", "flip_vertical"):
            chosen[name] = getattr(args, name)
    tiles = tiling(args)
    if tiles is not None:
        if args.is_slide or chosen.get("aug_eval"):
            raise LitesegError(
                "--tile runs a sliding window of its own, at scale 1: remove it, or "
                "--is_slide, scales and flips"
            )
        step = [tiles.width - tiles.overlap, tiles.height - tiles.overlap]
        chosen.update(is_slide=True, crop_size=[tiles.width, tiles.height], stride=step)
    if args.is_slide:
        if not (args.crop_size and args.stride):
            raise LitesegError("--is_slide needs --crop_size W H and --stride W H")
        for name in ("is_slide", "crop_size", "stride"):
            chosen[name] = getattr(args, name)
    return chosen


def tiling(args: argparse.Namespace) -> Tiling | None:
    """Return the tiles of ``--tile`` and ``--overlap``; None without them.

    Raises:
        LitesegError: If ``--overlap`` stands alone, or a value is impossible.
    """
    from liteseg_plugin.inference.tiles import Tiling

    if args.tile is None:
        if args.overlap is not None:
            raise LitesegError("--overlap needs --tile W H")
        return None
    overlap = min(args.tile) // 8 if args.overlap is None else args.overlap
    width, height = args.tile
    return Tiling(width, height, overlap, show_progress=True)


def build(
    args: argparse.Namespace, *, downloads: bool | None = None, **overrides: Any
) -> ConfigBuilder:
    """Register the components, repair PaddleSeg, and read the config.

    Args:
        args: Holds ``config``, ``opts`` and, where the command has it, ``verbose``.
        downloads: Whether to download weights that the config names by URL; by default not where
            ``args`` has a ``model_path`` or ``resume_model``, which gives full weights.
        overrides: Further arguments of PaddleSeg's ``Config``.
    """
    from liteseg_plugin.integration.registry import repair

    repair()

    from liteseg_plugin.integration import config

    if downloads is None:
        given = (getattr(args, name, None) for name in ("model_path", "resume_model"))
        downloads = not any(given)
    return config.ConfigBuilder(
        config.load(args.config, args.opts, **overrides),
        downloads=downloads,
        verbose=getattr(args, "verbose", False),
    )


def load_network(builder: SegBuilder, model_path: str) -> nn.Layer:
    """Build the config's network and load trained weights.

    Args:
        builder: Of :func:`build`.
        model_path: A ``.pdparams`` file, or the URL of one.
    """
    from paddleseg.utils import logger

    from liteseg_plugin.weights import load_trained

    model = builder.model
    load_trained(model, model_path)
    logger.info(f"Loaded {model_path} into {class_name(model)}")
    return model


def show(builder: SegBuilder, args: argparse.Namespace) -> None:
    """Log which config is used; with ``--verbose`` environment and config, as PaddleSeg's tools."""
    from paddleseg.utils import logger, utils

    if not args.verbose:
        logger.info(f"Config: {args.config} (--verbose logs all of it)")
        return
    utils.show_env_info()
    utils.show_cfg_info(builder.config)


def class_name(model: nn.Layer) -> str:
    """Return module and class of what was built, which every command logs."""
    return f"{type(model).__module__}.{type(model).__qualname__}"
