"""What an exported graph makes of logits, a tile at a time, against all at once."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from liteseg_plugin.export.graph import ExportedNetwork


class Coarse(nn.Layer):
    """Every eighth pixel: logits of five classes."""

    def coarse_logits(self, x):
        return [x[:, :, ::8, ::8]]


@pytest.mark.parametrize("scale", [1, 0.5])
@pytest.mark.parametrize("size_hw", [(1, 1), (9, 2), (40, 3), (2, 40), (97, 131), (64, 1024)])
def test_tiles_equal_the_whole(size_hw, scale):
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 5, *size_hw)).astype("float32"))
    logits, labels, confidence = (
        ExportedNetwork(Coarse(), output_op, scale)(x).numpy()
        for output_op in ("none", "argmax", "confidence")
    )
    best = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    np.testing.assert_array_equal(labels, logits.argmax(axis=1))
    np.testing.assert_array_equal(confidence[:, 0], labels)
    np.testing.assert_allclose(confidence[:, 1], 1 / best, rtol=1e-5)
