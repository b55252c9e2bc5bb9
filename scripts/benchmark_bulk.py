"""Measure ``infer --ray``: memory over many images, what spilled, rates beside the engine alone.

    python scripts/benchmark_bulk.py --save docs/images/bulk.json

Needs the extra ``ray``. Images of 96x64 are drawn; the network is PP-LiteSeg-T with random weights.
Each process has one thread. Rates are those at which label maps are written, after a tenth of them:
processes start at different times. Each result is saved at once; the same command after an
interruption measures what is missing, and prints the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import paddle
from paddleseg.models import STDC1

from liteseg_plugin import PPLiteSeg, Predictor
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.images import LABEL_MAPS
from liteseg_plugin.inference.on_ray import LOCAL, Model, RayRun
from liteseg_plugin.integration.registry import repair
from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.system.parallel import usable_cpus
from liteseg_plugin.system.versions import installed_versions

# Of the images, when memory is read; near the end, one of the processes may have ended.
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.95)
MARK = "LITESEG_BENCHMARK"  # in the environment of the processes of this run
ENGINE_RUNS = 250


def megabytes(process: str) -> float:
    """Return the resident memory of a process, without memory that it shares."""
    lines = Path("/proc", process, "status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    return round(int(sizes["RssAnon"].split()[0]) / 1024, 1)


def of_predictors() -> list[float]:
    """Return the megabytes of each process with a predictor, in the order of their start."""
    found = {}
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_worker = (path / "cmdline").read_bytes().startswith(b"ray::MapWorker")
            if is_worker and mark in (path / "environ").read_bytes():
                found[int(path.name)] = megabytes(path.name)
        except OSError:
            continue
    return [found[pid] for pid in sorted(found)]


class Watch:
    """Notes memory while results pass; a ``progress`` of ``run_in_bulk``.

    Args:
        images: How many there are.
        seconds: After how many to end, with the images that were done.
    """

    def __init__(self, images: int, seconds: float) -> None:
        self.rate = 0.0
        self.memory: list[dict[str, Any]] = []
        self.spilled = ""
        self._moments = {max(1, round(share * images)) for share in SHARES}
        self._seconds = seconds

    def __call__(self, results: Iterable[Any], **_: Any) -> Iterator[Any]:
        """Pass the results on."""
        import ray
        from ray._private.internal_api import memory_summary

        start = time.perf_counter()
        for number, result in enumerate(results, start=1):
            seconds = time.perf_counter() - start
            is_last = seconds > self._seconds
            if number in self._moments or is_last:
                memory = {"command": megabytes("self"), "workers": of_predictors()}
                self.memory.append({"images": number, "seconds": seconds, **memory})
            yield result
            if is_last:
                break
        address = ray.get_runtime_context().gcs_address  # another Ray may run here
        said = memory_summary(address, stats_only=True).splitlines()
        self.spilled = "; ".join(line for line in said if "pill" in line) or "nothing"


class Bench:
    """The images and the model of a run, in a folder.

    Args:
        folder: An empty folder.
        images: How many to draw.
        runtime: That runs the model.
    """

    def __init__(self, folder: Path, images: int, runtime: str) -> None:
        self._folder, self._runtime = folder, runtime
        paddle.seed(1)
        network = PPLiteSeg(19, STDC1(), arm_out_chs=[32, 64, 128], seg_head_inter_chs=[32, 64, 64])
        options = {} if runtime == "paddle" else {"format": "onnx"}
        export_model(network, folder / "model", transforms=[{"type": "Normalize"}], **options)
        rng = np.random.default_rng(0)
        (folder / "images").mkdir()
        for number in range(images):
            self._image = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (96, 64))
            cv2.imwrite(str(folder / "images" / f"{number:06d}.jpg"), self._image)

    def segment(self, images: int, workers: int, seconds: float) -> Watch:
        """Segment the first of the images with Ray, in at most that many seconds."""
        few = self._folder / "images" / "few.txt"
        few.write_text("".join(f"{number:06d}.jpg\n" for number in range(images)))
        model = Model(str(self._folder / "model"), self._runtime, "cpu", 1)
        watch = Watch(images, seconds)
        with tempfile.TemporaryDirectory(dir=self._folder) as out:
            RayRun(LOCAL, model, workers).segment(str(few), out, progress=watch)
            paths = Path(out, LABEL_MAPS).glob("*.png")
            written = sorted(path.stat().st_mtime for path in paths)
        written = written[len(written) // 10 :]
        watch.rate = (len(written) - 1) / (written[-1] - written[0])
        return watch

    def engine_alone(self) -> float:
        """Return images per second of the engine, without reading and writing."""
        predictor = Predictor(self._folder / "model", self._runtime, "cpu", 1)
        x = predictor.preprocess(self._image)
        for _ in range(ENGINE_RUNS + 50):
            predictor.run(x)
        return 1000 / float(np.mean([*predictor.engine_ms][-ENGINE_RUNS:]))


def main() -> None:
    """Measure what is missing, save it, and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=1000, help="images to measure a rate with")
    parser.add_argument("--rounds", type=int, default=2, help="of the rates, alternating")
    parser.add_argument("--runtime", default="paddle")
    limit = "most that the pass over all images may take; each of the others, a quarter"
    parser.add_argument("--seconds", type=float, default=600, help=limit)
    parser.add_argument("--save", type=Path, required=True, help="JSON with the results")
    args = parser.parse_args()
    os.environ[MARK] = str(os.getpid())
    # Ray's niceness of 15 would measure the other programs.
    os.environ.setdefault("RAY_worker_niceness", "0")
    conditions = {
        **{name: getattr(args, name) for name in ("images", "few", "rounds", "runtime")},
        "cpus": usable_cpus(),
        **installed_versions("ray", "paddlepaddle"),
    }
    found: dict[str, Any] = {"conditions": conditions, "rates": []}
    if args.save.is_file():
        before = json.loads(args.save.read_text())
        if before["conditions"] == conditions:
            found = before
    repair()
    plan = [1, 2] * args.rounds
    if "memory" not in found or len(found["rates"]) < len(plan):
        with tempfile.TemporaryDirectory() as scratch:
            bench = Bench(Path(scratch), args.images, args.runtime)
            measure(bench, found, plan, args)
    show(found)


