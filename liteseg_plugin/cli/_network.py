"""From a command's arguments to a network: its config, its components, its weights."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle import nn
    from paddleseg.cvlibs import SegBuilder

    from liteseg_plugin.integration.config import ConfigBuilder


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
    """Build the config's network and load trained weights: a file, a URL, or their name."""
    from paddleseg.utils import logger

    from liteseg_plugin.inference.network import class_name
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
