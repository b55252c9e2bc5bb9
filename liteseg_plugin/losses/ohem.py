"""Online hard example mining (OHEM) cross entropy, as PP-LiteSeg is trained with."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import nn

from liteseg_plugin.losses.ohem_cpu import Mining, ohem_cross_entropy

PIXELS_PER_KEPT = 16
"""The released recipes keep at least one pixel of 16: batch * height * width / 16."""


class OhemCrossEntropyLoss(nn.Layer):
    """Cross entropy over the hardest pixels of a batch.

    It keeps the pixels whose probability of the true class is below ``thresh``. If those are fewer
    than ``min_kept``, it keeps those below the probability of the ``min_kept``-th hardest pixel.
    A batch with at most ``min_kept`` labelled pixels is kept whole, and 0 switches mining off:
    every labelled pixel counts. Loss and gradient are those of PaddleSeg's class of this name,
    which sorts all pixels and expands the labels to one-hot; this one selects by order statistic
    and gathers, and on a CPU works in pieces (:mod:`liteseg_plugin.losses.ohem_cpu`).

    Args:
        thresh: Probability of the true class from which on a pixel is easy, from 0 to 1.
        min_kept: Number of pixels of a batch to keep at least; by default that of the released
            recipes, a sixteenth of the pixels of the batch.
        ignore_index: Label of ignored pixels.
        weight: Factor of each class, or None for 1.

    Raises:
        ValueError: If ``thresh`` is outside 0..1, ``min_kept`` negative, or the number of weights
            is not that of the classes.

    Example:
        >>> loss = OhemCrossEntropyLoss(min_kept=2)
        >>> logit, label = paddle.zeros([1, 3, 2, 2]), paddle.zeros([1, 2, 2], dtype="int64")
        >>> round(float(loss(logit, label)), 4)
        1.0986
    """

    # Of PaddleSeg's, and part of the number that training logs: mean(loss) / (mean(kept) + EPS).
    EPS = 1e-5

    def __init__(
        self,
        thresh: float = 0.7,
        min_kept: int | None = None,
        ignore_index: int = 255,
        weight: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= thresh <= 1:
            raise ValueError(f"thresh must be a probability from 0 to 1, got {thresh}")
        if min_kept is not None and min_kept < 0:
            raise ValueError(f"min_kept must be a number of pixels of at least 0, got {min_kept}")
        self.thresh = thresh
        self.min_kept = min_kept
        self.ignore_index = ignore_index
        self.weight = None if weight is None else paddle.to_tensor(weight, dtype="float32")

    def forward(self, logit: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
        """Compute the loss of a batch.

        Args:
            logit: (N, C, H, W).
            label: Integers 0..C-1 or ``ignore_index``, (N, H, W) or (N, 1, H, W).

        Returns:
            The loss, a scalar.
        """
        if self.weight is not None and len(self.weight) != logit.shape[1]:
            raise ValueError(f"{len(self.weight)} class weights for {logit.shape[1]} classes")
        if label.ndim == logit.ndim - 1:
            label = label.unsqueeze(1)
        label = label.astype("int64")
        min_kept = label.size // PIXELS_PER_KEPT if self.min_kept is None else self.min_kept
        if _runs_in_numpy(logit):
            weight = None if self.weight is None else self.weight.numpy()
            mining = Mining(self.thresh, min_kept, self.ignore_index, weight, self.EPS)
            return ohem_cross_entropy(logit, label, mining)
        kept = self._kept(logit.detach(), label, min_kept)
        loss = F.cross_entropy(
            logit,
            paddle.where(kept, label, paddle.full_like(label, self.ignore_index)),
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction="none",
            axis=1,
        )
        kept = kept.astype("float32")
        return (loss * kept).mean() / (kept.mean() + self.EPS)

    @paddle.no_grad()
    def _kept(self, logit: paddle.Tensor, label: paddle.Tensor, min_kept: int) -> paddle.Tensor:
        """Return which pixels count: (N, 1, H, W) of bool. Nothing here waits for a GPU."""
        labelled = label != self.ignore_index
        if min_kept == 0 or min_kept >= label.size:
            return labelled

        true_class = paddle.where(labelled, label, paddle.zeros_like(label))
        probability = F.softmax(logit.astype("float32"), axis=1)
        probability = paddle.take_along_axis(probability, true_class, axis=1)
        # Ignored pixels rank behind every labelled one.
        rank = paddle.where(labelled, probability, paddle.full_like(probability, 2.0)).flatten()
        threshold = _kth_smallest(rank, min_kept).clip(min=self.thresh)
        # Not `<`: a NaN probability counts as hard, and makes the loss NaN.
        hard = paddle.logical_not(probability >= threshold)
        few_labelled = labelled.astype("int64").sum() <= min_kept
        return paddle.logical_and(labelled, paddle.logical_or(few_labelled, hard))


def _runs_in_numpy(logit: paddle.Tensor) -> bool:
    if not paddle.in_dynamic_mode():  # traced: there is no data yet
        return False
    return logit.place.is_cpu_place() and logit.dtype in (paddle.float32, paddle.float64)


def _kth_smallest(values: paddle.Tensor, k: int) -> paddle.Tensor:
    """Return the ``k``-th smallest of non-negative float32 numbers (N,), as a 0-D or (1,) tensor.

    On CPU that is a partial selection. Paddle's selection on GPU sorts; there the bits of the
    number are found one by one, counting the numbers up to each guess. A graph that is traced
    does not say where it will run.
    """
    if paddle.in_dynamic_mode() and not values.place.is_cpu_place():
        return _kth_smallest_by_bits(values, k)
    return paddle.kthvalue(values, k)[0]


def _kth_smallest_by_bits(values: paddle.Tensor, k: int) -> paddle.Tensor:
    # Non-negative floats are in the order of their bits, read as integers.
    bits = values.view("int32")
    found = paddle.zeros([1], dtype="int32")
    for bit in reversed(range(31)):
        guess = found + (1 << bit)
        fewer = (bits < guess).astype("int64").sum() < k
        found = paddle.where(fewer, guess, found)
    return found.view("float32")
