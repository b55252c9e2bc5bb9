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
@pytest.mark.parametrize("variant", ["T", "B"])
def test_steps_on_camvid(run, variant):
    flags = ("--data", CAMVID, "--variant", variant, "--float64")
    assert_same_steps(benchmark(run, *flags))


def test_steps_of_two_processes_on_toy_scenes(run, toy):
    flags = ("--data", toy.root, "--crop", 96, 64, "--processes", 2, "--float64")
    assert_same_steps(benchmark(run, *flags))


def test_steps_in_float32_and_resumed(run, toy):
    numbers = benchmark(run, "--data", toy.root, "--crop", 96, 64, "--steps", 6, "--resume")
    theirs, ours = (side["losses"] for side in numbers["sides"].values())
    assert ours[:2] == pytest.approx(theirs[:2], rel=1e-6)
    assert numbers["sides"]["plugin"]["resumed_apart"] == 0
