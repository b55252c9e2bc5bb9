from __future__ import annotations

import liteseg_plugin  # noqa: F401 - first: it loads zlib before Paddle, as Paddle 2.6.2 needs

# isort: split
import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
import yaml
from paddleseg.models import STDC1, STDC2

from liteseg_plugin.cli import main
from liteseg_plugin.datasets import toy_street
from liteseg_plugin.integration import registry
from liteseg_plugin.models import PPLiteSeg

REPOSITORY = Path(__file__).parents[1]
LITESEG = str(Path(sys.executable).with_name("liteseg"))
VARIANTS = {
    "T": (STDC1, {"arm_out_chs": [32, 64, 128], "seg_head_inter_chs": [32, 64, 64]}),
    "B": (STDC2, {}),
}


# Whoever needs the network fails at once, at an unreachable proxy, instead of waiting for it.
OFFLINE = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
_LOCAL = "127.0.0.1,localhost"
os.environ.update(OFFLINE, no_proxy=_LOCAL, no_grpc_proxy=_LOCAL)  # Gradio changes no_proxy
# A test enables autoload for a moment; those that other workers run meanwhile must not notice.
os.environ["LITESEG_AUTOLOAD"] = "0"


@pytest.fixture(scope="session", autouse=True)
def active(tmp_path_factory):
    """Let every test see PaddleSeg as the commands do: repaired, without patches for scripts.

    Nothing is cached in the user's own folder.
    """
    os.environ["LITESEG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    registry.repair()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Make a folder once a session, by whichever of pytest-xdist's workers needs it first.

    `made_once(name, make)` returns the folder, which `make(folder)` filled.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def made_once(name, make):
        folder, complete = base / "shared" / name, base / "shared" / f"{name}.complete"
        folder.parent.mkdir(exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return made_once


@pytest.fixture(scope="session")
def process(tmp_path_factory):
    """Run a command line as a process, where `liteseg` and `python` are those of this environment.

    Loading Paddle takes seconds. Use it where a process is what is tested, and `run` elsewhere.
    """
    home = tmp_path_factory.mktemp("home")

    def process(*command, cwd=None, check=True, **environment):
        command = [
            {"liteseg": LITESEG, "python": sys.executable}.get(part, str(part)) for part in command
        ]
        result = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "SEG_HOME": str(home), **environment},
            start_new_session=True,
        )
        return _checked(result, check)

    return process


@pytest.fixture(scope="session")
def killed_at():
    """Return the environment of a process that gets a signal at a moment; see data/killed."""

    def killed_at(kind, pattern, number=1, by=signal.SIGKILL):
        folder = Path(__file__).with_name("data") / "killed"
        path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "PYTHONPATH": os.pathsep.join(path),
            "KILLED_AT": f"{kind} {number} {pattern}",
            "KILLED_BY": str(int(by)),
        }

    return killed_at


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Run a command of `liteseg` in this process: `run("val", ...)`, as a process would."""
    folder = tmp_path_factory.mktemp("said")

    def run(*argv, check=True):
        paths = [folder / "stdout", folder / "stderr"]
        with _output_in(*paths):
            try:
                code = main([str(word) for word in argv])
            except SystemExit as stopped:  # argparse's
                code = stopped.code or 0
            except Exception:  # --debug
                traceback.print_exc()
                code = 1
            finally:
                # Handlers that a process would end with. Paddle's loader leaves one that runs on an
                # alternative stack, which is gone: the end of a later child would end this process.
                for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                _disable_alternative_stack()
        stdout, stderr = (path.read_text(encoding="utf-8", errors="replace") for path in paths)
        return _checked(subprocess.CompletedProcess(argv, code, stdout, stderr), check)

    return run


def _disable_alternative_stack():
    """Let handlers of Python run on the stack that is there."""

    class Stack(ctypes.Structure):
        _fields_ = (
            ("address", ctypes.c_void_p),
            ("flags", ctypes.c_int),
            ("size", ctypes.c_size_t),
        )

    disabled = 2
    ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(None, disabled, 0)), None)


def _checked(result, check):
    result.text = result.stdout + result.stderr
    if check:
        assert result.returncode == 0, result.text[-3000:]
    return result


@contextlib.contextmanager
def _output_in(stdout, stderr):
    """Collect what is printed, by Paddle's C++ too, in files."""
    with contextlib.ExitStack() as stack:
        for number, path in ((1, stdout), (2, stderr)):
            file = stack.enter_context(path.open("wb"))
            stack.callback(os.close, kept := os.dup(number))
            stack.callback(os.dup2, kept, number)
            os.dup2(file.fileno(), number)
        for redirect, number in ((contextlib.redirect_stdout, 1), (contextlib.redirect_stderr, 2)):
            stream = open(number, "w", buffering=1, encoding="utf-8", closefd=False)
            stack.enter_context(redirect(stack.enter_context(stream)))
        yield


