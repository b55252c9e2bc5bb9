"""Runs that are killed, interrupted or starved, and go on as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

import liteseg_plugin

pytestmark = pytest.mark.slow
MAIN = Path(liteseg_plugin.__file__).with_name("__main__.py")
ITERS = 6
FLAGS = ("--iters", ITERS, "--save_interval", 2, "--do_eval", "--use_ema")
FILES = (
    "iter_6/model.pdparams",
    "iter_6/model.pdopt",
    "iter_6/ema_model.pdparams",
    "best_model/model.pdparams",
    "ema_best_model/ema_model.pdparams",
)


@pytest.fixture(scope="module")
def uninterrupted(process, training, tmp_path_factory):
    """Folder and log of the whole training.

    In a process of its own, as threads that an earlier test chose would change the last digits.
    """
    folder = tmp_path_factory.mktemp("uninterrupted") / "out"
    return folder, process("liteseg", *training(folder, *FLAGS)).text


def test_killed_run_equals_the_uninterrupted_one(
    process, killed_at, training, steps, same_arrays, uninterrupted, tmp_path
):
    folder, expected = tmp_path / "out", steps(uninterrupted[1])
    assert [*expected] == [*range(1, ITERS + 1)]
    command = training(folder, *FLAGS, "--resume_model", "auto")
    for moment, left in (
        # Before there is any checkpoint.
        (("sync", "*/best_model/.partial-model.pdparams"), "best_model/.partial-model.pdparams"),
        (("sync", "*/.partial-iter_4/model.pdopt"), ".partial-iter_4/model.pdparams"),
        (("say", "[TRAIN] epoch: 3, iter: 5/6"), "iter_4/model.pdparams"),
    ):
        killed = process("liteseg", *command, check=False, **killed_at(*moment))
        assert killed.returncode == -signal.SIGKILL, killed.text[-3000:]
        assert (folder / left).is_file()
        seen = steps(killed.text)
        assert {number: expected[number] for number in seen} == seen

    seen = steps(process("liteseg", *command).text)
    assert seen == {number: expected[number] for number in (5, 6)}
    assert not any(folder.glob("**/.partial-*"))
    for name in FILES:
        assert same_arrays(folder / name, uninterrupted[0] / name), name
    ours, theirs = (
        json.loads((path / "iter_6" / "training.json").read_text())
        for path in (folder, uninterrupted[0])
    )
    assert ours == theirs


def test_interrupted_run_saves_and_says_how_to_go_on(process, killed_at, training, tmp_path):
    """Ctrl-C in a terminal, which reaches the workers that read the next batch too."""
    stopped = process(
        *("liteseg", *training(tmp_path / "out", "--iters", 8, "--num_workers", 2)),
        check=False,
        **killed_at("say", "iter: 1/8", by=signal.SIGINT),
    )
    assert stopped.returncode == 130, stopped.text[-3000:]
    assert "Traceback" not in stopped.text
    [checkpoint] = (tmp_path / "out").glob("iter_*")
    assert "resume with: liteseg train --config" in stopped.text
    assert f"--resume_model {checkpoint}" in stopped.text
    assert (checkpoint / "training.json").is_file()


def test_two_processes_resume_with_the_random_state_of_each(
    run, process, training, random_crops, steps, same_arrays, tmp_path
):
    flags = ("--iters", 4, "--batch_size", 2, "--save_interval", 3, "--do_eval")

    def launch(name, *more):
        """Train in two processes; return the log of the first."""
        log = tmp_path / f"{name}_log"
        process(
            *("python", "-m", "paddle.distributed.launch", "--nproc_per_node", 2),
            *("--log_dir", log, MAIN, *training(tmp_path / name, *flags, *more, seed=None)),
        )
        return (log / "workerlog.0").read_text()

    expected = steps(launch("whole"))
    shutil.copytree(tmp_path / "whole" / "iter_3", tmp_path / "out" / "iter_3")
    assert steps(launch("out", "--resume_model", "auto")) == {4: expected[4]}
    name = "iter_4/model.pdparams"
    assert same_arrays(tmp_path / "out" / name, tmp_path / "whole" / name)
    states = json.loads((tmp_path / "out" / "iter_4" / "training.json").read_text())["random"]
    assert len(states) == 2
    assert states[0] != states[1]

    # Its evaluation counts each of three images once, with the statistics that are saved.
    weights = ("--model_path", tmp_path / "whole" / name, "--device", "cpu")
    alone = json.loads(run("val", "--config", random_crops, *weights, "--json").stdout)
    logged = (tmp_path / "whole" / "metrics.csv").read_text().splitlines()[-1].split(",")
    assert [float(value) for value in logged[6:8]] == [alone["miou"], alone["accuracy"]]


@pytest.mark.slow
def test_run_that_writes_safetensors_is_resumed_evaluated_and_exported(run, training, tmp_path):
    pytest.importorskip("safetensors")
    run(*training(tmp_path / "parts", "--iters", 1, "--save_interval", 1, "--do_eval"))
    parts, flags = tmp_path / "parts", ["--iters", 2, "--save_interval", 1, "--do_eval"]
    flags += ["--resume_model", "auto", "--save_format", "safetensors", "--allow_changes"]
    run(*training(parts, *flags))
    assert (parts / "iter_2" / "model.safetensors").is_file()
    assert not (parts / "iter_2" / "model.pdparams").exists()
    best = {path.name for path in (parts / "best_model").iterdir()}
    assert ("README.md" in best) == ("model.safetensors" in best)
    run("val", "--run", parts, "--device", "cpu")
    run("export", "--run", parts, "--save_dir", tmp_path / "exported")
    run(*training(parts, *flags[2:], "--iters", 3))
    assert (parts / "iter_3" / "model.safetensors").is_file()
