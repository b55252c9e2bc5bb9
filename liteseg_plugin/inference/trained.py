"""Images and videos segmented by a trained network of Paddle, with the results of PaddleSeg's."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import paddle
from paddle import nn
from paddleseg.transforms import Compose
from paddleseg.utils import visualize

from liteseg_plugin.datasets import image_compose
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.inference.images import InputImage, check_utf8, result_paths
from liteseg_plugin.inference.network import segment_by
from liteseg_plugin.inference.pipeline import Extras, plan_results, write_legend
from liteseg_plugin.inference.segmentation import ADDED_WEIGHT
from liteseg_plugin.inference.video import Frames, segment_video, watch
from liteseg_plugin.integration.samples import read_and_transform
from liteseg_plugin.system.progress import progress_bar
from liteseg_plugin.visualization.overlay import write_image


def check_image_results(images: Sequence[InputImage], save_dir: str) -> None:
    """Check the files that :func:`predict_images` is going to write.

    Raises:
        DataError: If one overwrites an image or another result, or a path is not UTF-8.
    """
    check_utf8(save_dir, *(image.path for image in images))
    plan_results(images, save_dir, Extras())


def predict_images(
    network: nn.Layer,
    transforms: Compose,
    images: Sequence[InputImage],
    classes: Sequence[ClassInfo],
    save_dir: str,
    test_config: dict,
) -> str:
    """Segment images and write overlays, label images and a legend, as PaddleSeg's ``predict``.

    Args:
        network: The trained network.
        transforms: Those of evaluation.
        images: The images; in each process of ``paddle.distributed.launch`` a part of them.
        classes: In index order.
        save_dir: Where ``added_prediction`` and ``pseudo_color_prediction`` go.
        test_config: Scales, flips and sliding window, as in a config.

    Returns:
        The path of the legend.

    Raises:
        DataError: If an image cannot be read.
        OSError: If a result cannot be written.
    """
    segment = segment_by(network, test_config)
    image_format = image_compose.format_of(transforms)
    color_map = visualize.get_color_map_list(
        256, custom_color=[value for entry in classes for value in entry.color_rgb]
    )
    palette = np.array(color_map, np.uint8).reshape(-1, 3)[:, ::-1]
    mine = images[paddle.distributed.get_rank() :: paddle.distributed.get_world_size()]
    for path, name in progress_bar(mine, unit="image"):
        sample = read_and_transform(transforms, image_format, {"img": path})
        label = segment(sample).astype(np.uint8)
        added, pseudo = result_paths(name, save_dir)
        image = image_compose.shown(transforms, image_format.read(path))
        blended = cv2.addWeighted(image, 1 - ADDED_WEIGHT, palette[label], ADDED_WEIGHT, 0)
        write_image(added, blended)
        pseudo.parent.mkdir(parents=True, exist_ok=True)
        visualize.get_pseudo_color_map(label, color_map).save(pseudo)
    return write_legend(classes, save_dir)


def predict_video(
    network: nn.Layer,
    transforms: Compose,
    frames: Frames,
    classes: Sequence[ClassInfo],
    save_dir: str,
    test_config: dict,
) -> str | None:
    """Segment a video or a camera, and write a video of overlays, ``added_prediction/NAME.mp4``.

    Takes what :func:`predict_images` does, but frames, of
    :func:`liteseg_plugin.inference.video.open_video`.

    Returns:
        The path of the video; None without a frame.
    """
    segment = segment_by(network, test_config)
    image_format = image_compose.format_of(transforms)
    results = segment_video(
        lambda frame: segment(transforms({"img": image_format.values(image_format.check(frame))})),
        classes,
        frames,
        save_dir,
    )
    return watch(results, frames)[1]