@pytest.fixture(scope="session")
def toy(made_once):
    """Folder of a small data set, and a function that writes a config for it."""

    def make(folder):
        sizes = {"train": 8, "val": 3, "test": 1, "resolution_wh": (128, 96)}
        toy_street.generate(folder / "street", **sizes, progress=False)

    root = made_once("toy", make) / "street"

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
def trained(process, toy, made_once):
    """Config and weights of a network that `liteseg train` trained for two iterations."""

    def make(folder):
        result = process(
            *("liteseg", "train", "--config", toy.config(folder), "--device", "cpu"),
            *("--save_dir", folder / "out", "--do_eval", "--log_iters", 1, "--seed", 3),
        )
        (folder / "log.txt").write_text(result.text)

    folder = made_once("trained", make)
    return SimpleNamespace(
        config=folder / "config.yml",
        weights=folder / "out" / "best_model" / "model.pdparams",
        folder=folder / "out",
        log=(folder / "log.txt").read_text(),
    )


@pytest.fixture(scope="session")
def exported(run, trained, made_once):
    """The trained network's export, and the runtimes that can run it."""
    with_onnx = find_spec("paddle2onnx") is not None

    def make(folder):
        result = run(
            *("export", "--config", trained.config, "--model_path", trained.weights),
            *("--save_dir", folder / "model", "--format", "onnx" if with_onnx else "paddle"),
        )
        (folder / "log.txt").write_text(result.text)

    folder = made_once("exported", make)
    runtimes = ("paddle", "onnxruntime", "openvino") if with_onnx else ("paddle",)
    log = (folder / "log.txt").read_text()
    return SimpleNamespace(folder=folder / "model", runtimes=runtimes, log=log)


@pytest.fixture(scope="session")
def doctor(process, made_once):
    """The report of `liteseg doctor --json`."""

    def make(folder):
        (folder / "report.json").write_text(process("liteseg", "doctor", "--json").stdout)

    return json.loads((made_once("doctor", make) / "report.json").read_text())


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
        return fails("train", "--config", config, *save, *more)

    fails.train = train
    return fails


@pytest.fixture(scope="session")
def build_network():
    """Return a function that builds PP-LiteSeg-T or -B, as `cls` and with other arguments."""

    def build(variant="T", num_classes=19, cls=PPLiteSeg, **changes):
        backbone, arguments = VARIANTS[variant]
        return cls(num_classes, backbone(), **{**arguments, **changes})

    return build


@pytest.fixture(scope="session")
def pointwise():
    """Return a function that builds a network small enough to be exported in no time.

    It is for what is not about the network.
    """
    return Pointwise


class Pointwise(paddle.nn.Layer):
    """One convolution of 3 channels, or others, to 5, pixel by pixel."""

    def __init__(self, channels=3):
        super().__init__()
        self.conv = paddle.nn.Conv2D(channels, 5, 1)
        weight = np.random.default_rng(1).normal(0, 1, self.conv.weight.shape)
        self.conv.weight.set_value(weight.astype("float32"))

    def forward(self, x):
        return [self.conv(x)]


@pytest.fixture(scope="session")
def randomized():
    """Return a function that gives a network weights under which comparisons mean something.

    With the backbone's own first weights, N(0, 0.001), logits are near 1e-12: everything agrees.
    """

    def randomize(net, seed):
        rng = np.random.default_rng(seed)
        values = {name: _draw(rng, name, tensor.shape) for name, tensor in net.state_dict().items()}
        net.set_state_dict({name: np.float32(value) for name, value in values.items()})
        return net

    return randomize


def _draw(rng, name, shape):
    if name.endswith("_scale"):
        return np.ones(shape)
    if name.endswith("_variance"):
        return rng.uniform(0.5, 2, shape)
    if len(shape) == 4:  # He-normal
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    if name.endswith("weight"):  # of a batch norm
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, 0.1, shape)  # means and biases
