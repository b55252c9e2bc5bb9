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

    import paddle
    from paddleseg.core import predict
    from paddleseg.transforms import Compose
    from paddleseg.utils import get_image_list, logger

    _common.show(builder, args.device)
    if args.device_id and args.device != "cpu":
        paddle.set_device(f"{args.device}:{args.device_id}")
    model = builder.model
    images, folder = get_image_list(args.image_path)
    logger.info(f"{len(images)} images for {_common.class_name(model)}")
    settings = _common.augmentation(args, "aug_pred", _as_in_evaluation(builder.config.test_config))
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


def _as_in_evaluation(test_config: dict) -> dict:
    """Translate a config's settings of evaluation, so that both see images at the same scale.

    PaddleSeg's tools/predict.py drops ``aug_eval``, and with it the scale of the 0.5 and 0.75
    configs.
    """
    settings = {k: v for k, v in test_config.items() if k not in ("aug_eval", "auc_roc")}
    if test_config.get("aug_eval"):
        # predict() flips by default, evaluate() does not.
        settings = {"flip_horizontal": False, "flip_vertical": False, **settings, "aug_pred": True}
    return settings
