"""Resizing and pooling that mean the same in training and in every exported graph.

Eager mode calls Paddle's kernels. A traced graph gets the same linear maps as matrix products
instead: bilinear resizing is ``A_h X A_w^T`` and adaptive average pooling ``P_h X P_w^T``, with
matrices computed from the shapes inside the graph. So one exported graph is exact at every size,
and it holds neither ``bilinear_interp`` (which Paddle 3.3's oneDNN cannot run, Paddle issue 77340)
nor an adaptive pooling (which ONNX has not, so that converters replace it by a wrong one,
Paddle2ONNX issues 1076 and 1077).
"""

from __future__ import annotations

from typing import Union

import paddle
import paddle.nn.functional as F

RESIZE_MODES = ("bilinear", "nearest")

Extent = Union[int, paddle.Tensor]
"""A length in pixels: an int where it is known, a 0-D integer tensor where a graph computes it."""


def spatial_size(x: paddle.Tensor) -> tuple[Extent, Extent]:
    """Return the height and width of ``x`` (N, C, H, W).

    Ints in eager mode and wherever a traced graph fixes the extent. Where it does not, Paddle's
    tracing turns ``x.shape`` into a tensor that the graph computes.
    """
    height, width = x.shape[2:]
    return height, width


def resize(
    x: paddle.Tensor, size_hw: tuple[Extent, Extent], mode: str = "bilinear"
) -> paddle.Tensor:
    """Resize feature maps with half-pixel centres (``align_corners=False``).

    Args:
        x: (N, C, H, W).
        size_hw: Target height and width in pixels.
        mode: One of ``RESIZE_MODES``.

    Returns:
        (N, C, *size_hw), of the type of ``x``.
    """
    if not paddle.in_dynamic_mode():
        if _is_one(x.shape[2]) and _is_one(x.shape[3]):
            return paddle.expand(x, [-1, -1, *size_hw])  # of one pixel: the same everywhere
        matrix = _bilinear_matrix if mode == "bilinear" else _nearest_matrix
        rows, columns = (matrix(source, target) for source, target in zip(spatial_size(x), size_hw))
        return _apply(rows, x, columns)
    return F.interpolate(x, list(size_hw), mode=mode)


def adaptive_avg_pool(x: paddle.Tensor, bins: int) -> paddle.Tensor:
    """Average ``x`` (N, C, H, W) over a grid of ``bins`` x ``bins`` cells of nearly equal size.

    Returns:
        (N, C, bins, bins). Cells overlap where ``bins`` does not divide H or W.
    """
    if paddle.in_dynamic_mode():
        return F.adaptive_avg_pool2d(x, bins)
    if bins == 1:
        return paddle.mean(x, axis=[2, 3], keepdim=True)
    rows, columns = (_pooling_matrix(extent, bins) for extent in spatial_size(x))
    return _apply(rows, x, columns)


def global_max_pool(x: paddle.Tensor) -> paddle.Tensor:
    """Take the maximum of ``x`` (N, C, H, W) over its pixels: (N, C, 1, 1).

    Eager mode pools, so that of equal maxima only the first receives the gradient.
    """
    if paddle.in_dynamic_mode():
        return F.adaptive_max_pool2d(x, 1)
    return paddle.max(x, axis=[2, 3], keepdim=True)


def max_over_channels(x: paddle.Tensor) -> paddle.Tensor:
    """Take the maximum of ``x`` (N, C, H, W) at each pixel: (N, 1, H, W).

    The gradient is that of ``paddle.max``, all of it to each channel that attains the maximum; but
    ``paddle.max`` computes it so slowly on CPU that it was 44 % of a training step.
    """
    if paddle.in_dynamic_mode():
        return _MaxOverChannels.apply(x)
    return paddle.max(x, axis=1, keepdim=True)


class _MaxOverChannels(paddle.autograd.PyLayer):
    @staticmethod
    def forward(ctx: paddle.autograd.PyLayerContext, x: paddle.Tensor) -> paddle.Tensor:
        maximum = paddle.max(x, axis=1, keepdim=True)
        # Detached: a layer that holds its own output is never freed without a backward.
        ctx.save_for_backward(x, maximum.detach())
        return maximum

    @staticmethod
    def backward(ctx: paddle.autograd.PyLayerContext, gradient: paddle.Tensor) -> paddle.Tensor:
        x, maximum = ctx.saved_tensor()
        return gradient * (x == maximum).astype(gradient.dtype)


def _apply(rows: paddle.Tensor, x: paddle.Tensor, columns: paddle.Tensor) -> paddle.Tensor:
    """Map (N, C, H, W) by (h, H) rows and (w, W) columns to (N, C, h, w)."""
    rows, columns = rows.astype(x.dtype), columns.astype(x.dtype)
    # Paddle's oneDNN product reads a convolution's blocked layout as if it were plain, and gives
    # garbage; a transposition in front makes it plain.
    x = paddle.matmul(x.transpose([0, 1, 3, 2]), rows, transpose_y=True)
    return paddle.matmul(x.transpose([0, 1, 3, 2]), columns, transpose_y=True)


def _bilinear_matrix(source: Extent, target: Extent) -> paddle.Tensor:
    """Return the (target, source) weights of linear interpolation along one axis."""
    # In the kernel's order of operations, so that float32 rounds as it does there.
    sampled = _ratio(source, target) * (_positions(target) + 0.5) - 0.5
    sampled = paddle.minimum(F.relu(sampled), _as_float(source) - 1.0)
    distance = paddle.abs(sampled.unsqueeze(1) - _positions(source).unsqueeze(0))
    return F.relu(1.0 - distance)


def _nearest_matrix(source: Extent, target: Extent) -> paddle.Tensor:
    """Return the (target, source) weights, ones and zeros, of nearest resizing along one axis."""
    ratio = _ratio(source, target)
    picked = paddle.minimum(paddle.floor(ratio * _positions(target)), _as_float(source) - 1.0)
    return (picked.unsqueeze(1) == _positions(source).unsqueeze(0)).astype("float32")


def _ratio(source: Extent, target: Extent) -> paddle.Tensor:
    """Return source pixels for each target pixel; 0 to a single one: the kernel takes the first."""
    target_length = _as_float(target)
    return _as_float(source) / target_length * (target_length > 1.0).astype("float32")


def _pooling_matrix(source: Extent, bins: int) -> paddle.Tensor:
    """Return the (bins, source) weights of adaptive average pooling along one axis."""
    source_length, cell = _as_float(source), _positions(bins)
    first = paddle.floor(cell * source_length / bins).unsqueeze(1)
    end = paddle.ceil((cell + 1.0) * source_length / bins).unsqueeze(1)
    position = _positions(source).unsqueeze(0)
    inside = paddle.logical_and(position >= first, position < end).astype("float32")
    return inside / (end - first)


def _positions(length: Extent) -> paddle.Tensor:
    """Return 0, 1, ... length - 1 as float32."""
    return paddle.arange(0, length, dtype="int64").astype("float32")


def _is_one(length: Extent) -> bool:
    return isinstance(length, int) and length == 1


def _as_float(length: Extent) -> paddle.Tensor:
    """Return ``length`` as a float32 tensor of shape (1,)."""
    if isinstance(length, int):
        return paddle.full([1], float(length), dtype="float32")
    return length.reshape([1]).astype("float32")
