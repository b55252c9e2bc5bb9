"""Runs that are killed, interrupted or starved, and go on as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
import signal

import pytest

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
def uninterrupted(training, finish, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "out"
    result = finish(training(folder, *FLAGS))
    assert result.returncode == 0, result.text[-3000:]
    return folder, result.text


def test_killed_run_equals_the_uninterrupted_one(
    training, finish, steps, same_arrays, uninterrupted, tmp_path
):
    folder, expected = tmp_path / "out", steps(uninterrupted[1])
    assert [*expected] == [*range(1, ITERS + 1)]
    chance = random.Random(1)

    def while_saving(name):
        return lambda text: any(folder.glob(name))

    def at_random(text):
        return "[TRAIN]" in text and chance.random() < 0.02

    met = []
    for condition in (
        while_saving("best_model/.partial-*"),  # before there is any checkpoint
        while_saving(".partial-iter_4"),
        at_random,
    ):
        process = training(folder, *FLAGS, "--resume_model", "auto")
        killed = finish(process, when=condition)
        assert killed.returncode == -signal.SIGKILL, killed.text[-3000:]
        seen = steps(killed.text)
        assert {number: expected[number] for number in seen} == seen
        met += folder.glob("**/.partial-*")
    assert met, "no kill met a checkpoint that was being written"

    last = finish(training(folder, *FLAGS, "--resume_model", "auto"))
    assert last.returncode == 0, last.text[-3000:]
    seen = steps(last.text)
    assert seen
    assert {number: expected[number] for number in seen} == seen
    assert not any(folder.glob("**/.partial-*"))
    for name in FILES:
        assert same_arrays(folder / name, uninterrupted[0] / name), name
    ours, theirs = (
        json.loads((path / "iter_6" / "training.json").read_text())
        for path in (folder, uninterrupted[0])
    )
    assert ours == theirs


def test_interrupted_run_saves_and_says_how_to_go_on(training, finish, tmp_path):
    """Ctrl-C in a terminal, which reaches the workers that read the next batch too."""
    process = training(tmp_path / "out", "--iters", 8, "--num_workers", 2)
    stopped = finish(process, when=lambda text: "iter: 1/8" in text, send=signal.SIGINT)
    assert stopped.returncode == 130, stopped.text[-3000:]
    assert "Traceback" not in stopped.text
    [checkpoint] = (tmp_path / "out").glob("iter_*")
    assert "go on with: liteseg train --config" in stopped.text
    assert f"--resume_model {checkpoint}" in stopped.text
    assert (checkpoint / "training.json").is_file()


def test_two_processes_resume_with_the_random_state_of_each(
    training, finish, steps, same_arrays, tmp_path
):
    flags = ("--iters", 4, "--batch_size", 2, "--save_interval", 3, "--do_eval")
    whole = finish(training(tmp_path / "whole", *flags, launch=2, seed=None))
    assert whole.returncode == 0, whole.text[-3000:]
    shutil.copytree(tmp_path / "whole" / "iter_3", tmp_path / "out" / "iter_3")
    flags += ("--resume_model", "auto")
    resumed = finish(training(tmp_path / "out", *flags, launch=2, seed=None))
    log = (tmp_path / "out_log" / "workerlog.0").read_text()
    assert resumed.returncode == 0, log[-3000:]
    expected = steps((tmp_path / "whole_log" / "workerlog.0").read_text())
    assert steps(log) == {4: expected[4]}
    name = "iter_4/model.pdparams"
    assert same_arrays(tmp_path / "out" / name, tmp_path / "whole" / name)
    states = json.loads((tmp_path / "out" / "iter_4" / "training.json").read_text())["random"]
    assert len(states) == 2
    assert states[0] != states[1]
