"""A network trained on a small drawn data set by the real command."""

from __future__ import annotations

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
