"""Check what works on a GPU, step by step; ``scripts/gpu_check.sh`` calls this.

Each step is a process of its own, with a time limit. A step that fails, hangs or crashes does not
keep the others from running. ``--device cpu`` rehearses the steps without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TOTAL_SECONDS = 480
_CONFIG = "configs/pp_liteseg/pp_liteseg_stdc1_toy_street_256x192.yml"
_STEP = Path(__file__).with_name("gpu_check_step.py")
_LITESEG = (sys.executable, "-m", "liteseg_plugin")
_STEPS_OF_TRAINING = 20
# Float32 on a GPU sums in another order; the difference grows from step to step.
_FIRST_LOSSES, _LOSS_TOLERANCE = 5, 0.02


@dataclass(frozen=True)
class Outcome:
    """What a step gave.

    Attributes:
        name: Of the step.
        status: ``ok``, ``failed`` or ``not run``.
        detail: A sentence: what was found, or why it failed.
        seconds: How long it took.
        numbers: What was measured.
    """

    name: str
    status: str
    detail: str
    seconds: float = 0.0
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A check.

    Attributes:
        name: What is checked.
        run: Returns a sentence and numbers; raises if the check fails.
        limit: Seconds that it may take.
    """

    name: str
    run: Callable[[], tuple[str, dict[str, Any]]]
    limit: float


