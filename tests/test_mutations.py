"""Damaged weights and exports are refused or change nothing: a sample of try_mutations.py."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
from pathlib import Path

import numpy as np
import paddle
import pytest

from liteseg_plugin import Predictor
from liteseg_plugin.errors import LitesegError, WeightsError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import DEPLOY_FILE
from liteseg_plugin.system.checksums import SUMS, sums_of, write_sums
from liteseg_plugin.weights import read_state_dict

SCRIPT = Path(__file__).parents[1] / "scripts" / "try_mutations.py"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("try_mutations", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def outcomes(script, folder, names, load, number):
    """Count how many of some damaged files load to the same, and how many are refused."""
    rng, expected, counts = random.Random(2), load(folder), {"equal": 0, "refused": 0}
    for _ in range(number):
        path = folder / rng.choice(names)
        content = path.read_bytes()
        path.write_bytes(script.mutate(content, rng))
        try:
            value = load(folder)
        except LitesegError:
            counts["refused"] += 1
        else:
            assert value.keys() == expected.keys()
            for key, array in expected.items():
                np.testing.assert_array_equal(value[key], array)
            counts["equal"] += 1
        path.write_bytes(content)
    return counts


def test_damaged_weights_are_refused_or_equal(script, tmp_path):
    weights = tmp_path / "model.pdparams"
    paddle.save({"w": paddle.ones([4, 5]), "b": paddle.zeros([3])}, str(weights))
    write_sums(tmp_path, sums_of([weights]))
    names = [weights.name, weights.name, SUMS]
    counts = outcomes(script, tmp_path, names, lambda f: read_state_dict(f / weights.name), 150)
    assert counts["refused"] > 80
    with pytest.raises(WeightsError, match="damaged or was replaced"):
        weights.write_bytes(weights.read_bytes() + b"\0")
        read_state_dict(weights)


@pytest.mark.parametrize("runtime", ["paddle", "onnxruntime", "openvino"])
def test_damaged_export_is_refused_or_equal(script, pointwise, tmp_path, runtime):
    if runtime != "paddle":
        pytest.importorskip("paddle2onnx")
        pytest.importorskip(runtime)
    opset = None if runtime == "paddle" else 13
    transforms = [{"type": "Normalize", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}]
    export_model(pointwise(), tmp_path, transforms=transforms, onnx_opset=opset)
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype("uint8")
    model = next(path.name for path in tmp_path.glob("model.*") if path.suffix != ".pdiparams")
    names = [DEPLOY_FILE, model, "model.pdiparams" if runtime == "paddle" else "model.onnx"]

    def load(folder):
        return {"labels": Predictor(folder, runtime=runtime, device="cpu", threads=1)(image)}

    assert outcomes(script, tmp_path, names, load, 60)["refused"] > 30


def test_script_tells_what_becomes_of_a_child_process(script, tmp_path):
    (tmp_path / "file").write_bytes(b"whole")
    acts = {
        "refused": lambda: (_ for _ in ()).throw(WeightsError("damaged")),
        "another error": lambda: 1 / 0,
        "process ended": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "another result": lambda: {"a": np.ones(2)},
        "equal": lambda: {"a": np.zeros(2)},
    }
    for outcome, act in acts.items():

        def load(folder, act=act):
            whole = (folder / "file").read_bytes() == b"whole"
            return {"a": np.zeros(2)} if whole else act()

        assert script.try_all(tmp_path, ["file"], load, 2, seed=1) == {outcome: 2}
