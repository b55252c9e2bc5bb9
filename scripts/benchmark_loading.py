"""Time the loading of training samples by PaddleSeg and by the plugin, in turns, on one core.

    python scripts/benchmark_loading.py --config configs/pp_liteseg/NAME.yml \
        --opts train_dataset.dataset_root=FOLDER

Each turn is a process: PaddleSeg without the plugin, then the plugin with ``fast_loading``, then
with ``cache_gb`` (the second pass; the first fills the cache). All use the same images and random
numbers, and the script compares the samples. It measures processor time, which other processes
disturb less than elapsed time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time

import numpy as np

SIDES = {"paddleseg": {}, "fast_loading": {"fast_loading": True}, "cache_gb": {"cache_gb": 100}}


def main() -> None:
    """Run the sides in turns, compare their samples, and print their times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="config with the train_dataset to load")
    parser.add_argument("--opts", nargs="+", metavar="KEY=VALUE", help="override its values")
    parser.add_argument("--samples", type=int, default=100, help="samples per turn")
    parser.add_argument("--images", type=int, help="use only the first images of the list")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        run_side(args)
        return
    results: dict[str, list[dict]] = {name: [] for name in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for name in SIDES:
                results[name].append(start(name, folder))
    milliseconds = {
        name: float(np.median([turn["milliseconds"] for turn in turns]))
        for name, turns in results.items()
    }
    same = len({turn["samples"] for turns in results.values() for turn in turns}) == 1
    if args.json:
        print(json.dumps({"milliseconds": milliseconds, "same_samples": same}))
        return
    for name, value in milliseconds.items():
        ratio = milliseconds["paddleseg"] / value
        print(f"{name:14}{value:8.2f} ms{1000 / value:8.1f} images a second{ratio:7.2f}x")
    print(f"samples are {'equal to the bit' if same else 'NOT EQUAL'}")


def start(side: str, folder: str) -> dict:
    """Run a side in its own process, and return the last line that it printed."""
    ended = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder],
        capture_output=True,
        text=True,
        env={**os.environ, "LITESEG_AUTOLOAD": "0", "OMP_NUM_THREADS": "1"},
    )
    if ended.returncode != 0:
        raise SystemExit((ended.stdout + ended.stderr)[-5000:])
    return json.loads(ended.stdout.splitlines()[-1])


def run_side(args: argparse.Namespace) -> None:
    """Load samples; print the milliseconds per sample and a checksum of all samples."""
    keys = SIDES[args.side]
    if keys:
        import liteseg_plugin

        liteseg_plugin.activate()
    else:
        import zlib  # noqa: F401 - before Paddle 2.6.2, whose own zlib crashes Python
    import cv2
    from paddleseg.cvlibs import Config, SegBuilder

    cv2.setNumThreads(1)
    builder = SegBuilder(Config(args.config, opts=args.opts))
    chosen = {**builder.config.train_dataset_cfg, **keys}
    if "cache_gb" in keys:
        chosen["cache_dir"] = args.folder
    dataset = builder.build_component(chosen)
    images = min(args.images or len(dataset), len(dataset))
    if "cache_gb" in keys:
        for index in range(min(images, args.samples)):
            dataset[index]
    seconds, checksum = 0.0, hashlib.sha256()
    dataset[0]  # warm up
    for number in range(args.samples):
        random.seed(number)
        np.random.seed(number)
        begin = time.process_time()
        sample = dataset[number % images]
        image = np.ascontiguousarray(sample["img"])  # as the batch needs it
        seconds += time.process_time() - begin
        checksum.update(image)
        checksum.update(np.ascontiguousarray(sample["label"]))
    result = {"milliseconds": seconds / args.samples * 1000, "samples": checksum.hexdigest()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
