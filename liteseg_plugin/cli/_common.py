"""Arguments and steps that several commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from liteseg_plugin.errors import LitesegError

if TYPE_CHECKING:
    from paddle import nn
    from paddleseg.cvlibs import SegBuilder

    from liteseg_plugin.integration.config import ConfigBuilder

# The keys of runtimes.catalog.RUNTIMES, which a test compares; importing it would load Paddle.
RUNTIMES = ("paddle", "paddle_tensorrt", "onnxruntime", "openvino", "tensorrt")
# Those of runtimes.base.PRECISIONS, likewise.
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
DEVICES = ("cpu", "gpu", "xpu", "npu", "mlu")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--opts``."""
    parser.add_argument("--config", required=True, help="path of the config file (.yml)")
    parser.add_argument(
        "--opts", nargs="+", metavar="KEY=VALUE", help="override values of the config"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``; as in PaddleSeg, a missing device falls back to the CPU."""
    parser.add_argument("--device", default="gpu", choices=DEVICES, help="default: gpu, else cpu")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add ``--model_path``."""
    parser.add_argument("--model_path", required=True, help="trained weights (model.pdparams)")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add ``--runtime``."""
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="default: paddle, or an installed one that has the --precision",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add ``--precision`` of a runtime."""
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=PRECISIONS,
        help="what the runtime computes in; int8 needs liteseg quantize (default: fp32)",
    )


def add_augmentation(parser: argparse.ArgumentParser, switch: str) -> None:
    """Add the flags of multi-scale, flipped and sliding-window inference.

    Args:
        parser: The command's parser.
        switch: The flag that turns scales and flips on, ``--aug_eval`` or ``--aug_pred``.
    """
    parser.add_argument(switch, action="store_true", help="use several scales and flips")
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0])
    parser.add_argument("--flip_horizontal", action="store_true")
    parser.add_argument("--flip_vertical", action="store_true")
    parser.add_argument("--is_slide", action="store_true", help="infer by sliding window")
    parser.add_argument("--crop_size", nargs=2, type=int, metavar=("W", "H"))
    parser.add_argument("--stride", nargs=2, type=int, metavar=("W", "H"))


def augmentation(args: argparse.Namespace, switch: str, test_config: dict) -> dict:
    """Return the config's test settings, overridden by the flags of :func:`add_augmentation`."""
    chosen = dict(test_config)
    if getattr(args, switch):
        chosen["aug_eval"] = True
        for name in ("scales", "flip_horizontal", "flip_vertical"):
            chosen[name] = getattr(args, name)
    if args.is_slide:
        if not (args.crop_size and args.stride):
            raise LitesegError("--is_slide needs --crop_size W H and --stride W H")
        for name in ("is_slide", "crop_size", "stride"):
            chosen[name] = getattr(args, name)
    return chosen


def build(
    args: argparse.Namespace, *, downloads: bool | None = None, **overrides: Any
) -> ConfigBuilder:
    """Register the components, repair PaddleSeg, and read the config.

    Args:
        args: Holds ``config`` and ``opts``.
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
        config.load(args.config, args.opts, **overrides), downloads=downloads
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


def show(builder: SegBuilder, device: str | None = None) -> None:
    """Log environment and config, and choose the device, as PaddleSeg's tools do."""
    from paddleseg.utils import utils

    utils.show_env_info()
    utils.show_cfg_info(builder.config)
    if device is not None:
        utils.set_device(device)


def class_name(model: nn.Layer) -> str:
    """Return module and class of what was built, which every command logs."""
    return f"{type(model).__module__}.{type(model).__qualname__}"
