"""Segment images with an exported model; the flags are those of deploy/python/infer.py."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--config", required=True, help="deploy.yaml of the export, or its folder")
    parser.add_argument("--image_path", required=True, help="an image, a folder, or a list file")
    parser.add_argument("--save_dir", default="./output", help="for label images and overlays")
    parser.add_argument("--runtime", default="paddle", choices=_common.RUNTIMES)
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    _common.add_precision(parser)
    parser.add_argument("--cpu_threads", type=int, help="default: all that the process may use")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> dict:
    """Segment each image; write ``NAME.png`` (indices with a palette) and ``overlay/NAME.jpg``."""
    import os
    from statistics import median
    from time import perf_counter

    from liteseg_plugin.plugin import activate

    activate()
    from paddleseg.utils import get_image_list
    from tqdm import tqdm

    from liteseg_plugin.deploy.predictor import Predictor
    from liteseg_plugin.report import segment_files

    predictor = Predictor(args.config, args.runtime, args.device, args.cpu_threads, args.precision)
    images, folder = get_image_list(args.image_path)
    # Folders below the one that was named are kept: two of them may hold files of one name.
    names = [os.path.relpath(i, folder) if folder else os.path.basename(i) for i in images]
    names = [os.path.splitext(name)[0] for name in names]
    started = perf_counter()
    written = list(
        tqdm(
            segment_files(predictor, images, names, args.save_dir),
            total=len(images),
            unit="image",
        )
    )
    rate = len(images) / (perf_counter() - started)
    latency = median(predictor.engine_ms[1:] or predictor.engine_ms)
    print(
        f"{len(images)} images in {args.save_dir}, {rate:.1f} a second; {args.runtime} alone, "
        f"median: {latency:.1f} ms"
    )
    return {
        "images": written,
        "images_per_second": rate,
        "engine_ms_median": latency,
        "runtime": args.runtime,
        "precision": args.precision,
    }
