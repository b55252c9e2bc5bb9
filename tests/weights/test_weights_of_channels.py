"""Weights of three channels in networks of other channels."""

from __future__ import annotations

import numpy as np
import paddle
from paddleseg.models import STDC1

from liteseg_plugin.weights import load_matching_weights
from liteseg_plugin.weights.loading import for_channels


def test_weights_of_three_channels_load_into_one_by_their_sum(randomized, tmp_path, capsys):
    colours = randomized(STDC1(), seed=1)
    path = tmp_path / "model.pdparams"
    paddle.save(colours.state_dict(), str(path))
    grey = STDC1(in_channels=1)
    total = len(grey.state_dict())
    assert load_matching_weights(grey, path, adapt_channels=True) == total
    said = capsys.readouterr().out
    assert "features.0.conv.weight, of 3 channels, becomes one of 1: the sum of the three" in said
    image = paddle.to_tensor(np.random.default_rng(0).normal(size=(1, 1, 64, 64)).astype("float32"))
    grey.eval()
    colours.eval()
    with paddle.no_grad():
        for ours, expected in zip(grey(image), colours(paddle.concat([image] * 3, axis=1))):
            largest = float(expected.abs().max())
            assert float((ours - expected).abs().max()) < 1e-4 * largest
    assert load_matching_weights(STDC1(in_channels=1), path) == total - 1  # not where not asked


def test_weights_for_more_channels_keep_the_response_to_equal_values():
    weight = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype("float32")
    made, rule = for_channels(weight, 4)
    assert made.shape == (8, 4, 3, 3)
    assert "mean of the three times 3/4" in rule
    np.testing.assert_allclose(made.sum(axis=1), weight.sum(axis=1), rtol=1e-4, atol=1e-6)
