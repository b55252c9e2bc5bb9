"""The graph that is exported: a network from an image to its labels."""

from __future__ import annotations

import paddle
from paddle import nn

from liteseg_plugin.models.resize import (
    Extent,
    apply_columns,
    apply_matrices,
    bilinear_matrices,
    sample,
    spatial_size,
)

# Strips of rows that labels are computed in; see _labels_in_strips.
STRIPS = 8
# Rows of the logits around those that a strip covers that interpolation may need.
STRIP_MARGIN = 2


class ExportedNetwork(nn.Layer):
    """One graph: a network, its evaluation scale, and the output op.

    Args:
        network: Gives a list whose first entry are the logits.
        output_op: One of ``OUTPUT_OPS``.
        scale: The network sees the image resized by this, and its logits are resized back, as
            PaddleSeg's evaluation does with ``aug_eval: True, scales: 0.5``.
    """

    def __init__(self, network: nn.Layer, output_op: str, scale: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self._output_op = output_op
        self._scale = scale

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map normalised images (N, 3, H, W) to labels (N, H, W), or scores (N, C, H, W)."""
        sizes = [spatial_size(x)]
        if self._scale != 1:
            sizes.insert(0, _scaled_size(sizes[0], self._scale))
            x = sample(x, sizes[0])
        if hasattr(self.network, "coarse_logits"):
            logit = self.network.coarse_logits(x)[0]
        else:
            logit = self.network(x)[0]
            sizes.pop(0)
        if sizes:
            # One product to the image's size, past those between.
            rows, columns = bilinear_matrices(spatial_size(logit), *sizes)
            if self._output_op == "argmax":
                return _labels_in_strips(rows, logit, columns, sizes[-1])
            logit = apply_matrices(rows, logit, columns)
        if self._output_op == "argmax":
            return paddle.argmax(logit, axis=1, dtype="int32")
        return nn.functional.softmax(logit, axis=1) if self._output_op == "softmax" else logit


def _labels_in_strips(
    rows: paddle.Tensor,
    logit: paddle.Tensor,
    columns: paddle.Tensor,
    size_hw: tuple[Extent, Extent],
) -> paddle.Tensor:
    """Resize logits (N, C, h, w) by (H, h) rows and (W, w) columns, and give labels (N, H, W).

    A few rows of labels at a time: their scores stay in the cache, and need only some rows of the
    logits. All at once, the scores are the largest tensor of the network by far.

    The scores are one column wider than the labels: at a width like 1024, those of one pixel would
    lie a multiple of 4096 bytes apart, in cache lines that displace each other, and an argmax over
    classes would take twice as long.
    """
    source, _ = spatial_size(logit)
    height, width = size_hw
    logit = apply_columns(logit, paddle.concat([columns, columns[-1:]]))
    strip_height = (height + STRIPS - 1) // STRIPS
    whole = isinstance(height, int) and height % STRIPS == 0
    if not whole:
        # Strips of one height, none of them empty, which Paddle 2.6 cannot multiply.
        rows = paddle.concat([rows, paddle.expand(rows[-1:], [STRIPS - 1, source])])
    labels = []
    for strip in range(STRIPS):
        top, bottom = strip_height * strip, strip_height * (strip + 1)
        first = _clip(top * source // height - STRIP_MARGIN, 0, source - 1)
        last = _clip(bottom * source // height + STRIP_MARGIN + 1, 1, source)
        weights = paddle.slice(rows, [0, 1], [top, first], [bottom, last])
        scores = paddle.matmul(weights, paddle.slice(logit, [2], [first], [last]))
        labels.append(paddle.argmax(scores, axis=1, dtype="int32"))
    return paddle.slice(paddle.concat(labels, axis=1), [1, 2], [0, 0], [height, width])


def _clip(value: Extent, low: int, high: Extent) -> Extent:
    if isinstance(value, int) and isinstance(high, int):
        return min(max(value, low), high)
    tensor, lowest, highest = (paddle.to_tensor(n, dtype="int64") for n in (value, low, high))
    return paddle.minimum(paddle.maximum(tensor, lowest), highest)


def _scaled_size(size_hw: tuple[Extent, Extent], scale: float) -> tuple[Extent, Extent]:
    height, width = size_hw
    return _scaled(height, scale), _scaled(width, scale)


def _scaled(extent: Extent, scale: float) -> Extent:
    """Round as PaddleSeg's evaluation does."""
    if isinstance(extent, int):
        return int(extent * scale + 0.5)
    return paddle.floor(extent.astype("float32") * scale + 0.5).astype("int64")
