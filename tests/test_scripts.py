"""The shell scripts for several GPUs: the command lines that they make."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from paddleseg.cvlibs import Config

REPOSITORY = Path(__file__).parents[1]
MODEL = "pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k"


SCRIPTS = sorted(path.name for path in (REPOSITORY / "scripts").glob("[a-z]*.sh"))
FOR_MODELS = ("benchmark.sh", "export.sh", "predict.sh", "train.sh", "val.sh")


@pytest.fixture
def command_line(tmp_path):
    """Run a script with a `liteseg` that only prints how it was called, or runs `stub`."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def call(script, *arguments, cwd=REPOSITORY, stub='echo liteseg "$@"'):
        for name, text in (("liteseg", stub), ("python", f'exec {sys.executable} "$@"')):
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        result = subprocess.run(
            ["bash", f"scripts/{script}", *arguments],
            cwd=cwd,
            env={
                **os.environ,
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(REPOSITORY),
            },
            capture_output=True,
            text=True,
        )
        return result.returncode, result.stdout + result.stderr

    return call


@pytest.fixture
def checkout(tmp_path):
    """A checkout of scripts and configs, for scripts that write into `output`."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("scripts", "configs"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


def test_train_launches_with_the_flags_of_the_released_runs(command_line):
    launch = ("--nproc_per_node", "2", "--timeout=9", "--dry-run")
    code, said = command_line("train.sh", *launch, MODEL, "--seed", "3")
    assert code == 0
    assert said.split() == [
        *("liteseg", "launch", *launch, "train", "--config", f"configs/pp_liteseg/{MODEL}.yml"),
        *("--save_dir", f"output/{MODEL}", "--save_interval", "1000", "--num_workers", "3"),
        *("--do_eval", "--use_vdl", "--seed", "3"),
    ]


@pytest.mark.parametrize(
    ("script", "more"),
    [
        ("val", ["--num_workers", "3"]),
        ("export", ["--save_dir", f"output/{MODEL}/exported"]),
        ("predict", ["--image_path", "a b", "--save_dir", f"output/{MODEL}/predicted"]),
    ],
)
def test_other_scripts_take_the_best_weights_of_a_run(command_line, checkout, script, more):
    given = ["a b"] if script == "predict" else []
    best = Path("output", MODEL, "best_model")
    for weights in (best / "model.pdparams", best / "model.safetensors"):
        code, said = command_line(f"{script}.sh", MODEL, *given, "--debug", cwd=checkout)
        assert code == 0
        flags = f"--config configs/pp_liteseg/{MODEL}.yml --model_path {weights}"
        assert said == f"liteseg {script} {flags} {' '.join(more)} --debug\n"
        (checkout / best).mkdir(parents=True, exist_ok=True)
        (checkout / best / "model.safetensors").touch()  # train --save_format safetensors


def test_benchmark_needs_no_weights(command_line):
    code, said = command_line("benchmark.sh", MODEL, "--width", "64")
    assert code == 0
    assert said == f"liteseg benchmark --config configs/pp_liteseg/{MODEL}.yml --width 64\n"


@pytest.mark.parametrize("script", FOR_MODELS)
def test_scripts_ask_for_a_model(command_line, script):
    for given in ((), ("no_such_model",)):
        code, said = command_line(script, *given)
        assert code == 2
        assert "give the name of a file in configs/pp_liteseg" in said


@pytest.mark.parametrize("script", [*FOR_MODELS, "reproduce.sh"])
def test_scripts_describe_themselves(command_line, script):
    code, said = command_line(script, "--help")
    assert code == 0
    assert f"bash scripts/{script}" in said
    assert "set -e" not in said
    assert "liteseg" not in said.splitlines()[0].split()


def test_shell_scripts_stop_at_errors():
    for script in (*SCRIPTS, "cluster/slurm_train.sh"):
        text = (REPOSITORY / "scripts" / script).read_text(encoding="utf-8")
        assert "\nset -euo pipefail\n" in text, script


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shell_scripts_pass_shellcheck():
    paths = [f"scripts/{script}" for script in (*SCRIPTS, "cluster/slurm_train.sh")]
    result = subprocess.run(
        ["shellcheck", "-x", *paths], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


def test_manifest_of_kubernetes_meets_its_schema():
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="an extra of dev")
    text = (REPOSITORY / "scripts/cluster/kubernetes_train.yaml").read_text(encoding="utf-8")
    service, job = yaml.safe_load_all(text)
    for document in (service, job):
        kubernetes_validate.validate(document, "1.31", strict=True)


def test_pods_of_kubernetes_find_each_other():
    text = (REPOSITORY / "scripts/cluster/kubernetes_train.yaml").read_text(encoding="utf-8")
    service, job = yaml.safe_load_all(text)
    name, spec = job["metadata"]["name"], job["spec"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    [container] = spec["template"]["spec"]["containers"]
    words = shlex.split(container["command"][2])[3:]  # exec liteseg launch
    launch, train = words[: words.index("train")], words[words.index("train") + 1 :]
    flags = dict(zip(launch[::2], launch[1::2]))
    assert int(flags["--nnodes"]) == spec["completions"] == spec["parallelism"]
    port = service["spec"]["ports"][0]["port"]
    assert flags["--master"] == f"{name}-0.{service['metadata']['name']}:{port}"
    assert flags["--rank"] == "$JOB_COMPLETION_INDEX"
    parser = argparse.ArgumentParser()
    import_module("liteseg_plugin.cli.train").add_arguments(parser)
    assert parser.parse_args(train).resume_model == "auto"


SRUN = """
for node in 0 1; do SLURM_NODEID=$node "${@:2}" & pids="${pids:-} $!"; done
trap 'kill -TERM $pids' TERM
for pid in $pids; do wait $pid || wait $pid; done"""


@pytest.fixture
def slurm(command_line, tmp_path):
    """Start the batch script as SLURM does, with stand-ins for srun, scontrol and liteseg."""
    programs, calls = tmp_path / "slurm", tmp_path / "calls"
    programs.mkdir()

    def start(liteseg):
        stubs = {
            "liteseg": f'echo $SLURM_NODEID liteseg "$@" >>{calls}\n{liteseg}',
            "srun": f"echo srun $1 >>{calls}{SRUN}",
            "scontrol": f"[ $1 = requeue ] && echo $* >>{calls} || printf 'node7\\nnode9\\n'",
        }
        for name, text in stubs.items():
            (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
            (programs / name).chmod(0o755)
        return subprocess.Popen(
            ["bash", "scripts/cluster/slurm_train.sh", "--max_restarts", "1", MODEL, "--seed", "3"],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                **{"SLURM_JOB_ID": "40017", "SLURM_JOB_NODELIST": "node[7,9]"},
                "SLURM_JOB_NUM_NODES": "2",
            },
        )

    start.calls = calls
    return start


def test_slurm_starts_a_launcher_on_each_node(slurm):
    assert slurm("").wait(60) == 0
    srun, *launchers = sorted(slurm.calls.read_text().splitlines(), reverse=True)
    assert srun == "srun --kill-on-bad-exit=1"
    for node, line in enumerate(reversed(launchers)):
        where = f"--nnodes 2 --master node7:20017 --rank {node} --max_restarts 1"
        assert line.startswith(f"{node} liteseg launch {where} train --config configs/pp_liteseg/")
        assert line.endswith("--seed 3 --resume_model auto")
    assert len(launchers) == 2


def test_slurm_fails_as_training_does(slurm):
    assert slurm("exit 4").wait(60) == 4
    assert "requeue" not in slurm.calls.read_text()


def test_slurm_queues_again_after_a_checkpoint(slurm):
    calls = slurm.calls
    saves = f"trap 'sleep 0.2; echo saved >>{calls}; exit 130' TERM; touch {calls}.$SLURM_NODEID"
    job = slurm(f"{saves}; for _ in {{1..600}}; do sleep 0.05; done")
    while job.poll() is None and not all(Path(f"{calls}.{node}").exists() for node in (0, 1)):
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(60) == 0
    assert calls.read_text().splitlines()[-3:] == ["saved", "saved", "requeue 40017"]


def test_reproduction_goes_on_after_an_interruption_and_ends_with_the_tables(
    command_line, checkout, tmp_path
):
    """Two models; the second evaluation of the first one fails once."""
    camvid = "pp_liteseg_stdc2_camvid_960x720_10k"
    calls = tmp_path / "calls"
    stub = f"""echo "$@" >>{calls}
