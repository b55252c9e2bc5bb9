"""Commands as a user runs them: real processes, on a small drawn data set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from liteseg_plugin.datasets import toy_street

REPOSITORY = Path(__file__).parents[2]
LITESEG = str(Path(sys.executable).with_name("liteseg"))


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
            timeout=600,
            env={**os.environ, **offline, "SEG_HOME": str(home), **environment},
        )
        result.text = result.stdout + result.stderr
        if check:
            assert result.returncode == 0, result.text[-3000:]
        return result

    return run


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
