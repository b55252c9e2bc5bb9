"""Measure ``infer --ray``: rates beside the engine alone, memory over many images, what spilled.

Needs the extra ``ray``. Images are drawn; the network is PP-LiteSeg-T with random weights. Each
process has one thread. Prints lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
from paddleseg.models import STDC1

from liteseg_plugin import PPLiteSeg, Predictor
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.on_ray import LOCAL, Model, RayRun
from liteseg_plugin.integration.registry import repair

WARM_UP = 200  # images; the processes start at different times


def megabytes(process: str) -> int:
    """Return the resident memory of a process, without memory that it shares."""
    lines = Path("/proc", process, "status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    return round(int(sizes["RssAnon"].split()[0]) / 1024)


def of_predictors() -> list[int]:
    """Return the megabytes of each process with a predictor."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                found.append(megabytes(path.name))
        except OSError:
            continue
    return found


class Watch:
    """Notes times and memory while results pass; a ``progress`` of ``run_in_bulk``."""

    def __init__(self, moments: Iterable[int]) -> None:
        self.times: list[float] = []
        self.spilled = ""
        self._moments = {*moments}

    def __call__(self, results: Iterable[Any], **_: Any) -> Iterator[Any]:
        """Pass the results on."""
        from ray._private.internal_api import memory_summary

        for number, result in enumerate(results, start=1):
            self.times.append(time.perf_counter())
            if number in self._moments:
                memory = {"driver": megabytes("self"), "workers": of_predictors()}
                show(images=number, seconds=self.times[-1] - self.times[0], megabytes=memory)
            yield result
        said = memory_summary(stats_only=True).splitlines()
        self.spilled = "; ".join(line for line in said if "pill" in line) or "nothing"

    def rate(self) -> float:
        """Return images per second after the warm-up."""
        return (len(self.times) - WARM_UP) / (self.times[-1] - self.times[WARM_UP - 1])


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=2000, help="images to measure a rate with")
    parser.add_argument("--rounds", type=int, default=2, help="of the rates, alternating")
    parser.add_argument("--runtime", default="paddle")
    args = parser.parse_args()
    repair()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paddle.seed(1)
        network = PPLiteSeg(19, STDC1(), arm_out_chs=[32, 64, 128], seg_head_inter_chs=[32, 64, 64])
        as_onnx = args.runtime != "paddle"
        export_model(
            network,
            folder / "model",
            transforms=[{"type": "Normalize"}],
            **({"format": "onnx"} if as_onnx else {}),
        )
        rng = np.random.default_rng(0)
        (folder / "images").mkdir()
        for number in range(args.images):
            image = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (96, 64))
            cv2.imwrite(str(folder / "images" / f"{number:06d}.jpg"), image)
        few = folder / "images" / "few.txt"
        few.write_text("".join(f"{number:06d}.jpg\n" for number in range(args.few)))

        def segment(image_path: Path, workers: int, name: str, moments: Iterable[int]) -> Watch:
            model = Model(str(folder / "model"), args.runtime, "cpu", 1)
            watch = Watch(moments)
            RayRun(LOCAL, model, workers).segment(str(image_path), folder / name, progress=watch)
            return watch

        moments = (args.images // 10, args.images // 2, args.images)
        whole = segment(folder / "images", 2, "all", moments)
        show(images_per_second=whole.rate(), spilled=whole.spilled)
        predictor = Predictor(folder / "model", args.runtime, "cpu", 1)
        x = predictor.preprocess(image)
        for number in range(args.rounds):
            for workers in (1, 2):
                for _ in range(300):
                    predictor.run(x)
                alone = 1000 / float(np.mean([*predictor.engine_ms][-250:]))
                rate = segment(few, workers, f"{workers} {number}", ()).rate()
                show(workers=workers, images_per_second=rate, engine_alone=alone)


def show(**found: Any) -> None:
    """Print a result as a line of JSON."""
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
