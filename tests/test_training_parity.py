"""The first 20 steps of the released recipe, by PaddleSeg's own code and by the plugin's.

In float64: with random weights and small batches rounding grows tenfold in a few steps, so that
float32 would show rounding, not the code. The first steps are compared in float32 too.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
CAMVID = REPOSITORY.parent / "shared" / "camvid"
SCRIPT = REPOSITORY / "scripts" / "benchmark_training.py"


def benchmark(run, *flags):
    result = run("python", SCRIPT, *flags, "--json", PYTHONPATH=str(REPOSITORY))
    return json.loads(result.stdout.splitlines()[-1])


def assert_same_steps(numbers):
    assert all(len(side["losses"]) == 20 for side in numbers["sides"].values())
    assert numbers["moved"] > 0.1
    assert numbers["losses"] < 1e-4
    assert numbers["weights"] < 1e-3


@pytest.mark.skipif(
    not CAMVID.is_dir(),
    reason="the CamVid frames lie beside a checkout for development only (research licence)",
)
def test_steps_of_t_on_camvid(run):
    assert_same_steps(benchmark(run, "--data", CAMVID, "--float64"))


def test_steps_of_b_on_toy_scenes(run, toy):
    numbers = benchmark(run, "--data", toy.root, "--variant", "B", "--steps", 5, "--float64")
    assert numbers["losses"] < 1e-4
    assert numbers["weights"] < 1e-3


def test_steps_in_float32_and_resumed(run, toy):
    numbers = benchmark(run, "--data", toy.root, "--crop", 96, 64, "--steps", 6, "--resume")
    theirs, ours = (side["losses"] for side in numbers["sides"].values())
    assert ours[:2] == pytest.approx(theirs[:2], rel=1e-6)
    assert numbers["sides"]["plugin"]["resumed_apart"] == 0
