"""Segment images with trained weights; the flags are those of tools/predict.py."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    _common.add_config(parser)
    _common.add_weights(parser)
    _common.add_device(parser)
    parser.add_argument("--device_id", type=int, default=0)
    parser.add_argument("--image_path", required=True, help="an image, a folder, or a list file")
    parser.add_argument("--save_dir", default="./output/result")
    _common.add_augmentation(parser, "--aug_pred")
    parser.add_argument("--custom_color", nargs="+", type=int, metavar="RGB")


def run(args: argparse.Namespace) -> None:
    """Predict, and write overlays and label images."""
    builder = _common.build(args)

    from paddleseg.core import predict
    from paddleseg.transforms import Compose
    from paddleseg.utils import get_image_list, logger

    # PaddleSeg 2.8.0 knows no device number but through this spelling.
    device = f"{args.device}:{args.device_id}" if args.device_id else args.device
    _common.show(builder, device)
    model = builder.model
    images, folder = get_image_list(args.image_path)
    logger.info(f"{len(images)} images for {type(model).__module__}.{type(model).__name__}")
    # These two settings are evaluation's own; predict() does not take them.
    settings = {
        name: value
        for name, value in builder.config.test_config.items()
        if name not in ("aug_eval", "auc_roc")
    }
    settings = _common.augmentation(args, "aug_pred", settings)
    if args.custom_color:
        settings["custom_color"] = args.custom_color
    predict(
        model,
        model_path=args.model_path,
        transforms=Compose(builder.val_transforms),
        image_list=images,
        image_dir=folder,
        save_dir=args.save_dir,
        **settings,
    )
