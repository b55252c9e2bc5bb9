from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from liteseg_plugin.export.folding import without_batch_norms


@pytest.mark.parametrize("bias", [False, None])
def test_folded_convolution_is_the_convolution_and_its_norm(randomized, bias):
    net = nn.Sequential(
        nn.Conv2D(3, 4, 3, bias_attr=bias), nn.BatchNorm2D(4, epsilon=0.1), nn.ReLU()
    )
    randomized(net, seed=2).train()
    if bias is None:
        net[0].bias.set_value(np.float32([1, -2, 3, -4]))
    before = {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}
    folded = without_batch_norms(net)
    assert not [layer for layer in folded.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    assert net.training and isinstance(net[1], nn.BatchNorm2D)
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name], err_msg=name)
    net.eval()
    x = paddle.to_tensor(np.random.default_rng(1).normal(size=(2, 3, 6, 7)).astype("float32"))
    np.testing.assert_allclose(folded(x).numpy(), net(x).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["T", "B"])
def test_no_batch_norm_of_pp_liteseg_stays(build_network, variant):
    folded = without_batch_norms(build_network(variant, arm_type="UAFMMobile_SpAtten"))
    assert not [layer for layer in folded.sublayers() if isinstance(layer, nn.BatchNorm2D)]
