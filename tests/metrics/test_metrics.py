from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddleseg.utils import metrics as paddleseg_metrics

from liteseg_plugin.metrics.boundary import BOUNDARY_TOLERANCE, boundary_f1
from liteseg_plugin.metrics.confusion import calculate_area, confusion_matrix, count_pixels, scores


def counted_one_by_one(pred, label, num_classes, ignore_index):
    counts = np.zeros((num_classes + 1, num_classes + 1), "int64")
    for guess, true in zip(pred.ravel(), label.ravel()):
        if true != ignore_index:
            row, column = (v if 0 <= v < num_classes else num_classes for v in (true, guess))
            counts[row, column] += 1
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
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 0],  # labels that are no class; predictions that are none in the last column
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
    expected = counted_one_by_one(pred, label, *arguments).tolist()
    assert confusion_matrix(*tensors, *arguments).tolist() == expected
    assert count_pixels(pred, label, *arguments).tolist() == expected
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


@pytest.mark.parametrize("function", [confusion_matrix, calculate_area, count_pixels, boundary_f1])
def test_metrics_refuse_other_shapes(function):
    pred, label = (paddle.zeros(shape, dtype="int64") for shape in ([1, 4, 5], [1, 5, 4]))
    with pytest.raises(ValueError, match=r"differ in shape: .*\[1, 4, 5\].* and .*\[1, 5, 4\]"):
        function(pred, label, 2)


@pytest.mark.parametrize("ignore_index", [-1, 255, 300])
@pytest.mark.parametrize("num_classes", [3, 300])
def test_metrics_sort_out_values_beyond_eight_bits(num_classes, ignore_index):
    strange = (-1, 255, 256, 300, 70000, -(2**31) + 1)
    pred, label = draw(9, (2, 13, 11), num_classes, strange)
    pred[0, :2] = num_classes  # predictions that are no class either
    pred[0, 2] = -1
    arguments = (num_classes, ignore_index)
    expected = counted_one_by_one(pred, label, *arguments).tolist()
    tensors = paddle.to_tensor(pred), paddle.to_tensor(label)
    assert confusion_matrix(*tensors, *arguments).tolist() == expected
    assert count_pixels(pred, label, *arguments).tolist() == expected
    areas = [area.tolist() for area in calculate_area(*tensors, *arguments)]
    assert areas == areas_class_by_class(pred, label, *arguments)


def test_confusion_matrix_of_nothing_is_zero():
    nothing = np.zeros((0, 4), "int64")
    assert count_pixels(nothing, nothing, 2).tolist() == [[0, 0, 0]] * 3
    assert confusion_matrix(*map(paddle.to_tensor, (nothing, nothing)), 2).sum() == 0


@pytest.mark.parametrize("num_classes", [2, 11, 19])
def test_scores_are_those_of_paddleseg(num_classes):
    pred, label = draw(num_classes, (40, 50), num_classes - 1, (255, 200))  # one class is absent
    nothing = paddle.zeros([1], dtype="int64")
    iou_of_absent = paddleseg_metrics.mean_iou(nothing, nothing, nothing)[1]
    numbers = scores(count_pixels(pred, label, num_classes), iou_of_absent)
    tensors = paddle.to_tensor(pred[np.newaxis]), paddle.to_tensor(label[np.newaxis])
    areas = calculate_area(*tensors, num_classes)
    class_iou, miou = paddleseg_metrics.mean_iou(*areas)
    accuracy, precision, recall = paddleseg_metrics.class_measurement(*areas)
    class_dice, dice = paddleseg_metrics.dice(*areas)
    expected = {
        "class_iou": class_iou,
        "miou": miou,
        "accuracy": accuracy,
        "class_precision": precision,
        "class_recall": recall,
        "precision": precision.mean(),
        "recall": recall.mean(),
        "class_dice": class_dice,
        "dice": dice,
        "kappa": paddleseg_metrics.kappa(*areas),
    }
    assert numbers.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(numbers[name], value, atol=1e-12, err_msg=name)


