"""The shell scripts for several GPUs: the command lines that they make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paddleseg.cvlibs import Config

REPOSITORY = Path(__file__).parents[1]
MODEL = "pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k"


@pytest.fixture
def command_line(tmp_path):
    """Run a script with programs that only print how they were called."""
    for program in ("python", "liteseg"):
        stub = tmp_path / program
        stub.write_text(f'#!/bin/sh\necho {program} "$@"\n')
        stub.chmod(0o755)

    def call(script, *arguments):
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        result = subprocess.run(
            ["bash", f"scripts/{script}", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        return result.returncode, (result.stdout + result.stderr).replace(f"{tmp_path}/", "")

    return call


def test_train_launches_with_the_flags_of_the_released_runs(command_line):
    code, said = command_line("train.sh", MODEL, "--seed", "3")
    assert code == 0
    assert said.split() == [
        *("python", "-m", "paddle.distributed.launch", "--log_dir", f"output/{MODEL}/log"),
        *("liteseg", "train", "--config", f"configs/pp_liteseg/{MODEL}.yml"),
        *("--save_dir", f"output/{MODEL}", "--save_interval", "1000", "--num_workers", "3"),
        *("--do_eval", "--use_vdl", "--seed", "3"),
    ]


@pytest.mark.parametrize(
    ("script", "more"),
    [("val", ["--num_workers", "3"]), ("export", ["--save_dir", f"output/{MODEL}/exported"])],
)
def test_other_scripts_take_the_best_weights_of_a_run(command_line, script, more):
    code, said = command_line(f"{script}.sh", MODEL)
    assert code == 0
    assert said.split() == [
        *("liteseg", script, "--config", f"configs/pp_liteseg/{MODEL}.yml"),
        *("--model_path", f"output/{MODEL}/best_model/model.pdparams", *more),
    ]


@pytest.mark.parametrize("script", ["train", "val", "export"])
def test_scripts_ask_for_a_model(command_line, script):
    code, said = command_line(f"{script}.sh")
    assert code != 0
    assert "which model? a name from configs/pp_liteseg" in said


def test_table_of_recipes_in_the_docs_is_that_of_the_kept_records():
    recipes = [f"configs/recipes/camvid_480x360_{name}.yml" for name in ("released", "scratch")]
    kept = list((REPOSITORY / "docs" / "recipes").glob("camvid_480x360_*_seed[12].json"))
    assert len(kept) == 4  # the script would train what is missing
    result = subprocess.run(
        [sys.executable, "scripts/compare_recipes.py", *recipes],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 16
    assert result.stdout in (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")


def test_records_of_recipes_say_what_docs_and_configs_say():
    docs = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    for record in (REPOSITORY / "docs" / "recipes").glob("*.json"):
        kept = json.loads(record.read_text(encoding="utf-8"))
        if kept["seed"] == 1:
            pole = kept["evaluation"]["class_iou"][2]
            assert f"| {100 * kept['evaluation']['miou']:.1f} | {100 * pole:.1f} |" in docs
        if not record.stem.startswith("camvid"):
            continue  # tried, and not kept
        path = REPOSITORY / "configs" / "recipes" / f"{record.stem.split('_seed')[0]}.yml"
        config = json.loads(json.dumps(Config(str(path)).dic))
        assert config.pop("total_batch_size") == 8  # for liteseg launch: two processes of 4
        assert kept["config"] == config
        assert kept["loss"][-1][0] == kept["config"]["iters"]
        ious = kept["evaluation"]["class_iou"]
        assert kept["evaluation"]["miou"] == pytest.approx(sum(ious) / len(ious))