class Check:
    """All steps on one device, in a folder.

    Args:
        device: ``gpu`` or ``cpu``.
        folder: For data, weights, exports and the report.
        total: Seconds for all steps.
    """

    def __init__(self, device: str, folder: Path, total: float) -> None:
        self.device, self.folder = device, folder
        self.slowness = total / TOTAL_SECONDS
        self.end = self.until = time.monotonic() + total
        self.weights = folder / "cpu" / f"iter_{_STEPS_OF_TRAINING}" / "model.pdparams"

    def steps(self) -> list[Step]:
        """Return the checks, in the order in which they need each other."""
        steps = [
            Step("the GPU and its driver", self.machine, 30),
            Step("liteseg doctor", self.doctor, 90),
            Step(f"{_STEPS_OF_TRAINING} training steps on the CPU", self.reference, 120),
            Step("training steps equal the CPU's", self.training, 90),
            Step("OHEM equals its CPU path", self.ohem, 60),
        ]
        for precision in ("fp16", "bf16"):
            name = f"mixed precision, {precision}"
            steps.append(Step(name, lambda p=precision: self.mixed(p), 60))
        steps.append(Step("two processes", self.processes, 90))
        steps.append(Step("export, with ONNX", self.export, 90))
        steps.append(Step("demo", self.demo, 60))
        steps.append(Step("INT8 (on the CPU)", self.quantize, 120))
        for runtime, precisions in (
            ("onnxruntime", ("fp32", "fp16", "int8")),
            ("tensorrt", ("fp32", "fp16", "int8")),
            ("paddle", ("fp32", "fp16")),
        ):
            for precision in precisions:
                name = f"{runtime}, {precision}: labels, and speed against PaddleSeg's export"
                steps.append(Step(name, lambda r=runtime, p=precision: self.engine(r, p), 60))
        return steps

    # --- how a step runs -------------------------------------------------------------------------

    def outcome(self, step: Step) -> Outcome:
        """Run a step, whatever happens in it."""
        start = time.monotonic()
        self.until = min(start + step.limit * self.slowness, self.end)
        if start >= self.end:
            return Outcome(step.name, "not run", "the time for all checks was over")
        try:
            detail, numbers = step.run()
            status = "ok"
        except Exception as error:
            status, detail, numbers = "failed", str(error) or repr(error), {}
        return Outcome(step.name, status, detail, round(time.monotonic() - start, 1), numbers)

    def call(self, *command: object) -> str:
        """Run a command, end all its processes after the limit, and return its output."""
        words = [str(word) for word in command]
        with subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                said, errors = process.communicate(timeout=max(self.until - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                _kill(process)
                raise RuntimeError(f"not finished in time: {' '.join(words[2:5])}") from None
        with (self.folder / "commands.log").open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(words)}\n{said}{errors}\n")
        if process.returncode:
            raise RuntimeError(_reason(said + errors, process.returncode))
        return said

    def json(self, *command: object) -> Any:
        """Return the JSON that a command prints last."""
        said = self.call(*command)
        return json.loads(said[said.index("{") :])

    def train(self, name: str, device: str, *flags: object, launch: tuple = ()) -> list[float]:
        """Train on the drawn streets, and return the losses."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        self.call(
            *(*_LITESEG, *launch, "train", "--config", self.folder / "config.yml"),
            *("--device", device, "--save_dir", folder, "--seed", 1, "--log_iters", 1, *flags),
        )
        with (folder / "metrics.csv").open(encoding="utf-8") as file:
            return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]

    # --- the steps -------------------------------------------------------------------------------

    def machine(self) -> tuple[str, dict[str, Any]]:
        """Ask the driver."""
        if self.device == "cpu":
            return "a rehearsal on the CPU: nothing below ran on a GPU", {}
        names = "name,driver_version,memory.total,compute_cap"
        said = self.call("nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader")
        return "; ".join(said.strip().splitlines()), {}

    def doctor(self) -> tuple[str, dict[str, Any]]:
        """Ask the plugin what it can use."""
        report = self.json(*_LITESEG, "doctor", "--json")
        works = [check["name"] for check in report["checks"] if check["works"]]
        return f"works: {', '.join(works)}", {"versions": report["versions"]}

    def reference(self) -> tuple[str, dict[str, Any]]:
        """Draw the data set and train on the CPU: weights and losses to compare with."""
        root = (self.folder / "streets").resolve()
        if not root.exists():
            self.call(*_LITESEG, "data", "toy", root, "--train", 24, "--val", 6, "--test", 1)
        sets = {
            f"{name}_dataset": {
                "dataset_root": str(root),
                f"{name}_path": str(root / f"{name}.txt"),
            }
            for name in ("train", "val")
        }
        content = {"_base_": str(Path(_CONFIG).resolve()), "batch_size": 4, **sets}
        (self.folder / "config.yml").write_text(json.dumps(content), encoding="utf-8")
        losses = self.train("cpu", "cpu", "--iters", _STEPS_OF_TRAINING)
        return f"loss {losses[0]:.4f} to {losses[-1]:.4f}", {"losses": losses}

    def export(self) -> tuple[str, dict[str, Any]]:
        """Export the weights."""
        self.call(
            *(*_LITESEG, "export", "--config", self.folder / "config.yml"),
            *("--model_path", self.weights, "--save_dir", self.folder / "exported"),
            *("--format", "onnx"),
        )
        return "a Paddle model and an ONNX file", {}

    def quantize(self) -> tuple[str, dict[str, Any]]:
        """Add INT8 to the export."""
        images = self.folder / "streets" / "val.txt"
        report = self.json(
            *(*_LITESEG, "quantize", self.folder / "exported", "--image_path", images),
            *("--num_images", 4, "--json"),
        )
        return "model_int8.onnx added", {"report": report}

    def training(self) -> tuple[str, dict[str, Any]]:
        """Compare the losses of the same steps."""
        losses = self.train("device", self.device, "--iters", _STEPS_OF_TRAINING)
        expected = self._losses_of_the_cpu()
        off = [abs(ours / theirs - 1) for ours, theirs in zip(losses, expected)]
        first = max(off[:_FIRST_LOSSES])
        said = f"losses differ by {first:.2e} in {_FIRST_LOSSES} steps, {max(off):.2e} in all"
        if first > _LOSS_TOLERANCE:
            raise RuntimeError(f"{said}; at most {_LOSS_TOLERANCE} is expected")
        return said, {"losses": losses, "relative_differences": off}

    def _losses_of_the_cpu(self) -> list[float]:
        with (self.folder / "cpu" / "metrics.csv").open(encoding="utf-8") as file:
            return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]

    def ohem(self) -> tuple[str, dict[str, Any]]:
        """Compare loss and gradient of OHEM."""
        numbers = self.json(sys.executable, _STEP, "ohem", "--device", self.device)
        said = "loss differs by {loss:.1e}, gradient by {gradient:.1e}, relative".format(**numbers)
        if max(numbers.values()) > 1e-4:
            raise RuntimeError(said)
        return said, numbers

    def engine(self, runtime: str, precision: str) -> tuple[str, dict[str, Any]]:
        """Compare labels with those of Paddle on the CPU; time beside PaddleSeg's export."""
        exported = self.folder / "exported"
        size_wh = (1024, 512) if self.device == "gpu" else (256, 192)
        of = ("--runtime", runtime, "--device", self.device, "--precision", precision)
        images = ("--exported", exported, "--images", self.folder / "streets" / "val.txt")
        numbers = self.json(sys.executable, _STEP, "labels", *of, *images)
        said = "{agreement:.4%} of labels are the CPU's in float32".format(**numbers)
        if precision == "fp32" and numbers["agreement"] < 0.9999:
            raise RuntimeError(said)
        timed = self.json(
            *(*_LITESEG, "benchmark", "--config", self.folder / "config.yml", *of, "--json"),
            *("--model_path", self.weights, "--exported", exported, "--against", "paddleseg"),
            *("--repeats", 10, "--warmup", 3, "--width", size_wh[0], "--height", size_wh[1]),
        )
        report = timed["reports"][0]
        medians = {n: result["median_ms"] for n, result in report["results"].items()}
        words = ", ".join(f"{name} {ms:.1f} ms" for name, ms in medians.items())
        size = "x".join(map(str, size_wh))
        return f"{said}; {size}: {words}", {**numbers, "median_ms": medians}

    def mixed(self, precision: str) -> tuple[str, dict[str, Any]]:
        """Train a few steps in low precision."""
        losses = self.train(precision, self.device, "--iters", 5, "--precision", precision)
        return f"loss {losses[0]:.4f} to {losses[-1]:.4f}", {"losses": losses}

    def processes(self) -> tuple[str, dict[str, Any]]:
        """Train in two processes."""
        if self.device == "gpu":
            gpus = len(self.call("nvidia-smi", "-L").strip().splitlines())
            if gpus < 2:
                raise RuntimeError("two processes over NCCL need two GPUs; there is one")
        launch = ("launch", "--nproc_per_node", 2)
        losses = self.train("two", self.device, "--iters", 5, "--batch_size", 2, launch=launch)
        by = "NCCL" if self.device == "gpu" else "gloo"
        return f"over {by}: loss {losses[0]:.4f} to {losses[-1]:.4f}", {"losses": losses}

    def demo(self) -> tuple[str, dict[str, Any]]:
        """Open the page."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [*_LITESEG, "demo", str(self.folder / "exported"), "--device", self.device]
        with (
            (self.folder / "demo.log").open("w+", encoding="utf-8") as log,
            subprocess.Popen(
                [*command, "--server_port", str(port)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            ) as process,
        ):
            try:
                page = _page(process, port, self.until)
            finally:
                _kill(process)
            log.seek(0)
            if page is None:
                raise RuntimeError(_reason(log.read(), process.returncode))
        return f"a page of {len(page)} bytes", {}


def _page(process: subprocess.Popen, port: int, end: float) -> bytes | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            return opener.open(f"http://127.0.0.1:{port}/", timeout=5).read()
        time.sleep(0.2)
    return None


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _reason(said: str, code: int | None) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"error:|\w*Error\b", line)] or lines[-1:]
    return f"{telling[-1] if telling else 'it printed nothing'} (exit code {code})"


# --- the report ----------------------------------------------------------------------------------


def markdown(device: str, outcomes: list[Outcome]) -> str:
    """Return the report as Markdown."""
    counts = ", ".join(
        f"{sum(outcome.status == status for outcome in outcomes)} {status}"
        for status in ("ok", "failed", "not run")
    )
    rows = [
        f"| {o.name} | {o.status} | {o.seconds:.1f} s | {o.detail.replace('|', '/')} |"
        for o in outcomes
    ]
    title = "# Check on a GPU" if device == "gpu" else "# Check on a GPU: rehearsal on the CPU"
    total = sum(outcome.seconds for outcome in outcomes)
    head = ["| Check | Result | Time | Detail |", "|-|-|-|-|"]
    return "\n".join([title, "", f"{counts}; {total:.0f} s.", "", *head, *rows, ""])


def main() -> int:
    """Run all checks and write the report; the exit code is 1 if one did not pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("output/gpu_check"))
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"))
    parser.add_argument(
        "--seconds", type=float, default=TOTAL_SECONDS, help="for all checks; theirs grow with it"
    )
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "commands.log").unlink(missing_ok=True)
    check = Check(args.device, args.folder, args.seconds)
    outcomes = []
    for step in check.steps():
        outcomes.append(check.outcome(step))
        print(f"{outcomes[-1].status:8}{step.name}: {outcomes[-1].detail}", flush=True)
        # After each step: what is known is on the disk even if this process is killed.
        document = {"device": args.device, "checks": [asdict(outcome) for outcome in outcomes]}
        (args.folder / "gpu_check.json").write_text(json.dumps(document, indent=2))
        (args.folder / "gpu_check.md").write_text(markdown(args.device, outcomes))
    print(f"\nReport: {args.folder / 'gpu_check.md'}, {args.folder / 'gpu_check.json'}")
    return 0 if all(outcome.status == "ok" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
