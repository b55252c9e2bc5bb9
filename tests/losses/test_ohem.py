"""Against an oracle in NumPy that sorts every pixel, and PaddleSeg's own class where that runs."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddleseg.models.losses.ohem_cross_entropy_loss import (
    OhemCrossEntropyLoss as PaddleSegOhemCrossEntropyLoss,
)

from liteseg_plugin.losses import OhemCrossEntropyLoss, ohem, ohem_cpu

EPS = 1e-5
IGNORED = 255


def oracle(logit, label, thresh, min_kept, ignore_index=IGNORED, weight=None):
    """Compute loss and gradient in float64, as PaddleSeg documents OHEM; label is (N, H, W)."""
    logit = logit.astype("float64")
    classes = logit.shape[1]
    labelled = label != ignore_index
    one_hot = np.moveaxis(np.eye(classes)[np.where(labelled, label, 0)], -1, 1)
    shifted = logit - logit.max(axis=1, keepdims=True)
    softmax = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    probability = (softmax * one_hot).sum(axis=1)

    kept = labelled
    if 0 < min_kept < labelled.sum():
        of_min_kept = np.sort(probability[labelled])[min_kept - 1]
        kept = labelled & (probability < max(thresh, of_min_kept))

    factor = (one_hot * np.reshape(weight or [1.0] * classes, (1, -1, 1, 1))).sum(axis=1) * kept
    share = label.size * (kept.mean() + EPS)
    loss = -(np.log(probability) * factor).sum() / share
    return loss, (softmax - one_hot) * factor[:, None] / share


def batch(seed, shape=(2, 5, 24, 31), ignored=0.1, spread=2.0):
    """Draw logits that favour the true class, and labels with a share of ignored pixels."""
    rng = np.random.default_rng(seed)
    n, classes, h, w = shape
    label = rng.integers(0, classes, (n, h, w))
    logit = rng.normal(0, spread, shape)
    logit += 3 * np.moveaxis(np.eye(classes)[label], -1, 1)
    label[rng.random(label.shape) < ignored] = IGNORED
    return logit.astype("float32"), label.astype("int64")


def loss_and_gradient(criterion, logit, label):
    logit = paddle.to_tensor(logit, stop_gradient=False)
    loss = criterion(logit, paddle.to_tensor(label))
    assert loss.shape == []
    loss.backward()
    return float(loss), logit.grad.numpy()


def assert_equal(actual, expected):
    (loss, gradient), (expected_loss, expected_gradient) = actual, expected
    assert np.abs(expected_gradient).max() > 0  # else every criterion would do
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    error = np.abs(gradient - expected_gradient).max()
    assert error <= 1e-6 * np.abs(expected_gradient).max()


@pytest.fixture
def repaired(monkeypatch):
    """Let PaddleSeg's class add int64 to float32, a TypeError on Paddle 3 where it mines."""
    add = paddle.Tensor.__add__

    def add_of_types(a, b):
        mixed = isinstance(b, paddle.Tensor) and b.dtype == paddle.int64 and a.is_floating_point()
        return add(a, b.astype(a.dtype) if mixed else b)

    monkeypatch.setattr(paddle.Tensor, "__add__", add_of_types)


@pytest.fixture(autouse=True, params=["numpy", "paddle"])
def way(request, monkeypatch):
    """Both ways of computing it: in NumPy, as on a CPU, and in Paddle, as on a GPU."""
    if request.param == "paddle":
        monkeypatch.setattr(ohem, "_runs_in_numpy", lambda logit: False)
    monkeypatch.setattr(ohem_cpu, "_PIECE", 600)  # logits: images are cut
    return request.param


