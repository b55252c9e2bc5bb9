"""The graph that is exported: a network from an image to its labels."""

from __future__ import annotations

from collections.abc import Callable

import paddle
from paddle import nn

from liteseg_plugin.export.folding import without_batch_norms
from liteseg_plugin.models.resize import (
    Extent,
    apply_columns,
    apply_matrices,
    bilinear_matrices,
    resize,
    sample,
    spatial_size,
)

# Blocks of columns, and strips of rows in each, that labels are computed in; see _in_tiles.
BLOCKS, STRIPS = 2, 8
# Logits around those that a tile covers that interpolation may need.
MARGIN = 2


class ExportedNetwork(nn.Layer):
    """One graph: a network, its evaluation scale, and the output op.

    Args:
        network: Gives a list whose first entry are the logits.
        output_op: One of ``OUTPUT_OPS``.
        scale: The network sees the image resized by this, and its logits are resized back, as
            PaddleSeg's evaluation does with ``aug_eval: True, scales: 0.5``.
        plain: Whether it is traced within ``plain_operators()``.
    """

    def __init__(
        self, network: nn.Layer, output_op: str, scale: float = 1.0, plain: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self._output_op = output_op
        self._scale = scale
        self._plain = plain

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map normalised images (N, 3, H, W) to what ``output_op`` says."""
        sizes = [spatial_size(x)]
        if self._scale != 1:
            sizes.insert(0, _scaled_size(sizes[0], self._scale))
            x = resize(x, sizes[0]) if self._plain else sample(x, sizes[0])
        if hasattr(self.network, "coarse_logits"):
            logit = self.network.coarse_logits(x)[0]
        else:
            logit = self.network(x)[0]
            sizes.pop(0)
        if self._plain:
            for size_hw in sizes:
                logit = resize(logit, size_hw)
        elif sizes:
            # One product to the image's size, past those between.
            rows, columns = bilinear_matrices(spatial_size(logit), *sizes)
            if self._output_op in _SMALL_OUTPUTS:
                finish, axis = _SMALL_OUTPUTS[self._output_op]
                return _in_tiles(rows, logit, columns, sizes[-1], finish, axis)
            logit = apply_matrices(rows, logit, columns)
        if self._output_op in _SMALL_OUTPUTS:
            return _SMALL_OUTPUTS[self._output_op][0](logit)
        return nn.functional.softmax(logit, axis=1) if self._output_op == "softmax" else logit


class _UnconvertedNetwork(ExportedNetwork):
    """The same graph, traced without Paddle's conversion of the Python code."""

    @paddle.jit.not_to_static
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return super().forward(x)


# Modules whose layers run in the order in which they are declared, and hold no `if`, loop or
# `x.shape` that Paddle would have to convert.
_PLAIN_LAYERS = (
    *("paddle.", "liteseg_plugin.models.", "paddleseg.models.backbones.stdcnet"),
    *("paddleseg.models.layers.activation", "paddleseg.models.layers.layer_libs"),
)


def graph_of(
    network: nn.Layer, output_op: str, scale: float = 1.0, plain: bool = False
) -> ExportedNetwork:
    """Return the :class:`ExportedNetwork` of a network, as it is traced and loaded fastest.

    PP-LiteSeg is traced without a conversion of its code, which takes two thirds of the time, and
    without batch norms. Other networks are traced as they are.
    """
    layers = network.sublayers(include_self=True)
    if all(type(layer).__module__.startswith(_PLAIN_LAYERS) for layer in layers):
        return _UnconvertedNetwork(without_batch_norms(network), output_op, scale, plain)
    return ExportedNetwork(network, output_op, scale, plain)


def _labels(logit: paddle.Tensor) -> paddle.Tensor:
    return paddle.argmax(logit, axis=1, dtype="int32")


def _labels_and_confidence(logit: paddle.Tensor) -> paddle.Tensor:
    """Return labels and their probabilities, (N, 2, H, W), of logits (N, C, H, W)."""
    labels = _labels(logit).astype(logit.dtype).unsqueeze(1)
    best = paddle.max(logit, axis=1, keepdim=True)
    sums = paddle.sum(paddle.exp(logit - best), axis=1, keepdim=True)
    # Not a division, which paddle2onnx cannot convert.
    return paddle.concat([labels, paddle.reciprocal(sums)], axis=1)


# Output ops that need few channels: what they make of logits, and the axis of their rows.
_SMALL_OUTPUTS = {"argmax": (_labels, 1), "confidence": (_labels_and_confidence, 2)}


def _in_tiles(
    rows: paddle.Tensor,
    logit: paddle.Tensor,
    columns: paddle.Tensor,
    size_hw: tuple[Extent, Extent],
    finish: Callable[[paddle.Tensor], paddle.Tensor],
    axis: int,
) -> paddle.Tensor:
    """Resize logits (N, C, h, w) by (H, h) rows and (W, w) columns, and finish them.

    A tile at a time: its scores stay in the cache, and need only some of the logits. All at once,
    the scores are the largest tensor of the network by far. If the width is open, tiles are as wide
    as the image: computing where blocks of columns begin costs more than they save.
    """
    height, width = size_hw
    if not isinstance(width, int):
        return _in_strips(rows, _one_wider(logit, columns), size_hw, finish, axis)
    _, source = spatial_size(logit)
    finished, block_width = [], -(-width // BLOCKS)
    for left in range(0, width, block_width):
        right = min(left + block_width, width)
        first, last = _source_of(left, right, width, source)
        weights = paddle.slice(columns, [0, 1], [left, first], [right, last])
        block = _one_wider(paddle.slice(logit, [3], [first], [last]), weights)
        finished.append(_in_strips(rows, block, (height, right - left), finish, axis))
    return paddle.concat(finished, axis=axis + 1)


def _one_wider(logit: paddle.Tensor, columns: paddle.Tensor) -> paddle.Tensor:
    """Map (N, C, h, w) by (W, w) columns to (N, C, h, W + 1), the last column twice.

    At a width like 1024, scores of one pixel would lie a multiple of 4096 bytes apart, in cache
    lines that displace each other, and an argmax over classes would take twice as long.
    """
    return apply_columns(logit, paddle.concat([columns, columns[-1:]]))


def _in_strips(
    rows: paddle.Tensor,
    logit: paddle.Tensor,
    size_hw: tuple[Extent, Extent],
    finish: Callable[[paddle.Tensor], paddle.Tensor],
    axis: int,
) -> paddle.Tensor:
    """Resize logits (N, C, h, at least W) by (H, h) rows, and finish them: H x W pixels."""
    source, _ = spatial_size(logit)
    height, width = size_hw
    strip_height = (height + STRIPS - 1) // STRIPS
    whole = isinstance(height, int) and height % STRIPS == 0
    if not whole:
        # Strips of one height, none of them empty, which Paddle 2.6 cannot multiply.
        rows = paddle.concat([rows, *[rows[-1:]] * (STRIPS - 1)])
    finished = []
    for strip in range(STRIPS):
        top, bottom = strip_height * strip, strip_height * (strip + 1)
        first, last = _source_of(top, bottom, height, source)
        weights = paddle.slice(rows, [0, 1], [top, first], [bottom, last])
        scores = paddle.matmul(weights, paddle.slice(logit, [2], [first], [last]))
        finished.append(finish(scores))
    joined = paddle.concat(finished, axis=axis)
    return paddle.slice(joined, [axis, axis + 1], [0, 0], [height, width])


def _source_of(
    first: Extent, last: Extent, length: Extent, source: Extent
) -> tuple[Extent, Extent]:
    """Return what pixels ``first`` to ``last`` of ``length`` are interpolated from."""
    return (
        _clip(first * source // length - MARGIN, 0, source - 1),
        _clip(last * source // length + MARGIN + 1, 1, source),
    )


def _clip(value: Extent, low: int, high: Extent) -> Extent:
    if isinstance(value, int) and isinstance(high, int):
        return min(max(value, low), high)
    tensor, lowest, highest = (
        paddle.full([], n, "int64") if isinstance(n, int) else n for n in (value, low, high)
    )
    return paddle.minimum(paddle.maximum(tensor, lowest), highest)


def _scaled_size(size_hw: tuple[Extent, Extent], scale: float) -> tuple[Extent, Extent]:
    height, width = size_hw
    return _scaled(height, scale), _scaled(width, scale)


def _scaled(extent: Extent, scale: float) -> Extent:
    """Round as PaddleSeg's evaluation does."""
    if isinstance(extent, int):
        return int(extent * scale + 0.5)
    return paddle.floor(extent.astype("float32") * scale + 0.5).astype("int64")
