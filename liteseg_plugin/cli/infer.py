"""Segment images with an exported model; takes the flags of PaddleSeg's infer.py."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg_plugin.cli import _common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--config", required=True, help="deploy.yaml of the export, or its folder")
    parser.add_argument(
        "--image_path",
        required=True,
        help="an image, a folder, a list file, a video file, or a camera (camera:0)",
    )
    parser.add_argument(
        "--save_dir", default="./output", help="folder for label images and overlays"
    )
    _common.add_runtime(parser)
    _common.add_device(parser)
    _common.add_precision(parser)
    parser.add_argument("--cpu_threads", type=int, help="CPU threads (default: all available)")
    parser.add_argument(
        "--save_labels", action="store_true", help="also write label images of a video's frames"
    )
    parser.add_argument(
        "--show", action="store_true", help="show the overlay of a video in a window"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> dict:
    """Segment images or a video; write overlays, label maps and a legend, as ``predict``."""
    from statistics import median
    from time import perf_counter

    from liteseg_plugin.integration.registry import repair

    repair()
    from liteseg_plugin.errors import printable
    from liteseg_plugin.inference import images, pipeline, video
    from liteseg_plugin.inference.predictor import Predictor
    from liteseg_plugin.runtimes import catalog
    from liteseg_plugin.system.parallel import per_second
    from liteseg_plugin.system.progress import progress_bar

    is_video = video.is_video(args.image_path)
    found = [] if is_video else images.find_images(args.image_path)
    runtime = args.runtime or catalog.choose(args.device, args.precision)
    print(catalog.choose_device(runtime, args.device, args.precision)[1], flush=True)
    predictor = Predictor(args.config, runtime, args.device, args.cpu_threads, args.precision)
    started = perf_counter()
    document: dict[str, Any]
    if is_video:
        unit = "frames"
        count, overlay = video.segment_source(
            predictor,
            args.image_path,
            args.save_dir,
            save_labels=args.save_labels,
            in_window=args.show,
        )
        document = {"video": args.image_path, "frames": count, "overlay": overlay}
    else:
        unit = "images"
        results = pipeline.segment_files(predictor, found, args.save_dir)
        done = list(progress_bar(results, total=len(found), unit="image"))
        count, document = len(done), {"images": [image.to_json() for image in done]}
    rate = per_second(count, perf_counter() - started)
    first, *others = predictor.engine_ms or [float("nan")]
    latency = median(others or [first])
    print(
        f"{count} {unit} in {printable(args.save_dir)}, {rate:.1f} a second; {runtime} alone, "
        f"median: {latency:.1f} ms"
    )
    return {
        **document,
        f"{unit}_per_second": rate,
        "engine_ms_median": latency,
        "runtime": runtime,
        "precision": args.precision,
    }
