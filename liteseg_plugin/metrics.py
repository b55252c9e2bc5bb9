"""Segmentation metrics from one confusion matrix."""

from __future__ import annotations

import paddle


def confusion_matrix(
    pred: paddle.Tensor, label: paddle.Tensor, num_classes: int, ignore_index: int = 255
) -> paddle.Tensor:
    """Count pixels by true and predicted class, in one pass.

    Args:
        pred: Predicted classes 0..num_classes-1, of any shape and integer type.
        label: True classes, of the same shape. Pixels of ``ignore_index`` do not count; a label
            outside 0..num_classes-1 counts for its prediction in the last row.
        num_classes: Number of classes C.
        ignore_index: Label of pixels that do not count.

    Returns:
        (C + 1, C) of int64: entry (i, j) counts the pixels of class i that were predicted as j.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> true, guess = paddle.to_tensor([0, 1, 1, 255]), paddle.to_tensor([0, 0, 1, 1])
        >>> confusion_matrix(guess, true, 2).tolist()
        [[1, 0], [1, 1], [0, 0]]
    """
    if list(pred.shape) != list(label.shape):
        raise ValueError(
            f"pred and label differ in shape: {list(pred.shape)} and {list(label.shape)}"
        )
    pred, label = pred.astype("int64").flatten(), label.astype("int64").flatten()
    ignored = label == ignore_index
    in_range = paddle.logical_and(label >= 0, label < num_classes)
    row = paddle.where(in_range, label, paddle.full_like(label, num_classes))
    # Ignored pixels go to one bin behind the matrix, which is cut off.
    beyond = paddle.full_like(label, (num_classes + 1) * num_classes)
    cell = paddle.where(ignored, beyond, row * num_classes + pred)
    counts = paddle.bincount(cell, minlength=(num_classes + 1) * num_classes + 1)
    return counts[:-1].reshape([num_classes + 1, num_classes]).astype("int64")


def calculate_area(
    pred: paddle.Tensor, label: paddle.Tensor, num_classes: int, ignore_index: int = 255
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Count pixels by class, as PaddleSeg's function of this name.

    Args:
        pred: Predicted classes, (N, 1, H, W) or (N, H, W).
        label: True classes, likewise.
        num_classes: Number of classes C.
        ignore_index: Label of pixels that do not count.

    Returns:
        Pixels in the intersection of prediction and truth, pixels predicted, and pixels labelled;
        each (C,) of int64.

    Raises:
        ValueError: If the shapes differ.
    """
    pred = pred.squeeze(1) if pred.ndim == 4 else pred
    label = label.squeeze(1) if label.ndim == 4 else label
    counts = confusion_matrix(pred, label, num_classes, ignore_index)
    in_range = counts[:num_classes]
    # Not diagonal(): its strided view cannot be gathered from several processes.
    intersection = (in_range * paddle.eye(num_classes, dtype="int64")).sum(axis=0)
    return intersection, counts.sum(axis=0), in_range.sum(axis=1)
