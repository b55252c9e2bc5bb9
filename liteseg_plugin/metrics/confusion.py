"""Segmentation metrics: from one confusion matrix, and along boundaries."""

from __future__ import annotations

import math

import numpy as np
import paddle

BOUNDARY_TOLERANCE = 0.0075
"""Share of an image's diagonal by which a boundary may be off and still count as found."""


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
        ignore_index: Label of pixels that do not count.

    Returns:
        (C + 1, C + 1) of int64: entry (i, j) counts the pixels of class i predicted as j.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> true, guess = paddle.to_tensor([0, 1, 1, 255]), paddle.to_tensor([0, 0, 1, 1])
        >>> confusion_matrix(guess, true, 2).tolist()
        [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    """
    _check_shapes(pred, label)
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
    _check_shapes(pred, label)
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
        ignore_index: Label of pixels that do not count.

    Returns:
        Pixels in the intersection of prediction and truth, pixels predicted, and pixels labelled;
        each (C,) of int64.

    Raises:
        ValueError: If the shapes differ.
    """
    pred = pred.squeeze(1) if pred.ndim == 4 else pred
    label = label.squeeze(1) if label.ndim == 4 else label
    counts = confusion_matrix(pred, label, num_classes, ignore_index).numpy()
    return tuple(map(paddle.to_tensor, areas(counts)))


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
        "class_iou": _ratio(hit, predicted + labelled - hit, otherwise=iou_of_absent),
        "class_dice": _ratio(2 * hit, predicted + labelled),
        "class_precision": _ratio(hit, predicted),
        "class_recall": _ratio(hit, labelled),
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


def boundary_f1(
    pred: np.ndarray, label: np.ndarray, num_classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Return the boundary F-score of each class in one image.

    A pixel lies on the boundary of its class if one of its four neighbours is of another; pixels
    of ``ignore_index`` count neither as pixels nor as neighbours, nor does the image's edge.
    Precision is the share of the predicted boundary that lies within ``BOUNDARY_TOLERANCE`` (of
    the image's diagonal, in Euclidean distance) of the true boundary of that class, recall the
    share of the true boundary that lies so near the predicted one, F their harmonic mean.

    Source: Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC
    2013.

    Args:
        pred: Predicted classes, (H, W).
        label: True classes, (H, W).
        num_classes: Number of classes C.
        ignore_index: Label of pixels that do not count.

    Returns:
        (C,), 0 where only one of both has a boundary of the class, NaN where neither has.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_shapes(pred, label)
    counted = label != ignore_index
    guess, truth = _boundary(pred, counted), _boundary(label, counted)
    precision = _share_near(guess, truth, label.shape, num_classes)
    recall = _share_near(truth, guess, label.shape, num_classes)
    f1 = _ratio(2 * precision * recall, precision + recall)
    neither = np.ones(num_classes, bool)
    for _, classes in (guess, truth):
        neither[classes[classes < num_classes]] = False
    f1[neither] = np.nan
    return f1


def _boundary(label: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places, in the flattened image, and the classes of pixels on a boundary."""
    edge = np.zeros(label.shape, bool)
    for one, next_one in (np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:]):
        differ = (label[one] != label[next_one]) & counted[one] & counted[next_one]
        edge[one] |= differ
        edge[next_one] |= differ
    places = np.flatnonzero(edge)
    return places, label.ravel()[places].astype("int64")


def _share_near(
    points: tuple[np.ndarray, np.ndarray],
    others: tuple[np.ndarray, np.ndarray],
    shape_hw: tuple[int, int],
    num_classes: int,
) -> np.ndarray:
    """Return the share of points, by class, that have another of their class near, (C,)."""
    found, lengths = np.zeros((2, num_classes))
    # One bit a class, so that all are dilated at once.
    integer = np.min_scalar_type((1 << min(num_classes, 32)) - 1).type
    for first in range(0, num_classes, 32):
        places, bits = _of_classes(others, first, num_classes, integer)
        plane = np.zeros(shape_hw, integer)
        plane.ravel()[places] = integer(1) << bits
        near = _dilate(plane, BOUNDARY_TOLERANCE * math.hypot(*shape_hw)).ravel()
        places, bits = _of_classes(points, first, num_classes, integer)
        hit = near[places] >> bits & integer(1)
        here = slice(first, first + 32)
        size = len(lengths[here])
        lengths[here] = np.bincount(bits, minlength=size)
        found[here] = np.bincount(bits, weights=hit, minlength=size)
    return _ratio(found, lengths)


def _of_classes(
    points: tuple[np.ndarray, np.ndarray], first: int, num_classes: int, integer: type
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of points of up to 32 classes, and their classes counted from ``first``."""
    places, classes = points
    chosen = (classes >= first) & (classes < min(first + 32, num_classes))
    return places[chosen], (classes[chosen] - first).astype(integer)


def _dilate(plane: np.ndarray, radius: float) -> np.ndarray:
    """Combine each cell's bits with those of the cells within ``radius``."""
    result, row = plane.copy(), plane.copy()
    reach = 0
    for down in range(int(radius), -1, -1):
        # The disk is as wide as this in the row so far down; `row` grows to that width.
        while (reach + 1) ** 2 + down**2 <= radius**2:
            reach += 1
            row[:, reach:] |= plane[:, :-reach]
            row[:, :-reach] |= plane[:, reach:]
        result[down:] |= row[: len(row) - down]
        result[: len(row) - down] |= row[down:]
    return result


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


def _check_shapes(pred: paddle.Tensor | np.ndarray, label: paddle.Tensor | np.ndarray) -> None:
    if list(pred.shape) != list(label.shape):
        raise ValueError(
            f"pred and label differ in shape: {list(pred.shape)} and {list(label.shape)}"
        )


def _wide_enough(values: paddle.Tensor) -> paddle.Tensor:
    """Return integers of a type in which Paddle finds minimum and maximum."""
    return values if values.dtype in (paddle.int32, paddle.int64) else values.astype("int32")


def _exceeds(values: paddle.Tensor | np.ndarray, limit: int) -> bool:
    """Tell whether any value lies outside 0..limit-1."""
    return 0 not in values.shape and (int(values.min()) < 0 or int(values.max()) >= limit)


def _ratio(part: np.ndarray, whole: np.ndarray, otherwise: float = 0) -> np.ndarray:
    """Divide; where the whole is 0 the result is ``otherwise``."""
    return np.divide(part, whole, out=np.full(np.shape(whole), float(otherwise)), where=whole != 0)
