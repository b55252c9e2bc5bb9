"""Resizing, pooling and reductions with the same result in training and in every exported graph.

Eager mode calls Paddle's kernels. A traced graph gets the same linear maps as matrix products
instead: bilinear resizing is ``A_h X A_w^T`` and adaptive average pooling ``P_h X P_w^T``, with
matrices computed from the shapes inside the graph. So one exported graph is exact at every size,
and it holds neither ``bilinear_interp`` (which Paddle 3.3's oneDNN cannot run, Paddle issue 77340)
nor an adaptive pooling to a grid (which ONNX lacks, so that converters replace it by a wrong one,
Paddle2ONNX issues 1076 and 1077). Products suit features, which are small; :func:`sample` resizes
images.

Engines of small boards have no fast matrix product. Within :func:`plain_operators` a traced graph
of a fixed size gets resizing, average pooling and slices instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from functools import reduce
from typing import Any, Union, cast

import paddle
import paddle.nn.functional as F

RESIZE_MODES = ("bilinear", "nearest")

Extent = Union[int, paddle.Tensor]
"""A length in pixels: an int where it is known, a 0-D integer tensor where a graph computes it."""

_plain = ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_operators() -> Iterator[None]:
    """Let graphs of a fixed size be traced without matrix products."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def spatial_size(x: paddle.Tensor) -> tuple[Extent, Extent]:
    """Return the height and width of ``x`` (N, C, H, W).

    Ints in eager mode and wherever a traced graph fixes the extent; elsewhere a tensor that the
    graph computes.
    """
    # Code that Paddle converts has tensors here already, of int32 in Paddle 2.6.
    extents = [n if isinstance(n, int) else n.astype("int64") for n in x.shape]
    if any(isinstance(n, int) and n < 0 for n in extents):
        computed = paddle.shape(x).astype("int64")
        extents = [computed[i] if n < 0 else n for i, n in enumerate(extents)]
    height, width = extents[2:]
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
    if not paddle.in_dynamic_mode() and _are_known_and_equal(size_hw, x.shape[2:]):
        return x
    if not (paddle.in_dynamic_mode() or _plain.get()):
        if _is_one(x.shape[2]) and _is_one(x.shape[3]):
            return paddle.expand(x, [-1, -1, *size_hw])  # of one pixel: the same everywhere
        if mode == "bilinear":
            rows, columns = bilinear_matrices(spatial_size(x), size_hw)
        else:
            rows, columns = map(_nearest_matrix, spatial_size(x), size_hw)
        return apply_matrices(rows, x, columns)
    return F.interpolate(x, list(size_hw), mode=cast(Any, mode))