def test_scores_by_hand():
    numbers = scores(np.array([[3, 1, 0, 0], [1, 5, 0, 0], [0] * 4, [0] * 4]))
    assert numbers["class_iou"].tolist() == [3 / 5, 5 / 7, 1]  # the last occurs nowhere
    assert numbers["accuracy"] == 0.8
    chance = 0.4 * 0.4 + 0.6 * 0.6
    assert numbers["kappa"] == pytest.approx((0.8 - chance) / (1 - chance))


def boundary_f1_point_by_point(pred, label, num_classes, ignore_index):
    """Class by class and point by point, from the definition."""
    height, width = label.shape
    radius = BOUNDARY_TOLERANCE * np.hypot(height, width)

    def boundary(x, c):
        points = []
        for i, j in np.ndindex(x.shape):
            if x[i, j] != c or label[i, j] == ignore_index:
                continue
            for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                inside = 0 <= k < height and 0 <= m < width
                if inside and label[k, m] != ignore_index and x[k, m] != c:
                    points.append((i, j))
                    break
        return np.array(points, float).reshape(-1, 2)

    def share_near(points, others):
        if not (len(points) and len(others)):
            return 0
        distance = np.linalg.norm(points[:, None] - others[None], axis=2)
        return (distance.min(axis=1) <= radius).mean()

    result = []
    for c in range(num_classes):
        guess, true = boundary(pred, c), boundary(label, c)
        if not (len(guess) or len(true)):
            result.append(np.nan)
            continue
        p, r = share_near(guess, true), share_near(true, guess)
        result.append(2 * p * r / (p + r) if p + r else 0)
    return result


@pytest.mark.parametrize(
    ("num_classes", "shape"), [(3, (40, 30)), (11, (30, 320)), (70, (24, 24)), (3, (1, 9))]
)
def test_boundary_f1_equals_its_definition(num_classes, shape):
    rng = np.random.default_rng(num_classes)
    blocks = rng.integers(0, num_classes, (-(-shape[0] // 5), -(-shape[1] // 5)))
    label = np.kron(blocks, np.ones((5, 5), int))[: shape[0], : shape[1]]
    pred = np.roll(label, (1, 2), (0, 1))
    label[:, 3:5] = 255
    label[label == 1] = 0  # a class that is only predicted
    found = boundary_f1(pred.astype("int32"), label.astype("uint8"), num_classes)
    expected = boundary_f1_point_by_point(pred, label, num_classes, 255)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_boundary_f1_by_hand():
    label = np.zeros((300, 400), "uint8")  # a diagonal of 500: tolerance 3.75 pixels
    label[:, 200:] = 1
    assert boundary_f1(label, label, 3).tolist()[:2] == [1, 1]
    assert np.isnan(boundary_f1(label, label, 3)[2])
    assert boundary_f1(np.roll(label, 3, axis=1)[:, 4:], label[:, 4:], 2).tolist() == [1, 1]
    assert boundary_f1(np.roll(label, 4, axis=1)[:, 4:], label[:, 4:], 2).tolist() == [0, 0]
    assert boundary_f1(np.zeros_like(label), label, 2).tolist() == [0, 0]
    assert np.isnan(boundary_f1(label, np.full_like(label, 255), 2)).all()


def test_boundary_exactly_as_far_as_the_tolerance_is_near():
    label = np.zeros((240, 320), np.uint8)  # a diagonal of 400 pixels
    label[:, 160:] = 1
    assert BOUNDARY_TOLERANCE * 400 == 3
    shifted = np.zeros_like(label)
    shifted[:, 163:] = 1
    assert boundary_f1(shifted, label, 2).tolist() == [1, 1]


def test_boundary_of_a_class_that_is_none_counts_for_no_class():
    label = np.zeros((24, 32), np.uint8)
    label[:, 16:] = 1
    pred = np.where(label, 2, 0).astype("int32")
    assert boundary_f1(pred, label, 2).tolist() == [1, 0]
