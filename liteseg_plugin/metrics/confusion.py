"""Metrics from a confusion matrix."""

from __future__ import annotations

import numpy as np
import paddle


def check_shapes(pred: paddle.Tensor | np.ndarray, label: paddle.Tensor | np.ndarray) -> None:
    """Raise ValueError if prediction and truth differ in shape."""
    if list(pred.shape) != list(label.shape):
        raise ValueError(
            f"pred and label differ in shape: {list(pred.shape)} and {list(label.shape)}"
        )


def ratio(part: np.ndarray, whole: np.ndarray, otherwise: float = 0) -> np.ndarray:
    """Divide; where the whole is 0 the result is ``otherwise``."""
    return np.divide(part, whole, out=np.full(np.shape(whole), float(otherwise)), where=whole != 0)


def confusion_matrix(
    pred: paddle.Tensor, label: paddle.Tensor, num_classes: int, ignore_index: int = 255
) -> paddle.Tensor:
    """Count pixels by true and predicted class, in one pass.

    Args:
        pred: Predicted classes, of any shape and integer type; what lies outside 0..num_classes-1
            counts in the last column.
        label: True classes, of the same shape. Pixels of ``ignore_index`` do not count; other
            labels outside 0..num_classes-1 count in the last row.
        num_classes: Number of classes C.
        ignore_index: Label of ignored pixels.

    Returns:
        (C + 1, C + 1) of int64: entry (i, j) counts the pixels of class i predicted as j.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> true, guess = paddle.to_tensor([0, 1, 1, 255]), paddle.to_tensor([0, 0, 1, 1])
        >>> confusion_matrix(guess, true, 2).tolist()
        [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    """
    check_shapes(pred, label)
    rows = _rows(num_classes)
    pred, label = (_wide_enough(x.flatten()) for x in (pred, label))
    if _exceeds(label, rows):
        other = paddle.logical_or(label < 0, label >= rows)
        ignored = label == ignore_index
        label = paddle.where(other, paddle.full_like(label, rows), label)
        label = paddle.where(ignored, paddle.full_like(label, rows + 1), label)
    if _exceeds(pred, num_classes):
        other = paddle.logical_or(pred < 0, pred >= num_classes)
        pred = paddle.where(other, paddle.full_like(pred, num_classes), pred)
    # In int32, which is several times as fast as int64.
    cells = label.astype("int32") * (num_classes + 1) + pred.astype("int32")
    counts = paddle.bincount(cells, minlength=(rows + 2) * (num_classes + 1))
    return paddle.to_tensor(_fold(counts.numpy(), num_classes, ignore_index))


def count_pixels(
    pred: np.ndarray, label: np.ndarray, num_classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Count as :func:`confusion_matrix` does, arrays without Paddle.

    Raises:
        ValueError: If the shapes differ.
    """
    check_shapes(pred, label)
    rows = _rows(num_classes)
    pred, label = pred.ravel(), label.ravel()
    if _exceeds(label, rows):
        other = (label < 0) | (label >= rows)
        label = np.where(label == ignore_index, rows + 1, np.where(other, rows, label))
    if _exceeds(pred, num_classes):
        pred = np.where((pred < 0) | (pred >= num_classes), num_classes, pred)
    cells = label.astype("int64") * (num_classes + 1) + pred
    counts = np.bincount(cells, minlength=(rows + 2) * (num_classes + 1))
    return _fold(counts, num_classes, ignore_index)


def calculate_area(
    pred: paddle.Tensor, label: paddle.Tensor, num_classes: int, ignore_index: int = 255
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Count pixels by class, as PaddleSeg's function of this name.

    Args:
        pred: Predicted classes, (N, 1, H, W) or (N, H, W).
        label: True classes, likewise.
        num_classes: Number of classes C.
        ignore_index: Label of ignored pixels.

    Returns:
        Pixels in the intersection of prediction and truth, pixels predicted, and pixels labelled;
        each (C,) of int64.

    Raises:
        ValueError: If the shapes differ.
    """
    pred = pred.squeeze(1) if pred.ndim == 4 else pred
    label = label.squeeze(1) if label.ndim == 4 else label
    counts = confusion_matrix(pred, label, num_classes, ignore_index).numpy()
    hit, predicted, labelled = map(paddle.to_tensor, areas(counts))
    return hit, predicted, labelled


def areas(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pixels in the intersection, predicted, and labelled, each (C,).

    Args:
        counts: A confusion matrix, (C + 1, C + 1).
    """
    return counts.diagonal()[:-1].copy(), counts[:, :-1].sum(axis=0), counts[:-1].sum(axis=1)


def scores(counts: np.ndarray, iou_of_absent: float = 1.0) -> dict:
    """Return PaddleSeg's numbers of evaluation.

    As there, a class that occurs neither in truth nor in prediction is part of the means, with
    precision, recall and Dice 0.

    Args:
        counts: A confusion matrix, (C + 1, C + 1).
        iou_of_absent: The IoU of such a class: 1 in PaddleSeg's develop branch, 0 in 2.8.0.

    Returns:
        ``miou``, ``accuracy``, ``kappa``, ``dice``, ``precision`` and ``recall`` (means over
        classes, but for accuracy and kappa, which may be NaN), and ``class_iou``,
        ``class_dice``, ``class_precision`` and ``class_recall``, each (C,).

    Example:
        >>> scores(np.array([[2, 0, 0], [1, 1, 0], [0, 0, 0]]))["class_iou"].tolist()
        [0.6666666666666666, 0.5]
    """
    hit, predicted, labelled = (area.astype("float64") for area in areas(counts))
    by_class = {
        "class_iou": ratio(hit, predicted + labelled - hit, otherwise=iou_of_absent),
        "class_dice": ratio(2 * hit, predicted + labelled),
        "class_precision": ratio(hit, predicted),
        "class_recall": ratio(hit, labelled),
    }
    total = labelled.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = hit.sum() / total
        chance = (predicted * labelled).sum() / total**2
        kappa = (observed - chance) / (1 - chance)
        accuracy = hit.sum() / predicted.sum()
    return {
        "miou": float(by_class["class_iou"].mean()),
        "accuracy": float(accuracy),
        "kappa": float(kappa),
        "dice": float(by_class["class_dice"].mean()),
        "precision": float(by_class["class_precision"].mean()),
        "recall": float(by_class["class_recall"].mean()),
        **by_class,
    }


def _rows(num_classes: int) -> int:
    """Return for how many label values cells are counted and sorted out afterwards.

    All that eight bits hold, so that neither 255 nor a strange label needs a mask. Two rows
    follow: for labels beyond, and for an ``ignore_index`` beyond.
    """
    return max(256, num_classes)


def _fold(cells: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """Make the confusion matrix of counts by label value and predicted class."""
    counts = cells.reshape(-1, num_classes + 1)[:-1].astype("int64")
    if 0 <= ignore_index < len(counts) - 1:
        counts[ignore_index] = 0
    return np.vstack([counts[:num_classes], counts[num_classes:].sum(axis=0)])


def _wide_enough(values: paddle.Tensor) -> paddle.Tensor:
    """Return integers of a type in which Paddle finds minimum and maximum."""
    return values if values.dtype in (paddle.int32, paddle.int64) else values.astype("int32")


def _exceeds(values: paddle.Tensor | np.ndarray, limit: int) -> bool:
    """Tell whether any value lies outside 0..limit-1."""
    return 0 not in values.shape and (int(values.min()) < 0 or int(values.max()) >= limit)
