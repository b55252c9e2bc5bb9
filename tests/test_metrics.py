from __future__ import annotations

import numpy as np
import paddle
import pytest

from liteseg_plugin.metrics import calculate_area, confusion_matrix


def counted_one_by_one(pred, label, num_classes, ignore_index):
    counts = np.zeros((num_classes + 1, num_classes), "int64")
    for guess, true in zip(pred.ravel(), label.ravel()):
        if true != ignore_index:
            counts[true if 0 <= true < num_classes else num_classes, guess] += 1
    return counts


def areas_class_by_class(pred, label, num_classes, ignore_index):
    counts = label != ignore_index
    return [
        [int((counts & mask(c)).sum()) for c in range(num_classes)]
        for mask in (
            lambda c: (pred == c) & (label == c),
            lambda c: pred == c,
            lambda c: label == c,
        )
    ]


def draw(seed, shape, num_classes, strange=()):
    rng = np.random.default_rng(seed)
    pred = rng.integers(0, num_classes, shape)
    label = np.where(rng.random(shape) < 0.6, pred, rng.integers(0, num_classes, shape))
    for value in strange:
        label[rng.random(shape) < 0.1] = value
    return pred, label


def test_confusion_matrix_by_hand():
    pred = paddle.to_tensor([[0, 1, 1], [2, 2, 0]])
    label = paddle.to_tensor([[0, 1, 2], [2, 7, 255]])
    assert confusion_matrix(pred, label, 3).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 1, 1],
        [0, 0, 1],  # labels that are no class
    ]


def test_calculate_area_by_hand():
    pred = paddle.to_tensor([[[0, 1, 1], [2, 2, 0]]])
    label = paddle.to_tensor([[[0, 1, 2], [2, 7, 255]]])
    intersection, predicted, labelled = calculate_area(pred, label, 3)
    assert intersection.tolist() == [1, 1, 1]
    assert predicted.tolist() == [1, 2, 2]
    assert labelled.tolist() == [1, 1, 2]
    assert {t.dtype for t in (intersection, predicted, labelled)} == {paddle.int64}


@pytest.mark.parametrize("num_classes", [1, 2, 11, 19])
@pytest.mark.parametrize("ignore_index", [255, 0])
@pytest.mark.parametrize("strange", [(), (255,), (255, 200, -1)])
def test_metrics_equal_numpy(num_classes, ignore_index, strange):
    pred, label = draw(num_classes, (2, 17, 23), num_classes, strange)
    arguments = (num_classes, ignore_index)
    tensors = paddle.to_tensor(pred), paddle.to_tensor(label)
    counts = confusion_matrix(*tensors, *arguments)
    assert counts.tolist() == counted_one_by_one(pred, label, *arguments).tolist()
    areas = [area.tolist() for area in calculate_area(*tensors, *arguments)]
    assert areas == areas_class_by_class(pred, label, *arguments)


@pytest.mark.parametrize("dtypes", [("int32", "int64"), ("int64", "uint8"), ("int32", "int32")])
@pytest.mark.parametrize("dimensions", [(4, 4), (3, 3), (4, 3), (3, 4)])
def test_calculate_area_takes_either_shape_and_integers(dtypes, dimensions):
    pred, label = draw(5, (2, 6, 7), 4, (255,))
    expected = areas_class_by_class(pred, label, 4, 255)
    tensors = [
        paddle.to_tensor((x[:, None] if ndim == 4 else x).astype(dtype))
        for x, dtype, ndim in zip((pred, label), dtypes, dimensions)
    ]
    assert [area.tolist() for area in calculate_area(*tensors, 4)] == expected


def test_metrics_of_ignored_labels_are_zero():
    pred = paddle.zeros([2, 3, 3], dtype="int64")
    label = paddle.full([2, 3, 3], 255, dtype="int64")
    assert [area.tolist() for area in calculate_area(pred, label, 2)] == [[0, 0]] * 3


def test_metrics_leave_inputs_alone():
    pred, label = draw(6, (2, 1, 6, 7), 4, (255, 9))
    tensors = paddle.to_tensor(pred), paddle.to_tensor(label)
    calculate_area(*tensors, 4)
    for tensor, before in zip(tensors, (pred, label)):
        np.testing.assert_array_equal(tensor.numpy(), before)


@pytest.mark.parametrize("function", [confusion_matrix, calculate_area])
def test_metrics_refuse_other_shapes(function):
    pred, label = (paddle.zeros(shape, dtype="int64") for shape in ([1, 4, 5], [1, 5, 4]))
    with pytest.raises(ValueError, match=r"differ in shape: .*\[1, 4, 5\].* and .*\[1, 5, 4\]"):
        function(pred, label, 2)
