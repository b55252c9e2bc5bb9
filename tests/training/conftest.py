"""Real training processes on a small drawn data set, to be killed and resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import liteseg_plugin
from liteseg_plugin.weights import read_state_dict

CROP = {"type": "RandomPaddingCrop", "crop_size": [64, 64]}
TRANSFORMS = [
    {"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 1.5},
    CROP,
    {"type": "RandomHorizontalFlip"},
    {"type": "RandomDistort", "brightness_range": 0.5, "contrast_range": 0.5},
    {"type": "Normalize"},
]
PROCESS_TIME = 240  # seconds after which a process hangs


@pytest.fixture(scope="session")
def random_crops(toy, tmp_path_factory):
    """A config with augmentation whose epoch, eight images in batches of three, has two steps."""
    folder = tmp_path_factory.mktemp("random_crops")
    return toy.config(folder, batch_size=3, train_dataset__transforms=TRANSFORMS)


@pytest.fixture(scope="session")
def training(random_crops, tmp_path_factory):
    """Start `liteseg train` with flags, as a process that can be signalled."""

    def start(save_dir, *flags, launch=0, config=random_crops, seed=5):
        program = [sys.executable, "-m", "liteseg_plugin"]
        if launch:
            module = os.path.dirname(liteseg_plugin.__file__)
            program = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node"]
            program += [str(launch), "--log_dir", f"{save_dir}_log", f"{module}/__main__.py"]
        command = [
            *(*program, "train", "--config", config, "--device", "cpu", "--save_dir", save_dir),
            *("--log_iters", 1, *(["--seed", seed] if seed is not None else []), *flags),
        ]
        log = tmp_path_factory.mktemp("log") / "log.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process.log = log
        return process

    return start


@pytest.fixture(scope="session")
def finish():
    """Wait for a training process, which is killed or signalled once a condition holds.

    The condition is asked with what the process said so far. As from a terminal, the signal
    reaches its worker processes too.
    """

    def finish(process, when=None, send=signal.SIGKILL):
        deadline = time.monotonic() + PROCESS_TIME
        while process.poll() is None and time.monotonic() < deadline:
            if when is not None and when(process.log.read_text()):
                os.killpg(process.pid, send)
                when = None
            time.sleep(0.003 if when else 0.05)
        process.kill()
        return SimpleNamespace(returncode=process.wait(), text=process.log.read_text())

    return finish


@pytest.fixture(scope="session")
def steps():
    """Read epoch, loss and learning rate of each iteration off a log."""

    def steps(text):
        pattern = r"\[TRAIN\] (epoch: \d+), iter: (\d+)/\d+, (loss: \S+ lr: \S+) batch_cost"
        return {int(number): (epoch, rest) for epoch, number, rest in re.findall(pattern, text)}

    return steps


@pytest.fixture(scope="session")
def same_arrays():
    """Tell whether two .pdparams files hold the same arrays, bit for bit."""

    def same(first, second):
        first, second = read_state_dict(first), read_state_dict(second)
        return first.keys() == second.keys() and all(
            first[name].tobytes() == second[name].tobytes() for name in first
        )

    return same
