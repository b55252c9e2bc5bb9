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
    arrays = read_state_dict(args.model_path)
    context = multiprocessing.get_context("fork")
    print("| File | Reader, ms | `paddle.load`, ms | Reader, MB | `paddle.load`, MB |")
    print("|-|-|-|-|-|")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in write(arrays, Path(folder)).items():
            sides: dict[str, list[tuple[float, float]]] = {"read": [], "paddle": []}
            for _ in range(args.rounds):
                for side, load in (("read", read_arrays), ("paddle", load_by_paddle)):
                    with context.Pool(1) as pool:
                        sides[side].append(pool.apply(measure, (load, str(path))))
            best = {side: np.min(found, axis=0) for side, found in sides.items()}
            cells = [f"{best[side][place]:.0f}" for place in (0, 1) for side in sides]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def write(arrays: dict[str, np.ndarray], folder: Path) -> dict[str, Path]:
    """Write the files, and return them by what they are."""
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


def load_by_paddle(path: str) -> Any:
    """Read as the reader does, into arrays."""
    return paddle.load(path, return_numpy=True)


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