PIXELS = 2 * 24 * 31
MINING = [
    (0.7, 1),
    (0.7, 20),
    (0.7, PIXELS // 16),
    (0.7, PIXELS // 2),
    (0.05, PIXELS // 16),
    (0.0, PIXELS // 16),
    (0.0, 2),
    (1.0, PIXELS // 16),
    (0.99, PIXELS - PIXELS // 5),
]
KEPT_WHOLE = [(0.7, 0), (0.7, PIXELS), (0.7, PIXELS + 1), (0.7, 10 * PIXELS), (0.0, PIXELS)]


@pytest.mark.parametrize(("thresh", "min_kept"), MINING + KEPT_WHOLE)
@pytest.mark.parametrize("seed", range(3))
def test_ohem_equals_oracle(thresh, min_kept, seed):
    logit, label = batch(seed)
    assert_equal(
        loss_and_gradient(OhemCrossEntropyLoss(thresh, min_kept), logit, label),
        oracle(logit, label, thresh, min_kept),
    )


@pytest.mark.smoke
@pytest.mark.parametrize("factor", [1, 100], ids=["", "confident"])
@pytest.mark.parametrize(("thresh", "min_kept"), MINING + KEPT_WHOLE)
def test_ohem_equals_paddleseg(repaired, thresh, min_kept, factor):
    logit, label = batch(7)
    logit = logit * np.float32(factor)
    ours, stock = (
        loss_and_gradient(cls(thresh, min_kept), logit, label)
        for cls in (OhemCrossEntropyLoss, PaddleSegOhemCrossEntropyLoss)
    )
    assert ours[0] == pytest.approx(stock[0], rel=1e-6)
    assert (ours[1] == stock[1]).all()  # to the bit: training makes much of the last one


@pytest.mark.parametrize("ignored", [0.0, 0.3, 0.97])
@pytest.mark.parametrize("min_kept", [40, 60, 400])
def test_ohem_counts_labelled_pixels_against_min_kept(ignored, min_kept):
    logit, label = batch(11, ignored=ignored)
    expected = oracle(logit, label, 0.2, min_kept)
    assert_equal(
        loss_and_gradient(OhemCrossEntropyLoss(0.2, min_kept), logit, label),
        expected,
    )
    labelled = (label != IGNORED).sum()
    counted = (np.abs(expected[1]).max(axis=1) > 0).sum()
    assert (counted == labelled) == (labelled <= min_kept)


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_ohem_as_many_labelled_as_min_kept(offset):
    logit, label = batch(5)
    min_kept = int((label != IGNORED).sum()) + offset
    assert_equal(
        loss_and_gradient(OhemCrossEntropyLoss(0.0, min_kept), logit, label),
        oracle(logit, label, 0.0, min_kept),
    )


@pytest.mark.parametrize("min_kept", [None, 0, 1, 10**6])
def test_ohem_of_ignored_batch_is_zero(min_kept):
    logit, label = batch(0)
    criterion = OhemCrossEntropyLoss(min_kept=min_kept)
    loss, gradient = loss_and_gradient(criterion, logit, np.full_like(label, IGNORED))
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


def test_ohem_other_ignore_index():
    logit, label = batch(1)
    label[label == IGNORED] = 3
    ours = loss_and_gradient(OhemCrossEntropyLoss(0.7, 100, ignore_index=3), logit, label)
    assert_equal(ours, oracle(logit, label, 0.7, 100, ignore_index=3))
    assert ours[0] != pytest.approx(oracle(logit, label, 0.7, 100)[0], rel=1e-3)


@pytest.mark.parametrize("min_kept", [0, 93, 10**6])
def test_ohem_weighs_classes(min_kept):
    logit, label = batch(2)
    weight = [0.5, 2.0, 1.0, 0.0, 3.5]
    ours = loss_and_gradient(OhemCrossEntropyLoss(0.7, min_kept, weight=weight), logit, label)
    assert_equal(ours, oracle(logit, label, 0.7, min_kept, weight=weight))
    assert (np.abs(ours[1]).max(axis=1)[label == 3] == 0).all()


def test_ohem_min_kept_follows_the_batch():
    criterion = OhemCrossEntropyLoss(thresh=0.0)
    for shape in [(2, 5, 24, 31), (1, 5, 16, 16), (3, 5, 9, 10)]:
        logit, label = batch(4, shape)
        ours = loss_and_gradient(criterion, logit, label)
        assert_equal(ours, oracle(logit, label, 0.0, label.size // 16))
        # Of labelled pixels without ties, those before the last of them are kept.
        assert (np.abs(ours[1]).max(axis=1) > 0).sum() == label.size // 16 - 1


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_ohem_takes_labels_of_either_shape(dtype):
    logit, label = batch(6)
    expected = oracle(logit, label, 0.7, 93)
    label = label.astype(dtype)
    for shape in (label.shape, (2, 1, *label.shape[1:])):
        criterion = OhemCrossEntropyLoss(0.7, 93)
        assert_equal(loss_and_gradient(criterion, logit, label.reshape(shape)), expected)


@pytest.mark.parametrize(
    ("probabilities", "thresh", "min_kept", "kept"),
    [
        ([0.2, 0.6, 0.8, 0.9], 0.7, 1, [0.2, 0.6]),  # all below the threshold
        ([0.2, 0.6, 0.8, 0.9], 0.7, 3, [0.2, 0.6]),  # below the third: it is itself left out
        ([0.2, 0.6, 0.8, 0.9], 0.1, 2, [0.2]),
        ([0.8, 0.8, 0.8, 0.9], 0.7, 2, []),  # of equals, none is below
        ([0.2, 0.6, 0.8, 0.9], 0.1, 0, [0.2, 0.6, 0.8, 0.9]),
        ([0.2, 0.6, 0.8, 0.9], 0.1, 4, [0.2, 0.6, 0.8, 0.9]),
    ],
)
def test_ohem_by_hand(probabilities, thresh, min_kept, kept):
    logit = np.log([probabilities, 1 - np.array(probabilities)])[None, :, None]
    label = np.zeros((1, 1, 4), "int64")
    loss, _ = loss_and_gradient(
        OhemCrossEntropyLoss(thresh, min_kept), logit.astype("float32"), label
    )
    expected = -np.log(kept).sum() / 4 / (len(kept) / 4 + EPS)
    assert loss == pytest.approx(expected, rel=1e-6, abs=0)


def test_ohem_leaves_inputs_alone():
    logit, label = (paddle.to_tensor(x) for x in batch(8))
    before = logit.numpy().copy(), label.numpy().copy()
    OhemCrossEntropyLoss(0.7, 93)(logit, label)
    OhemCrossEntropyLoss(0.7, 93)(logit, label.unsqueeze(1))
    np.testing.assert_array_equal(logit.numpy(), before[0])
    np.testing.assert_array_equal(label.numpy(), before[1])
    assert label.shape == list(before[1].shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"thresh": 1.01}, "thresh must be a probability from 0 to 1, got 1.01"),
        ({"thresh": -0.1}, "thresh must be a probability from 0 to 1, got -0.1"),
        ({"min_kept": -1}, "min_kept must be a number of pixels of at least 0, got -1"),
    ],
)
def test_ohem_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        OhemCrossEntropyLoss(**arguments)


def test_ohem_refuses_weights_of_other_classes():
    logit, label = (paddle.to_tensor(x) for x in batch(9))
    with pytest.raises(ValueError, match="3 class weights for 5 classes"):
        OhemCrossEntropyLoss(weight=[1.0, 2.0, 3.0])(logit, label)


@pytest.mark.smoke
@pytest.mark.parametrize("k", [1, 7, 500, 999, 1000])
def test_kth_smallest_by_bits_is_the_selection(k):
    from liteseg_plugin.losses.ohem import _kth_smallest_by_bits

    values = np.random.default_rng(k).uniform(0, 2, 1000).astype("float32")
    values[:200] **= 20  # down to subnormal numbers
    values[200:300] = values[300:400]  # ties
    found = _kth_smallest_by_bits(paddle.to_tensor(values), k)
    assert float(found) == np.sort(values)[k - 1]


@pytest.mark.parametrize("where", [0, slice(None)])
def test_logits_that_are_no_numbers_give_such_a_loss(where):
    """PaddleSeg's class takes them for easy pixels: its loss is 0, and training goes on."""
    logit = np.zeros((1, 3, 8, 8), "float32")
    logit[0, :, where] = np.nan
    label = paddle.zeros([1, 8, 8], dtype="int64")
    assert np.isnan(float(OhemCrossEntropyLoss(min_kept=4)(paddle.to_tensor(logit), label)))


def test_ohem_gradient_of_ignored_pixels_that_are_no_numbers_is_zero():
    logit, label = batch(3)
    expected = loss_and_gradient(OhemCrossEntropyLoss(0.7, 93), logit, label)
    ignored = np.moveaxis(logit, 1, -1)[label == IGNORED]
    ignored[::3], ignored[1::3] = np.nan, np.inf
    np.moveaxis(logit, 1, -1)[label == IGNORED] = ignored
    assert_equal(loss_and_gradient(OhemCrossEntropyLoss(0.7, 93), logit, label), expected)


def test_ohem_passes_gradients_on():
    """Of logits that are a view of others and have two losses, one of them with a factor."""
    logit, label = batch(12, shape=(3, 5, 24, 31))
    criterion = OhemCrossEntropyLoss(0.7, 93)
    expected = oracle(logit[1:], label[1:], 0.7, 93)[1]
    whole = paddle.to_tensor(logit.transpose(0, 1, 3, 2).copy(), stop_gradient=False)
    view, label = whole.transpose([0, 1, 3, 2])[1:], paddle.to_tensor(label[1:])
    (criterion(view, label) - 3 * criterion(view, label)).backward()
    gradient = whole.grad.numpy().transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(gradient[0], 0)
    np.testing.assert_allclose(gradient[1:], -2 * expected, atol=1e-6 * np.abs(expected).max() * 4)


def criterion_value(logit, label):
    return float(OhemCrossEntropyLoss(0.7, 93)(paddle.to_tensor(logit), paddle.to_tensor(label)))


def test_ohem_of_constant_logits_has_no_gradient():
    logit, label = batch(13)
    with paddle.no_grad():
        assert criterion_value(logit, label) == pytest.approx(
            oracle(logit, label, 0.7, 93)[0], rel=1e-6
        )
    loss = OhemCrossEntropyLoss(0.7, 93)(paddle.to_tensor(logit), paddle.to_tensor(label))
    assert loss.stop_gradient


def test_ohem_is_traced():
    logit, label = batch(14)
    traced = paddle.jit.to_static(OhemCrossEntropyLoss(0.7, 93), full_graph=True)
    assert_equal(loss_and_gradient(traced, logit, label), oracle(logit, label, 0.7, 93))


def test_ohem_in_mixed_precision_computes_in_float32():
    logit, label = batch(15)

    def criterion(*arguments):
        with paddle.amp.auto_cast(level="O1", dtype="bfloat16"):
            return OhemCrossEntropyLoss(0.7, 93)(*arguments)

    assert_equal(loss_and_gradient(criterion, logit, label), oracle(logit, label, 0.7, 93))


def test_ohem_in_float64():
    logit, label = batch(16)
    logit = logit.astype("float64")
    ours = loss_and_gradient(OhemCrossEntropyLoss(0.7, 93), logit, label)
    assert ours[1].dtype == np.float64
    assert_equal(ours, oracle(logit, label, 0.7, 93))


@pytest.mark.parametrize("value", [5, -1, 254])
def test_ohem_refuses_labels_of_no_class(value, way):
    if way == "paddle":
        pytest.skip("Paddle's own errors")
    logit, label = batch(17)
    label[0, 3, 4] = value
    message = f"label value {value} is neither one of 5 classes .0 to 4. nor ignore_index 255"
    with pytest.raises(IndexError, match=message):
        criterion_value(logit, label)


def test_ohem_refuses_labels_of_another_size(way):
    if way == "paddle":
        pytest.skip("Paddle's own errors")
    logit, label = batch(18)
    with pytest.raises(ValueError, match=r"labels of shape \[2, 1, 24, 30\] for logits of shape"):
        criterion_value(logit, label[..., 1:])
