from __future__ import annotations

import liteseg_plugin  # noqa: F401 - first: it loads zlib before Paddle, as Paddle 2.6.2 needs

# isort: split
import numpy as np
import pytest
from paddleseg.models import STDC1, STDC2

from liteseg_plugin.models import PPLiteSeg

VARIANTS = {
    "T": (STDC1, {"arm_out_chs": [32, 64, 128], "seg_head_inter_chs": [32, 64, 64]}),
    "B": (STDC2, {}),
}


@pytest.fixture(scope="session")
def build_network():
    """Return a function that builds PP-LiteSeg-T or -B, as `cls` and with other arguments."""

    def build(variant="T", num_classes=19, cls=PPLiteSeg, **changes):
        backbone, arguments = VARIANTS[variant]
        return cls(num_classes, backbone(), **{**arguments, **changes})

    return build


@pytest.fixture(scope="session")
def randomized():
    """Return a function that gives a network weights under which comparisons mean something.

    With the backbone's own first weights, N(0, 0.001), logits are near 1e-12: everything agrees.
    """

    def randomize(net, seed):
        rng = np.random.default_rng(seed)
        values = {name: _draw(rng, name, tensor.shape) for name, tensor in net.state_dict().items()}
        net.set_state_dict({name: np.float32(value) for name, value in values.items()})
        return net

    return randomize


def _draw(rng, name, shape):
    if name.endswith("_scale"):
        return np.ones(shape)
    if name.endswith("_variance"):
        return rng.uniform(0.5, 2, shape)
    if len(shape) == 4:  # He-normal
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    if name.endswith("weight"):  # of a batch norm
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, 0.1, shape)  # means and biases
