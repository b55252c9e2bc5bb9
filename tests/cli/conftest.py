"""A small drawn data set, and a network trained on it by the real command."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from liteseg_plugin.datasets import toy_street

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """Folder of a small data set, and a function that writes a config for it."""
    root = tmp_path_factory.mktemp("toy") / "street"
    toy_street.generate(root, train=8, val=3, test=1, resolution_wh=(128, 96), progress=False)

    def config(folder: Path, **changes) -> Path:
        """Write the quick start's config, on the small data set, with changes as KEY__KEY=value."""
        base = REPOSITORY / "configs/pp_liteseg/pp_liteseg_stdc1_toy_street_256x192.yml"
        content = {"_base_": os.path.relpath(base, folder), "batch_size": 2, "iters": 2}
        for name in ("train", "val"):
            content[f"{name}_dataset"] = {
                "dataset_root": str(root),
                f"{name}_path": str(root / f"{name}.txt"),
            }
        for keys, value in changes.items():
            target = content
            *parents, last = keys.split("__")
            for key in parents:
                target = target.setdefault(key, {})
            target[last] = value
        path = folder / "config.yml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return SimpleNamespace(root=root, config=config)


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