def measure(bench: Bench, found: dict[str, Any], plan: list[int], args: argparse.Namespace) -> None:
    """Measure what is missing; the workers of each rate are the plan."""
    if "memory" not in found:
        watch = bench.segment(args.images, 2, args.seconds)
        found |= {
            "memory": watch.memory,
            "spilled": watch.spilled,
            "all_images_per_s": watch.rate,
        }
        save(found, args.save)
    for workers in plan[len(found["rates"]) :]:
        engine = bench.engine_alone()
        rate = bench.segment(args.few, workers, args.seconds / 4).rate
        point = {"workers": workers, "images_per_s": rate, "engine_alone_per_s": engine}
        found["rates"].append(point)
        save(found, args.save)


def save(found: dict[str, Any], path: Path) -> None:
    """Write the results, and print the newest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, f"{json.dumps(found, indent=1)}\n".encode())
    print(json.dumps(found["rates"][-1] if found["rates"] else found["memory"]), flush=True)


def show(found: dict[str, Any]) -> None:
    """Print the tables of the docs."""
    print("| Images done | Command's process | Worker 1 | Worker 2 | Spilled |\n|-|-|-|-|-|")
    for row in found["memory"]:
        sizes = [f"{size:.0f} MB" for size in (row["command"], *row["workers"])]
        sizes += ["-"] * (3 - len(sizes))
        print(f"| {row['images']:,} | {' | '.join(sizes)} | {found['spilled']} |")
    print(f"\nMB in 1,000 images, from a tenth of them on: {drifts(found['memory'])}\n")
    print("| Workers | images/s | a worker | engine alone, images/s | of it | scaling |")
    print("|-|-|-|-|-|-|")
    alone = median(row["images_per_s"] for row in found["rates"] if row["workers"] == 1)
    for workers in (1, 2):
        rows = [row for row in found["rates"] if row["workers"] == workers]
        rate, engine = (median(row[name] for row in rows) for name in rows[0] if name != "workers")
        each = rate / workers
        print(
            f"| {workers} | {rate:.1f} | {each:.1f} | {engine:.1f} | {each / engine:.0%} | "
            f"{rate / alone:.2f} |"
        )


def drifts(memory: list[dict[str, Any]]) -> str:
    """Return by how much each process grew, in MB per 1,000 images."""
    first, last = memory[1 if len(memory) > 2 else 0], memory[-1]
    if first is last:
        return "not measured"
    thousands = (last["images"] - first["images"]) / 1000
    sizes = zip((first["command"], *first["workers"]), (last["command"], *last["workers"]))
    return ", ".join(f"{(after - before) / thousands:+.2f}" for before, after in sizes)


if __name__ == "__main__":
    main()
