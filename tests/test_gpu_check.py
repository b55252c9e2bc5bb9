"""The check on a GPU: its steps do not depend on each other, and its report says what failed."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.py"


@pytest.fixture(scope="module")
def gpu_check():
    specification = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["gpu_check"] = module  # its dataclasses look there
    specification.loader.exec_module(module)
    return module


def test_all_steps_run_whatever_the_others_give(gpu_check, monkeypatch, tmp_path, capsys):
    """One step fails, one crashes, one hangs; a last one works."""

    def steps(check):
        def call(code):
            return check.call(sys.executable, "-S", "-c", code), {"seen": 1}

        return [
            gpu_check.Step("fails", lambda: call("raise SystemExit('error: no such GPU')"), 30),
            gpu_check.Step("crashes", lambda: call("import os; os.abort()"), 30),
            gpu_check.Step("hangs", lambda: call("import time; time.sleep(100)"), 0.5),
            gpu_check.Step("works", lambda: call("print('a | b', end='')"), 30),
        ]

    monkeypatch.setattr(gpu_check.Check, "steps", steps)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu", str(tmp_path)])
    start = time.monotonic()
    assert gpu_check.main() == 1
    assert time.monotonic() - start < 30
    document = json.loads((tmp_path / "gpu_check.json").read_text())
    found = {check["name"]: (check["status"], check["detail"]) for check in document["checks"]}
    assert found == {
        "fails": ("failed", "error: no such GPU (exit code 1)"),
        "crashes": ("failed", "it printed nothing (exit code -6)"),
        "hangs": ("failed", "not finished in time: -c import time; time.sleep(100)"),
        "works": ("ok", "a | b"),
    }
    page = (tmp_path / "gpu_check.md").read_text()
    assert page.startswith("# Check on a GPU: rehearsal on the CPU\n\n1 ok, 3 failed, 0 not run;")
    assert page.rstrip().endswith("s | a / b |")
    assert "failed  hangs: not finished" in capsys.readouterr().out


def test_steps_beyond_the_total_time_are_not_run(gpu_check, tmp_path):
    check = gpu_check.Check("cpu", tmp_path, total=0)
    outcome = check.outcome(check.steps()[0])
    assert (outcome.status, outcome.detail) == ("not run", "the time for all checks was over")


def test_steps_cover_each_engine_and_precision(gpu_check, tmp_path):
    names = [step.name for step in gpu_check.Check("gpu", tmp_path, total=480).steps()]
    for engine, precisions in (
        ("onnxruntime", ("fp32", "fp16", "int8")),
        ("tensorrt", ("fp32", "fp16", "int8")),
        ("paddle", ("fp32", "fp16")),
    ):
        for precision in precisions:
            assert any(name.startswith(f"{engine}, {precision}:") for name in names)
    assert len(set(names)) == len(names)


def test_step_without_what_it_needs_says_so(gpu_check, tmp_path):
    check = gpu_check.Check("gpu", tmp_path, total=480)
    check.call = lambda *command: "GPU 0: NVIDIA\n"
    with pytest.raises(RuntimeError, match="two processes over NCCL need two GPUs; there is one"):
        check.processes()
