"""From a command's arguments to a network: its config, its components, its weights."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from liteseg_plugin.errors import LitesegError

if TYPE_CHECKING:
    from paddle import nn
    from paddleseg.cvlibs import SegBuilder

    from liteseg_plugin.integration.config import ConfigBuilder


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
