"""Segment images with trained weights; the flags are those of tools/predict.py."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from liteseg_plugin.cli import _common

if TYPE_CHECKING:
    from paddleseg.cvlibs import SegBuilder

    from liteseg_plugin.datasets.base import ClassInfo

_LEGEND_WIDTH = 480


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    _common.add_config(parser)
    _common.add_weights(parser)
    _common.add_device(parser)
    parser.add_argument("--device_id", type=int, default=0)
    parser.add_argument(
        "--image_path",
        required=True,
        help="an image, a folder, a list file, a video, or camera:0",
    )
    parser.add_argument("--save_dir", default="./output/result")
    _common.add_augmentation(parser, "--aug_pred")
    parser.add_argument(
        "--custom_color",
        nargs="+",
        type=int,
        metavar="RGB",
        help="colours of the first classes, R G B R G B ... (default: the data set's)",
    )


def run(args: argparse.Namespace) -> None:
    """Predict, and write overlays, label images and a legend."""
    builder = _common.build(args)

    import os

    import paddle
    from paddleseg.core import predict
    from paddleseg.transforms import Compose
    from paddleseg.utils import logger

    from liteseg_plugin.datasets.classes import describe_classes, recolored
    from liteseg_plugin.inference import images as inputs
    from liteseg_plugin.inference.video import is_video
    from liteseg_plugin.visualization.overlay import legend_bar, write_image

    _common.show(builder, args.device)
    if args.device_id and args.device != "cpu":
        paddle.set_device(f"{args.device}:{args.device_id}")
    model = builder.model
    settings = _common.augmentation(args, "aug_pred", _as_in_evaluation(builder.config.test_config))
    config = builder.config
    classes = describe_classes(config.val_dataset_cfg, config.model_cfg["num_classes"])
    classes = recolored(classes, args.custom_color or [])
    if is_video(args.image_path):
        _predict_video(args, builder, settings, classes)
        return
    images, folder = inputs.for_paddleseg(
        inputs.find_images(args.image_path), inputs.folder_of(args.image_path)
    )
    legend = os.path.join(args.save_dir, "legend.png")
    inputs.check_utf8(args.save_dir, *images)
    inputs.check_results(
        images,
        [
            *inputs.paddleseg_results(images, folder, args.save_dir),
            inputs.Result(legend, "the legend"),
        ],
    )
    logger.info(f"{len(images)} images for {_common.class_name(model)}")
    settings["custom_color"] = [value for entry in classes for value in entry.color_rgb]
    predict(
        model,
        model_path=args.model_path,
        transforms=Compose(builder.val_transforms),
        image_list=images,
        image_dir=folder,
        save_dir=args.save_dir,
        **settings,
    )
    write_image(legend, legend_bar(classes, _LEGEND_WIDTH))
    logger.info(f"What the colours mean is in {legend}")


def _predict_video(
    args: argparse.Namespace, builder: SegBuilder, settings: dict, classes: list[ClassInfo]
) -> None:
    from paddleseg.transforms import Compose
    from paddleseg.utils import logger, utils

    from liteseg_plugin.inference.network import segment_by
    from liteseg_plugin.inference.video import open_video, segment_video, watch
    from liteseg_plugin.integration.patches import local_path

    frames = open_video(args.image_path, args.save_dir)
    utils.load_entire_model(builder.model, local_path(args.model_path))
    transforms = Compose(builder.val_transforms)
    test_config = {**settings, "aug_eval": settings.get("aug_pred", False)}
    segment = segment_by(builder.model, test_config)
    results = segment_video(
        lambda frame: segment(transforms({"img": frame.astype("float32")})),
        classes,
        frames,
        args.save_dir,
    )
    _, path = watch(results, frames)
    logger.info(f"Overlays are in {path or args.save_dir}")


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
