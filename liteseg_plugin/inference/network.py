"""A trained network in Paddle, as evaluation runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import paddle
from paddle import nn
from paddleseg.core import infer

from liteseg_plugin.errors import ExportError
from liteseg_plugin.inference.tiles import Tiling, blend

_SLIDING = ("is_slide", "stride", "crop_size")
_AVERAGING = ("scales", "flip_horizontal", "flip_vertical")


def class_name(network: nn.Layer) -> str:
    """Return module and class of a network, which logs and reports name."""
    return f"{type(network).__module__}.{type(network).__qualname__}"


def segment_by(network: nn.Layer, test_config: dict) -> Callable[[dict], np.ndarray]:
    """Return a function that segments a sample (``img`` and ``trans_info``) with a Paddle network.

    The network is put into evaluation. ``test_config`` is that of a config: scales, flips and
    sliding window.
    """
    sliding = {k: v for k, v in test_config.items() if k in _SLIDING}
    tiling, inference = None, infer.inference
    if test_config.get("aug_eval"):
        averaging = {k: v for k, v in test_config.items() if k in _AVERAGING}
        inference = partial(infer.aug_inference, **averaging)
    else:
        tiling = _tiling(**sliding)
    network.eval()

    def segment(sample: dict) -> np.ndarray:
        image = sample["img"]
        if tiling is not None and not sample["trans_info"]:
            strips = blend(tiling, image.shape[1:], partial(_logits, network, image))
            return np.concatenate([strip.labels for strip in strips])
        batch = paddle.to_tensor(image[np.newaxis])
        with paddle.no_grad():
            labels, _ = inference(network, batch, sample["trans_info"], **sliding)
        return labels.numpy()[0, 0]

    return segment


def _tiling(
    is_slide: bool = False, crop_size: Sequence[int] = (), stride: Sequence[int] = ()
) -> Tiling | None:
    """Return PaddleSeg's sliding window as tiles, or None for one that overlaps unevenly.

    PaddleSeg keeps the logits of the whole picture, tiles those of a row.
    """
    overlaps = {size - step for size, step in zip(crop_size, stride)}
    if not is_slide or len(overlaps) != 1 or not 0 <= min(overlaps) < min(crop_size):
        return None
    return Tiling(crop_size[0], crop_size[1], overlaps.pop(), show_progress=True)


def _logits(network: nn.Layer, image: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """Return the logits (C, h, w) of a window of an image (3, H, W)."""
    with paddle.no_grad():
        return network(paddle.to_tensor(image[np.newaxis, :, rows, columns]))[0].numpy()[0]


def evaluation_scale(test_config: dict) -> float:
    """Return the one scale that evaluation runs the network at, from a config's ``test_config``.

    Raises:
        ExportError: If it averages several scales or flips, which one graph cannot.
    """
    if test_config.get("is_slide"):
        raise ExportError(
            "test_config uses a sliding window, which one graph cannot; remove is_slide"
        )
    if not test_config.get("aug_eval", False):
        return 1.0
    scales = np.atleast_1d(test_config.get("scales", 1.0)).astype(float).tolist()
    if len(scales) > 1 or test_config.get("flip_horizontal") or test_config.get("flip_vertical"):
        raise ExportError(
            f"test_config averages several inferences ({test_config}); an exported model runs "
            "one. Give a single scale and no flips, e.g. --opts test_config.scales=1.0"
        )
    return scales[0]