case "$*" in
  val*stdc1*flip*) [ -f {tmp_path}/failed ] || {{ touch {tmp_path}/failed; exit 3; }} ;;
esac
case "$*" in *ms_flip* | *0.75*) miou=0.7988 ;; *flip*) miou=0.7512 ;; *) miou=0.5 ;; esac
[ "$1" = launch ] || echo "{{\\"miou\\": $miou}}"
"""

    def reproduce():
        code, said = command_line(
            "reproduce.sh", "--nproc_per_node", "2", MODEL, camvid, cwd=checkout, stub=stub
        )
        made = calls.read_text().splitlines()
        calls.unlink()
        return code, said, made

    code, said, made = reproduce()
    assert code == 3
    assert "###" not in said
    assert [line.split()[0] for line in made] == ["launch", "val", "val"]
    assert made[0].startswith(
        f"launch --nproc_per_node 2 train --config configs/pp_liteseg/{MODEL}"
    )
    assert made[0].endswith("--resume_model auto")

    code, said, made = reproduce()
    assert code == 0, said
    assert [line.split()[0] for line in made] == ["val", "launch", "val", "val", "val"]
    assert made[0].endswith("--json --aug_eval --scales 0.5 --flip_horizontal")
    assert all(f"{camvid}_for_test.yml" in line for line in made[2:])
    row = f"|[config](configs/pp_liteseg/{MODEL}.yml)|"
    assert f"|PP-LiteSeg-T|STDC1|160000|1024x512|1024x512|50.00%|75.12%|-{row}" in said
    assert "|PP-LiteSeg-B|STDC2|10000|960x720|960x720|50.00%|75.12%|79.88%|" in said
    assert said.count("|-|-|-|[config]") == 6


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
        assert config["total_batch_size"] == 8  # for liteseg launch: two processes of 4
        assert {"total_batch_size": 8, **kept["config"]} == config  # older records lack it
        assert kept["loss"][-1][0] == kept["config"]["iters"]
        ious = kept["evaluation"]["class_iou"]
        assert kept["evaluation"]["miou"] == pytest.approx(sum(ious) / len(ious))


@pytest.mark.slow
def test_payloads_are_tried_one_by_one(process, tmp_path):
    """A table with what was refused, and a failure where a file is read."""
    (tmp_path / "bad.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    (tmp_path / "text").write_text("no pickle")
    script = ("python", REPOSITORY / "scripts" / "try_payloads.py", tmp_path)
    said = process(*script).stdout
    assert "/bad.pkl` | it asks for os.system, which is not an array |" in said
    assert said.endswith("2 of 2 files are refused, and nothing was run.\n")
    (tmp_path / "good").write_bytes(pickle.dumps({"w": np.ones(2)}, protocol=4))
    result = process(*script, check=False)
    assert result.returncode == 1
    assert "/good` | **read**" in result.stdout


@pytest.mark.parametrize("variant", ["T", "B"])
def test_costs_on_paper_are_those_of_the_network(variant, build_network, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    paper = import_module("scaling_figure")
    model = paper.MODELS[variant]
    network = build_network(variant)
    trained = [value for value in network.parameters() if not value.stop_gradient]
    assert model.parameters == sum(value.size for value in trained)
    norms = [layer for layer in network.sublayers() if "BatchNorm" in type(layer).__name__]
    assert model.batch_norms == len(norms)
    # A ring of two sends each half twice; alone, nothing is sent.
    assert paper.all_reduce(100, 2, paper.Network(10, 1)) == 2 * (50 / 10 + 1)
    assert paper.all_reduce(100, 1, paper.Network(10, 1)) == 0
