from __future__ import annotations

import liteseg_plugin  # noqa: F401 - first: it loads zlib before Paddle, as Paddle 2.6.2 needs

# isort: split
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paddleseg.models import STDC1, STDC2

from liteseg_plugin.models import PPLiteSeg

LITESEG = str(Path(sys.executable).with_name("liteseg"))
VARIANTS = {
    "T": (STDC1, {"arm_out_chs": [32, 64, 128], "seg_head_inter_chs": [32, 64, 64]}),
    "B": (STDC2, {}),
}


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Run a command line; paths of the plugin's entry point and of Python are filled in."""
    home = tmp_path_factory.mktemp("home")

    def run(*command, cwd=None, check=True, **environment):
        command = [
            {"liteseg": LITESEG, "python": sys.executable}.get(part, str(part)) for part in command
        ]
        # An unreachable proxy: whoever needs the network fails instead of waiting for it.
        offline = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
        result = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **offline, "SEG_HOME": str(home), **environment},
        )
        result.text = result.stdout + result.stderr
        if check:
            assert result.returncode == 0, result.text[-3000:]
        return result

    return run


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
