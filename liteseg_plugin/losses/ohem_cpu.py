"""OHEM cross entropy on a CPU: logits in pieces that stay in its cache.

Paddle's kernels pass over the logits of a batch (160 MB for 4 crops of 1024x512 and 19 classes)
some fifteen times, and take fresh memory for most of them. Here they are read once for the loss
and once for the gradient, which is the only large thing that is allocated. Paddle's PyLayer, 2.6
to 3.3, crashes if one graph is used twice (``backward(retain_graph=True)``).

Softmax is computed in the order of Paddle's kernel, with its exponential function and its lower
bound, so that the bits are the same where an image has a multiple of 16 pixels. A difference
of one bit becomes another network within tens of steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle.autograd import PyLayer
from paddle.utils import dlpack

_PIECE = 1 << 17  # logits: 0.5 MB
_LOWEST = -64  # Paddle's softmax cuts logit - largest logit there


class Mining(NamedTuple):
    """How pixels are chosen and weighed.

    Attributes:
        thresh: Probability of the true class from which on a pixel is easy.
        min_kept: Number of pixels to keep at least; 0 keeps all.
        ignore_index: Label of ignored pixels.
        weight: Factor of each class (C,), or None.
        eps: Added to the share of pixels that were kept.
    """

    thresh: float
    min_kept: int
    ignore_index: int
    weight: np.ndarray | None
    eps: float


def ohem_cross_entropy(logit: paddle.Tensor, label: paddle.Tensor, mining: Mining) -> paddle.Tensor:
    """Compute the loss, with a gradient for ``logit``.

    Args:
        logit: (N, C, H, W) of float32 or float64, on the CPU.
        label: (N, 1, H, W) of int64.
        mining: How pixels are chosen and weighed.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If the shapes do not fit each other.
        IndexError: If a label is neither a class nor ``ignore_index``.
    """
    n, classes, *size_hw = logit_shape = list(logit.shape)
    label_shape = list(label.shape)
    if label_shape != [n, 1, *size_hw]:
        raise ValueError(f"labels of shape {label_shape} for logits of shape {logit_shape}")
    true_class = _array(label).reshape(n, -1)
    labelled = true_class != mining.ignore_index
    true_class = np.where(labelled, true_class, 0)
    for value in (true_class.min(initial=0), true_class.max(initial=0)):
        if not 0 <= value < classes:
            raise IndexError(
                f"label value {value} is neither one of {classes} classes (0 to {classes - 1}) "
                f"nor ignore_index {mining.ignore_index}"
            )
    return _OhemCrossEntropy.apply(logit, true_class, labelled, mining)


class _OhemCrossEntropy(PyLayer):
    @staticmethod
    def forward(
        ctx: Any, logit: paddle.Tensor, true_class: np.ndarray, labelled: np.ndarray, mining: Mining
    ) -> paddle.Tensor:
        with np.errstate(all="ignore"):  # infinite logits make the loss NaN
            softmax, probability, loss = _cross_entropy(_planes(logit), true_class)
            kept = _hardest(probability, labelled, mining)
            factor = kept.astype(loss.dtype)
            if mining.weight is not None:
                factor *= mining.weight[true_class]
            total = np.where(kept, loss * factor, 0).sum(dtype="float64")
        # Rounded as PaddleSeg's, whose masks are float32 whatever the logits are.
        share = np.float32(kept.mean()) + np.float32(mining.eps)
        ctx.save_for_backward(logit)
        ctx.pixels = true_class, softmax, factor, share
        mean = loss.dtype.type(total / labelled.size / share)
        return paddle.to_tensor(mean, place=paddle.CPUPlace())

    @staticmethod
    def backward(ctx: Any, loss_gradient: paddle.Tensor) -> paddle.Tensor:
        (logit,) = ctx.saved_tensor()
        true_class, softmax, factor, share = ctx.pixels
        exact = factor.dtype.type
        of_one_pixel = exact(loss_gradient.item()) / exact(share) / exact(true_class.size)
        gradient = _gradient(_planes(logit), true_class, softmax, factor * of_one_pixel)
        return paddle.Tensor(
            value=gradient.reshape(logit.shape), place=paddle.CPUPlace(), zero_copy=True
        )


class _Softmax(NamedTuple):
    """What softmax is computed from: exp(logit - peak) * inverse.

    Attributes:
        peak: Largest logit of each pixel, (N, pixels).
        inverse: 1 / sum(exp(logit - peak)), likewise.
    """

    peak: np.ndarray
    inverse: np.ndarray


def _cross_entropy(
    logit: np.ndarray, true_class: np.ndarray
) -> tuple[_Softmax, np.ndarray, np.ndarray]:
    """Return softmax, and of the true class its probability and cross entropy: (N, pixels)."""
    peak, inverse, probability, loss = (np.empty(true_class.shape, logit.dtype) for _ in range(4))
    for i, part, rows in _pieces(logit):
        rows.max(axis=0, out=peak[i, part])
        shifted = np.maximum(rows - peak[i, part], _LOWEST)
        width = shifted.shape[1]
        picked = true_class[i, part] * width + np.arange(width)
        of_true_class = shifted.take(picked)
        exponential = _exp(shifted)
        total = exponential.sum(axis=0)
        np.subtract(np.log(total), of_true_class, out=loss[i, part])
        np.reciprocal(total, out=inverse[i, part])
        np.multiply(exponential.take(picked), inverse[i, part], out=probability[i, part])
    return _Softmax(peak, inverse), probability, loss


def _exp(values: np.ndarray) -> np.ndarray:
    """Return Paddle's approximation of exp(values), which must be contiguous."""
    return _array(paddle.exp(paddle.Tensor(value=values, place=paddle.CPUPlace(), zero_copy=True)))


