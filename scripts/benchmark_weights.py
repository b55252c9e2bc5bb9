"""Time the reader of weights against ``paddle.load``, in turns, with the memory that each takes.

    python scripts/benchmark_weights.py --model_path WEIGHTS [--rounds 7]

The weights are written by ``paddle.save`` in protocols 2 to 4 and in bfloat16; one more file has an
array of 256 MB. Each turn is a child process. The table has the least processor time and memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from liteseg_plugin.weights import read_arrays, read_state_dict


def main() -> None:
    """Write the files, read them in turns, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_path", required=True, help="weights to write in each way")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(f"| File | {' | '.join(f'{side}, ms, MB' for side in SIDES)} |")
    print("|-|" + "-|" * len(SIDES))
    with tempfile.TemporaryDirectory() as folder:
        for name, path in in_child(write, args.model_path, Path(folder)).items():
            found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
            for _ in range(args.rounds):
                for side, load in SIDES.items():
                    found[side].append(in_child(measure, load, str(path)))
            best = [np.min(turns, axis=0) for turns in found.values()]
            cells = [f"{milliseconds:.0f}, {megabytes:.0f}" for milliseconds, megabytes in best]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def in_child(act: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function gives in a process that has used no memory before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(act, *arguments).result()


def write(weights: str, folder: Path) -> dict[str, Path]:
    """Write the files, and return them by what they are."""
    arrays = read_state_dict(weights)
    tensors = {name: paddle.to_tensor(array) for name, array in arrays.items()}
    halves = {name: tensor.astype("bfloat16") for name, tensor in tensors.items()}
    large = {"w": paddle.zeros([64 << 20])}
    files = {f"protocol {protocol}": (tensors, protocol) for protocol in (2, 3, 4)}
    files |= {"bfloat16, protocol 4": (halves, 4), "256 MB in one array": (large, 4)}
    paths = {}
    for number, (name, (content, protocol)) in enumerate(files.items()):
        paths[name] = folder / f"{number}.pdparams"
        paddle.save(content, str(paths[name]), protocol=protocol)
    return paths


def load_arrays(path: str) -> Any:
    """Read as the reader does, into arrays."""
    return paddle.load(path, return_numpy=True)


SIDES = {"reader": read_arrays, "paddle.load": paddle.load, "into arrays": load_arrays}


def measure(load: Callable[[str], Any], path: str) -> tuple[float, float]:
    """Return the milliseconds of the processor and the megabytes that one reading takes."""
    before, started = _memory(), time.process_time()
    kept = load(path)
    seconds = time.process_time() - started
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
    del kept
    return seconds * 1000, megabytes / 1e6


def _memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
