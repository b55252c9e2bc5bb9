"""Train the same steps in 1, 2 and 4 processes on the CPU; compare losses, weights and speed.

    python scripts/benchmark_scaling.py --save docs/images/scaling.json

Each step has four images of 128x64 pixels in all. Every number of processes runs twice: as
released, and with batch norm's statistics fixed and cross entropy instead of OHEM, which depend on
the images of one process. Losses are means of all processes. The script also times the exchange of
as many bytes as PP-LiteSeg-T has gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CONFIG = Path(__file__).parents[1] / "configs/pp_liteseg/pp_liteseg_stdc1_toy_street_256x192.yml"
TOTAL_BATCH = 4
GRADIENTS = 8_141_600  # of PP-LiteSeg-T, in float32
EXCHANGES = 5
ATTEMPTS = 3


def main() -> None:
    """Run every number of processes with both kinds of batch norm, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save", type=Path, help="write the measured points as JSON")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fixed_statistics", action="store_true", help=argparse.SUPPRESS)
    args, rest = parser.parse_known_args()
    if args.worker:
        worker(args.worker, rest, fixed_statistics=args.fixed_statistics)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data_set(folder)
        runs = {
            fixed: {n: launch(folder, n, args.steps, fixed) for n in args.processes}
            for fixed in (False, True)
        }
    show_losses(runs, args.processes)
    points = show_speed(runs[False])
    if args.save:
        args.save.write_text(json.dumps(points, indent=1) + "\n", encoding="utf-8")