def _hardest(probability: np.ndarray, labelled: np.ndarray, mining: Mining) -> np.ndarray:
    """Return which pixels count; see :class:`liteseg_plugin.losses.OhemCrossEntropyLoss`."""
    if not 0 < mining.min_kept < np.count_nonzero(labelled):
        return labelled
    # Ignored pixels rank behind every labelled one.
    probability = np.where(labelled, probability, probability.dtype.type(2))
    threshold = probability.dtype.type(mining.thresh)
    if np.count_nonzero(probability < threshold) < mining.min_kept:
        nth = mining.min_kept - 1
        threshold = max(threshold, np.partition(probability, nth, axis=None)[nth])
    # Not `<`: a NaN probability counts as hard, and makes the loss NaN.
    return labelled & ~(probability >= threshold)


def _gradient(
    logit: np.ndarray, true_class: np.ndarray, softmax: _Softmax, factor: np.ndarray
) -> np.ndarray:
    """Return (softmax - one-hot) * factor, (N, C, pixels)."""
    gradient = np.empty_like(logit)
    with np.errstate(all="ignore"):
        for i, part, rows in _pieces(logit):
            out, weights = gradient[i, :, part], factor[i, part]
            shifted = np.maximum(rows - softmax.peak[i, part], _LOWEST)
            np.multiply(_exp(shifted), softmax.inverse[i, part], out=out)
            out *= weights
            out[true_class[i, part], np.arange(out.shape[1])] -= weights
            # If no pixel counts, 0 * NaN is NaN.
            broken = ~np.isfinite(softmax.inverse[i, part]) & (weights == 0)
            if broken.any():
                out[:, broken] = 0
    return gradient


def _pieces(logit: np.ndarray) -> Iterator[tuple[int, slice, np.ndarray]]:
    """Yield image, slice of pixels, and their logits, in pieces of (N, C, pixels)."""
    n, classes, pixels = logit.shape
    # Whole vectors: Paddle's exponential function rounds what is left over otherwise.
    width = max(1, _PIECE // classes // 16) * 16
    for i in range(n):
        for start in range(0, pixels, width):
            part = slice(start, start + width)
            yield i, part, logit[i, :, part]


def _planes(logit: paddle.Tensor) -> np.ndarray:
    array = _array(logit)
    return array.reshape(*array.shape[:2], -1)


class _Lent:
    """What :func:`numpy.from_dlpack` asks for; a tensor of Paddle 2.6 is not yet that."""

    def __init__(self, tensor: paddle.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return dlpack.to_dlpack(self._tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU


def _array(tensor: paddle.Tensor) -> np.ndarray:
    """Return a tensor of the CPU as an array on the same memory, not to be written to."""
    return np.from_dlpack(_Lent(tensor.detach().contiguous()))
