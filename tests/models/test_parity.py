"""Against paddleseg's own class, same weights: logits, loss, gradients, statistics."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddleseg.models.pp_liteseg import PPLiteSeg as PaddleSegPPLiteSeg

from liteseg_plugin.losses.ohem import OhemCrossEntropyLoss
from liteseg_plugin.models import PPLiteSeg

ARM_TYPES = [
    "UAFM",
    "UAFM_ChAtten",
    "UAFM_ChAtten_S",
    "UAFM_SpAtten",
    "UAFM_SpAtten_S",
    "UAFMMobile",
    "UAFMMobile_SpAtten",
]
CASES = [("T", arm_type, (97, 131)) for arm_type in ARM_TYPES]
CASES += [("T", "UAFM_SpAtten", (64, 128)), ("T", "UAFM_ChAtten", (128, 64))]
# B has more blocks and channels. Its release uses UAFM_SpAtten.
CASES += [("B", "UAFM_SpAtten", (97, 131))]
CASES += [
    pytest.param("B", arm_type, (97, 131), marks=pytest.mark.slow)
    for arm_type in ARM_TYPES
    if arm_type != "UAFM_SpAtten"
]


@pytest.fixture
def pair(build_network, randomized, variant, arm_type):
    ours = randomized(build_network(variant, arm_type=arm_type), seed=1)
    stock = build_network(variant, cls=PaddleSegPPLiteSeg, arm_type=arm_type)
    assert type(ours) is PPLiteSeg and not isinstance(stock, PPLiteSeg)
    missing, unexpected = stock.set_state_dict(ours.state_dict())
    assert (missing, unexpected) == ([], [])
    return ours, stock


def batch(size_hw, num_classes=19):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 3, *size_hw)).astype("float32")
    label = rng.integers(0, num_classes, (2, *size_hw))
    label[:, :4] = 255
    return paddle.to_tensor(image), paddle.to_tensor(label)


def assert_same_logits(ours, stock):
    largest = float(stock.abs().max())
    assert largest > 0.1  # of logits near 0, any would agree
    assert ours.shape == stock.shape
    assert float((ours - stock).abs().max()) <= 1e-6 * largest


@pytest.mark.smoke
@pytest.mark.parametrize(("variant", "arm_type", "size_hw"), CASES)
def test_pp_liteseg_equals_paddleseg_in_evaluation_and_training(pair, size_hw):
    image, label = batch(size_hw)
    for net in pair:
        net.eval()
    with paddle.no_grad():
        (ours,), (stock,) = (net(image) for net in pair)
    assert_same_logits(ours, stock)

    criterion = OhemCrossEntropyLoss()
    first = {name: tensor.numpy().copy() for name, tensor in pair[0].state_dict().items()}
    logits, losses, gradients = [], [], []
    for net in pair:
        net.train()
        logits.append(net(image))
        losses.append(sum(criterion(logit, label) for logit in logits[-1]))
        losses[-1].backward()
        trained = {name: p for name, p in net.named_parameters() if not p.stop_gradient}
        assert [name for name, p in trained.items() if p.grad is None] == []
        assert not any(name.endswith("_scale") for name in trained)
        gradients.append({name: p.grad.numpy() for name, p in trained.items()})

    assert len(logits[0]) == len(logits[1]) == 3
    for ours, stock in zip(*logits):
        assert_same_logits(ours, stock)
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-6)

    # To one scale for all: of the largest gradient in the whole network. Alone, the bias in front
    # of a batch norm has a gradient of rounding errors only.
    ours, stock = gradients
    assert ours.keys() == stock.keys()
    largest = max(np.abs(g).max() for g in stock.values())
    assert largest > 1e-3
    worst = {name: np.abs(ours[name] - g).max() / largest for name, g in stock.items()}
    assert {name: error for name, error in worst.items() if not error <= 1e-6} == {}

    # Batch norms saw the same, so evaluation stays equal after training.
    updated, stock_updated = (net.state_dict() for net in pair)
    for name, tensor in updated.items():
        np.testing.assert_allclose(
            tensor.numpy(), stock_updated[name].numpy(), rtol=1e-6, atol=1e-6, err_msg=name
        )
        if name.endswith("_variance"):
            assert (tensor.numpy() != first[name]).any(), name