def make_data_set(folder: Path) -> None:
    """Draw a data set and write two configs without random augmentation."""
    from liteseg_plugin.datasets import toy_street

    sizes = {"train": 16, "val": 1, "test": 1, "resolution_wh": (128, 64)}
    toy_street.generate(folder / "street", **sizes, progress=False)
    content = {
        "_base_": str(CONFIG),
        "train_dataset": {
            "dataset_root": str(folder / "street"),
            "train_path": str(folder / "street" / "train.txt"),
            "transforms": [{"type": "Normalize"}],
        },
        "lr_scheduler": {"learning_rate": 0.0003},
    }
    (folder / "False.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    loss = {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4, 0.4]}
    text = yaml.safe_dump({**content, "loss": loss})
    (folder / "True.yml").write_text(text, encoding="utf-8")


def launch(folder: Path, processes: int, steps: int, fixed: bool) -> list[dict]:
    """Return what each process recorded."""
    config = folder / f"{fixed}.yml"
    out = folder / f"{processes}-{fixed}"
    command = [sys.executable, "-m", "paddle.distributed.launch"]
    command += ["--nproc_per_node", str(processes), "--log_dir", str(out / "log"), __file__]
    command += ["--worker", str(out), *(["--fixed_statistics"] if fixed else [])]
    command += ["--config", str(config), "--device", "cpu", "--save_dir", str(out / "run")]
    command += ["--batch_size", str(TOTAL_BATCH // processes), "--seed", "1"]
    command += ["--iters", str(steps), "--save_interval", str(steps)]
    # Gloo gives up after 30 s in which a process does not connect, as on a busy machine.
    for attempt in range(ATTEMPTS):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:
            break
        print(f"attempt {attempt + 1} with {processes} process(es) failed", file=sys.stderr)
    else:
        sys.exit((out / "log/workerlog.0").read_text()[-3000:])
    print(f"{processes} process(es), fixed: {fixed}: done", file=sys.stderr, flush=True)
    return [json.loads((out / f"{n}.json").read_text()) for n in range(processes)]


def worker(out: Path, flags: list[str], *, fixed_statistics: bool) -> None:
    """Train in this process, and record losses, times of steps, weights and exchanges."""
    import paddle

    from liteseg_plugin.cli import main as liteseg
    from liteseg_plugin.training import finite, processes, trainer

    rows: list[float] = []
    times: list[tuple[float, float]] = []
    kept: dict[str, Any] = {}
    read, save = finite.read_losses, trainer._Trainer._save

    def read_and_record(steps: Any) -> Any:
        losses, bad = read(steps)
        rows.extend(row[0] for row in losses)
        times.append((time.perf_counter(), time.process_time()))
        return losses, bad

    def save_and_record(self: Any, step: Any) -> None:
        weights = [value for value in self.stepper.model.parameters() if not value.stop_gradient]
        kept["norm"] = float(np.sqrt(sum(float((w.numpy() ** 2).sum()) for w in weights)))
        save(self, step)

    finite.read_losses = read_and_record
    trainer._Trainer._save = save_and_record  # type: ignore[method-assign]
    if fixed_statistics:
        fix_statistics()
    if liteseg(["train", *flags]):
        sys.exit(1)
    exchange = []
    gradients = paddle.zeros([GRADIENTS])
    for _ in range(EXCHANGES if processes.count() > 1 else 0):
        start = time.perf_counter(), time.process_time()
        paddle.distributed.all_reduce(gradients)
        exchange.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    record = {"losses": rows, "times": times, "exchange": exchange, **kept}
    path = out / f"{os.environ.get('PADDLE_TRAINER_ID', '0')}.json"
    path.write_text(json.dumps(record))


def fix_statistics() -> None:
    """Let batch norm use its first statistics (mean 0, variance 1), whatever the batch."""
    from paddle.nn.layer import norm

    make = norm._BatchNormBase.__init__

    def make_fixed(self: Any, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        self._use_global_stats = True

    norm._BatchNormBase.__init__ = make_fixed


def show_losses(runs: dict[bool, dict[int, list[dict]]], counts: list[int]) -> None:
    """Print losses side by side, and the largest difference from the first run."""
    losses = {
        fixed: {n: np.mean([record["losses"] for record in runs[fixed][n]], 0) for n in counts}
        for fixed in runs
    }
    heads = [f"{n} process(es)" for n in counts] + [f"{n}, fixed" for n in counts]
    print(f"| Step | {' | '.join(heads)} |\n|{'-|' * (len(heads) + 1)}")
    columns = [losses[fixed][n] for fixed in losses for n in counts]
    for step in range(len(columns[0])):
        values = " | ".join(f"{column[step]:.5f}" for column in columns)
        print(f"| {step + 1} | {values} |")
    for fixed, by_count in losses.items():
        first = by_count[counts[0]]
        worst = {n: float(np.abs(by_count[n] - first).max()) for n in counts[1:]}
        norms = {n: runs[fixed][n][0]["norm"] for n in counts}
        print(f"\nfixed: {fixed}; largest difference of a loss: {worst}; norms: {norms}")


def show_speed(runs: dict[int, list[dict]]) -> list[dict]:
    """Print and return what a step takes with each number of processes.

    The efficiency is by processor time, which other programs on the machine change little.
    """
    names = ("Processes", "ms a step", "images/s", "CPU ms a step", "efficiency")
    print(f"\n| {' | '.join(names)} | exchange, ms | its CPU ms |\n|{'-|' * (len(names) + 2)}")
    points: list[dict] = []
    for n, records in runs.items():
        # The first two steps warm up.
        steps = np.array([np.diff(record["times"], axis=0)[2:] for record in records])
        wall, cpu = float(np.median(steps[0, :, 0])), float(np.median(steps[..., 1].sum(0)))
        times = np.array([record["exchange"] or [(0.0, 0.0)] for record in records])
        exchange, exchange_cpu = np.median(times[0, :, 0]), np.median(times[..., 1].sum(0))
        point = {"step_s": wall, "cpu_s": cpu, "exchange_s": exchange}
        points.append({"processes": n, **point, "exchange_cpu_s": exchange_cpu})
        print(
            f"| {n} | {1e3 * wall:.0f} | {TOTAL_BATCH / wall:.1f} | {1e3 * cpu:.0f} | "
            f"{points[0]['cpu_s'] / cpu:.0%} | {1e3 * exchange:.0f} | {1e3 * exchange_cpu:.0f} |"
        )
    return points


if __name__ == "__main__":
    main()