def bilinear_matrices(
    *sizes_hw: tuple[Extent, Extent],
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return the matrices that resize from the first size to each further one in turn.

    Returns:
        Rows (h, H) and columns (w, W) for :func:`apply_matrices`.
    """
    rows, columns = (
        reduce(
            lambda first, then: paddle.matmul(then, first), map(_bilinear_matrix, axis, axis[1:])
        )
        for axis in zip(*sizes_hw)
    )
    return rows, columns


def sample(x: paddle.Tensor, size_hw: tuple[Extent, Extent]) -> paddle.Tensor:
    """Resize images (N, C, H, W) as :func:`resize` does, in a traced graph: two pixels per axis.

    If H and W are large, that costs less than a product with a mostly zero matrix.
    """
    (source_height, source_width), (height, width) = spatial_size(x), size_hw
    first, second, share = _neighbours(source_height, height)
    share = share.unsqueeze(1)
    x = paddle.gather(x, first, axis=2) * (1.0 - share) + paddle.gather(x, second, axis=2) * share
    first, second, share = _neighbours(source_width, width)
    return (
        paddle.gather(x, first, axis=3) * (1.0 - share) + paddle.gather(x, second, axis=3) * share
    )


def adaptive_avg_pool(x: paddle.Tensor, bins: int) -> paddle.Tensor:
    """Average ``x`` (N, C, H, W) over a grid of ``bins`` x ``bins`` cells of nearly equal size.

    Returns:
        (N, C, bins, bins). Cells overlap where ``bins`` does not divide H or W.
    """
    if bins == 1 or paddle.in_dynamic_mode():
        return F.adaptive_avg_pool2d(x, bins)
    if _plain.get():
        return _pool_axis(_pool_axis(x, bins, axis=2), bins, axis=3)
    rows, columns = (_pooling_matrix(extent, bins) for extent in spatial_size(x))
    return apply_matrices(rows, x, columns)


def global_max_pool(x: paddle.Tensor) -> paddle.Tensor:
    """Take the maximum of ``x`` (N, C, H, W) over its pixels: (N, C, 1, 1).

    Eager mode pools, so that of equal maxima only the first receives the gradient.
    """
    if paddle.in_dynamic_mode():
        return F.adaptive_max_pool2d(x, 1)
    return paddle.max(x, axis=[2, 3], keepdim=True)


def mean_over_channels(x: paddle.Tensor) -> paddle.Tensor:
    """Average ``x`` (N, C, H, W) at each pixel: (N, 1, H, W).

    In a traced graph that is a convolution, which reads the blocked layout that convolutions
    write; a reduction would have it rewritten first, and takes several times as long.
    """
    if paddle.in_dynamic_mode():
        return paddle.mean(x, axis=1, keepdim=True)
    channels = x.shape[1]
    return F.conv2d(x, paddle.full([1, channels, 1, 1], 1 / channels, dtype="float32"))


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


def apply_matrices(rows: paddle.Tensor, x: paddle.Tensor, columns: paddle.Tensor) -> paddle.Tensor:
    """Map (N, C, H, W) by (h, H) rows and (w, W) columns to (N, C, h, w)."""
    # The rows last: their product is the large one, and its result needs no transposition.
    return paddle.matmul(rows.astype(x.dtype), apply_columns(x, columns))


def apply_columns(x: paddle.Tensor, columns: paddle.Tensor) -> paddle.Tensor:
    """Map (N, C, H, W) by (w, W) columns to (N, C, H, w)."""
    # Paddle's oneDNN product reads a convolution's blocked layout as if it were plain, and gives
    # garbage; a transposition in front makes it plain. Converters take it out again.
    x = x.transpose([0, 1, 3, 2])
    return paddle.matmul(x, columns.astype(x.dtype), transpose_x=True, transpose_y=True)


def _bilinear_matrix(source: Extent, target: Extent) -> paddle.Tensor:
    """Return the (target, source) weights of linear interpolation along one axis."""
    sampled = _sampled_positions(source, target)
    # Expanded first: of two one-dimensional operands, Paddle's oneDNN subtracts element by element.
    sampled = paddle.expand(sampled.unsqueeze(1), [-1, source])
    distance = paddle.abs(sampled - _positions(source).unsqueeze(0))
    return F.relu(1.0 - distance)


def _neighbours(
    source: Extent, target: Extent
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Return the two source pixels around each target pixel, and the share of the second."""
    position = _sampled_positions(source, target)
    first = paddle.floor(position)
    second = paddle.minimum(first + 1.0, _as_float(source) - 1.0)
    return first.astype("int64"), second.astype("int64"), position - first


def _sampled_positions(source: Extent, target: Extent) -> paddle.Tensor:
    """Return where in the source each target pixel of linear interpolation lies: (target,)."""
    # In the kernel's order of operations, so that float32 rounds as it does there.
    sampled = _ratio(source, target) * (_positions(target) + 0.5) - 0.5
    return paddle.minimum(F.relu(sampled), _as_float(source) - 1.0)


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


def _pool_axis(x: paddle.Tensor, bins: int, axis: int) -> paddle.Tensor:
    """Average ``x`` (N, C, H, W), of a known size, over ``bins`` cells of one axis."""
    length = x.shape[axis]
    if length % bins == 0:
        return _average(x, length // bins, axis)
    cells = [(i * length // bins, -(-(i + 1) * length // bins)) for i in range(bins)]
    return paddle.concat(
        [_average(paddle.slice(x, [axis], [a], [b]), b - a, axis) for a, b in cells], axis=axis
    )


def _average(x: paddle.Tensor, length: int, axis: int) -> paddle.Tensor:
    """Average each ``length`` pixels of ``x`` (N, C, H, W) along one axis."""
    return F.avg_pool2d(x, (length, 1) if axis == 2 else (1, length))


def _positions(length: Extent) -> paddle.Tensor:
    """Return 0, 1, ... length - 1 as float32."""
    return paddle.arange(0, length, dtype="int64").astype("float32")


def _are_known_and_equal(size_hw: Sequence[Extent], other_hw: Sequence[Extent]) -> bool:
    pairs = zip(size_hw, other_hw)
    return all(isinstance(a, int) and isinstance(b, int) and a == b for a, b in pairs)


def _is_one(length: Extent) -> bool:
    return isinstance(length, int) and length == 1


def _as_float(length: Extent) -> paddle.Tensor:
    """Return ``length`` as a float32 tensor of shape (1,)."""
    if isinstance(length, int):
        return paddle.full([1], float(length), dtype="float32")
    return length.reshape([1]).astype("float32")
