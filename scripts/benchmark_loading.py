"""Load training samples with PaddleSeg's own code and with the plugin's, in turns, on one core.

    python scripts/benchmark_loading.py --config configs/pp_liteseg/NAME.yml \
        --opts train_dataset.dataset_root=FOLDER

Each turn is a process of its own: PaddleSeg without the plugin, then the plugin with
``fast_loading``, then with ``cache_gb`` (a second pass; the first fills the cache). All draw the
same random numbers for the same images, and what they make of them is compared. Processor time is
measured, which other processes disturb less than the clock: images a second of one core.
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
    """Run the sides in turns, and print and compare what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="whose train_dataset is loaded")
    parser.add_argument("--opts", nargs="+", metavar="KEY=VALUE", help="override its values")
    parser.add_argument("--samples", type=int, default=100, help="of each turn")
    parser.add_argument("--images", type=int, help="use only the first ones of the list")
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
    """Run a side in a process of its own, and return what it printed last."""
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
    """Load, and print milliseconds a sample and a checksum of all."""
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
