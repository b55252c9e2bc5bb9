"""Segment images with trained weights; takes the flags of PaddleSeg's tools/predict.py."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _devices, _network
from liteseg_plugin.cli.flags import shared, windows
from liteseg_plugin.cli.flags.images import add_bands, add_images
from liteseg_plugin.cli.flags.model import add_model, choose_model
from liteseg_plugin.errors import LitesegError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_model(parser)
    shared.add_device(parser)
    parser.add_argument("--device_id", type=int, help="number of the device, as gpu:N gives it")
    add_images(parser)
    parser.add_argument("--save_dir", default="./output/result", help="folder of the results")
    windows.add_augmentation(parser, "--aug_pred")
    add_bands(parser)
    windows.add_tiles(parser)
    parser.add_argument(
        "--custom_color",
        nargs="+",
        type=int,
        metavar="RGB",
        help="colours of the first classes, R G B R G B ... (default: the data set's)",
    )


def run(args: argparse.Namespace) -> None:
    """Predict, and write overlays, label images and a legend."""
    _devices.connect(args.device)
    choose_model(args)
    builder = _network.build(args)

    from paddleseg.utils import logger

    from liteseg_plugin.datasets.classes import describe_classes, recolored
    from liteseg_plugin.datasets.image_compose import compose, showing
    from liteseg_plugin.datasets.image_format import ImageFormat
    from liteseg_plugin.inference import images, trained
    from liteseg_plugin.inference.frames import is_video
    from liteseg_plugin.inference.network import class_name
    from liteseg_plugin.inference.video import open_video
    from liteseg_plugin.training import processes
    from liteseg_plugin.training.run import DataList

    device = _devices.use_device(args.device)
    if args.device_id is not None and device in ("gpu", "xpu", "npu", "mlu"):
        _devices.use_device(f"{device}:{args.device_id}")
    _network.show(builder, args)
    config = builder.config
    classes = describe_classes(config.val_dataset_cfg, config.model_cfg["num_classes"])
    classes = recolored(classes, args.custom_color or [])
    image_format = ImageFormat.of_config(config.val_dataset_cfg, config.model_cfg)
    transforms = showing(compose(builder.val_transforms, image_format), args.bands)
    test_config = windows.augmentation(args, "aug_pred", config.test_config)
    if is_video(args.image_path):
        if processes.count() > 1:
            raise LitesegError(
                f"{args.image_path} is one video, which several processes cannot share: start "
                "liteseg predict without liteseg launch"
            )
        frames = open_video(args.image_path, args.save_dir)
        network = _network.load_network(builder, args.model_path)
        path = trained.predict_video(
            network, transforms, frames, classes, args.save_dir, test_config
        )
        logger.info(f"Overlays are in {path or args.save_dir}")
        return
    found = images.find_images(args.image_path, args.separator)
    trained.check_image_results(found, args.save_dir)
    names = [image.name for image in found]
    lists = {"image_path's list": DataList.of_names(names)}
    _devices.check_same_on_hosts(args, builder, args.model_path, lists)
    network = _network.load_network(builder, args.model_path)
    logger.info(f"{len(found)} images for {class_name(network)}")
    legend = trained.predict_images(network, transforms, found, classes, args.save_dir, test_config)
    logger.info(f"Predicted images are saved in {args.save_dir}")
    logger.info(f"Legend of the colours: {legend}")
