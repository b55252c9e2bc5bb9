"""Eight steps of the released recipe by PaddleSeg's own code and by the plugin's, and resumed.

Training enlarges a difference of one bit beyond these bounds (docs/training.md): they hold where
the steps agree to the bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[1]
CAMVID = REPOSITORY.parent / "shared" / "camvid"
STEPS = 8
SCRIPT = REPOSITORY / "scripts" / "benchmark_training.py"


@pytest.fixture(scope="module")
def frames(toy):
    """Real frames where they lie beside a checkout (research licence), else drawn ones."""
    return CAMVID if CAMVID.is_dir() else toy.root


@pytest.mark.parametrize(
    ("variant", "processes", "more"), [("T", 1, ["--resume"]), ("T", 2, []), ("B", 1, [])]
)
def test_steps_are_those_of_paddleseg(process, frames, variant, processes, more):
    result = process(
        *("python", SCRIPT, "--data", frames, "--variant", variant, "--processes", processes),
        *("--crop", 96, 64, "--steps", STEPS, "--same_mkl", "--json", *more),
        PYTHONPATH=str(REPOSITORY),
    )
    numbers = json.loads(result.stdout.splitlines()[-1])
    sides, apart = numbers["sides"], numbers["apart"]["plugin"]
    assert all(len(side["losses"]) == STEPS for side in sides.values())
    assert apart["moved"] > 0.1
    assert apart["losses"] < 1e-4
    assert apart["weights"] < 1e-3
    assert sides["plugin"]["resumed_apart"] == (0 if more else None)
