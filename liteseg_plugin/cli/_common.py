"""Arguments and steps that several commands share."""

from __future__ import annotations

import argparse
import os
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
CONFIG_HELP = "config file (.yml), or the name of one that `liteseg config list` prints"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, ``--opts``, ``--model_path``, and ``--run`` in place of them."""
    parser.add_argument(
        "--run",
        dest="run_folder",
        metavar="FOLDER",
        help="the --save_dir of a training: its config, and its best weights (else the newest)",
    )
    add_config(parser, required=False)
    add_weights(parser, required=False)


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


def add_config(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add ``--config`` and ``--opts``."""
    parser.add_argument("--config", required=required, help=CONFIG_HELP)
    parser.add_argument(
        "--opts", nargs="+", metavar="KEY=VALUE", help="override values of the config"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="log environment and config, as PaddleSeg does"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, gpu, gpu:N, xpu, npu, mlu, or auto, the best that is here",
    )


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


def add_weights(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add ``--model_path``."""
    parser.add_argument("--model_path", required=required, help="trained weights (model.pdparams)")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add ``--runtime``."""
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="what runs an export (default: paddle, or an installed one with that --precision)",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add ``--precision`` of a runtime."""
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=PRECISIONS,
        help="what the runtime computes in; int8 needs `liteseg quantize`",
    )


def add_augmentation(parser: argparse.ArgumentParser, switch: str) -> None:
    """Add the flags of multi-scale, flipped and sliding-window inference.

    Args:
        parser: The command's parser.
        switch: The flag that turns scales and flips on, ``--aug_eval`` or ``--aug_pred``.
    """
    add = parser.add_argument
    add(switch, action="store_true", help="use --scales and the flips, instead of the config's")
    help_text = f"scales of the image, whose results are averaged; needs {switch}"
    add("--scales", nargs="+", type=float, default=[1.0], help=help_text)
    for flip in ("horizontal", "vertical"):
        help_text = f"also use the image flipped in {flip} direction; needs {switch}"
        add(f"--flip_{flip}", action="store_true", help=help_text)
    add("--is_slide", action="store_true", help="infer by a sliding window")
    for flag, what in (("--crop_size", "size"), ("--stride", "step")):
        help_text = f"{what} of the window in pixels; needs --is_slide"
        add(flag, nargs=2, type=int, metavar=("W", "H"), help=help_text)


def hide_warnings_of_tracing() -> None:
    """Let Paddle's C++ log errors only; call it before Paddle is imported.

    Paddle 3 logs a warning about an `out` tensor that no operator of a traced network has.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")


def html_file(text: str) -> str:
    """Check the name of a page to be written; the ``type`` of a flag."""
    from liteseg_plugin.system.files import require_suffix

    try:
        require_suffix(text, ".html")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


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
