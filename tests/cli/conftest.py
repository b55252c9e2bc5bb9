"""A network trained on a small drawn data set by the real command."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def trained(run, toy, tmp_path_factory):
    """Config and weights of a network that `liteseg train` trained for two iterations."""
    folder = tmp_path_factory.mktemp("trained")
    config = toy.config(folder)
    result = run(
        *("liteseg", "train", "--config", config, "--device", "cpu", "--save_dir", folder / "out"),
        *("--do_eval", "--log_iters", 1, "--seed", 3),
    )
    return SimpleNamespace(
        config=config,
        weights=folder / "out" / "best_model" / "model.pdparams",
        folder=folder / "out",
        log=result.text,
    )


@pytest.fixture(scope="session")
def exported(run, trained, tmp_path_factory):
    """The trained network's export, and the runtimes that can run it."""
    folder = tmp_path_factory.mktemp("exported")
    with_onnx = find_spec("paddle2onnx") is not None
    run(
        *("liteseg", "export", "--config", trained.config, "--model_path", trained.weights),
        *("--save_dir", folder, "--format", "onnx" if with_onnx else "paddle"),
    )
    runtimes = ("paddle", "onnxruntime", "openvino") if with_onnx else ("paddle",)
    return SimpleNamespace(folder=folder, runtimes=runtimes)


@pytest.fixture()
def fails(run, tmp_path):
    """Run a command that must fail; return what it told the user on standard error."""

    def fails(*command):
        result = run(*command, check=False)
        assert result.returncode not in (0, -6, -11), result.text[-2000:]
        assert "Traceback" not in result.text, result.text[-3000:]
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, result.text[-2000:]
        return result.stderr[result.stderr.index("error: ") :]

    def train(config, *more):
        save = ("--save_dir", tmp_path / "out", "--device", "cpu", "--log_iters", 1)
        return fails("liteseg", "train", "--config", config, *save, *more)

    fails.train = train
    return fails
