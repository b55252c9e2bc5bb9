"""Segment images with an exported model; the flags are those of deploy/python/infer.py."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from liteseg_plugin.cli import _common

if TYPE_CHECKING:
    from liteseg_plugin.inference.predictor import Predictor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--config", required=True, help="deploy.yaml of the export, or its folder")
    parser.add_argument(
        "--image_path",
        required=True,
        help="an image, a folder, a list file, a video file, or a camera (camera:0)",
    )
    parser.add_argument("--save_dir", default="./output", help="for label images and overlays")
    parser.add_argument("--runtime", default="paddle", choices=_common.RUNTIMES)
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    _common.add_precision(parser)
    parser.add_argument("--cpu_threads", type=int, help="default: all that the process may use")
    parser.add_argument("--save_labels", action="store_true", help="of a video's frames, too")
    parser.add_argument("--show", action="store_true", help="show a video's overlay meanwhile")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> dict:
    """Segment images (``NAME.png`` of indices, ``overlay/NAME.jpg``) or a video's frames."""
    from statistics import median
    from time import perf_counter

    from liteseg_plugin.integration.registry import activate

    activate()
    from liteseg_plugin.errors import printable
    from liteseg_plugin.inference.predictor import Predictor
    from liteseg_plugin.inference.video import is_video
    from liteseg_plugin.system.parallel import per_second

    predictor = Predictor(args.config, args.runtime, args.device, args.cpu_threads, args.precision)
    video = is_video(args.image_path)
    started = perf_counter()
    document = (_segment_video if video else _segment_images)(args, predictor)
    unit = "frames" if video else "images"
    count = document["frames"] if video else len(document["images"])
    document[f"{unit}_per_second"] = rate = per_second(count, perf_counter() - started)
    latency = median(predictor.engine_ms[1:] or predictor.engine_ms or [float("nan")])
    print(
        f"{count} {unit} in {printable(args.save_dir)}, {rate:.1f} a second; {args.runtime} alone, "
        f"median: {latency:.1f} ms"
    )
    return {
        **document,
        "engine_ms_median": latency,
        "runtime": args.runtime,
        "precision": args.precision,
    }


def _segment_images(args: argparse.Namespace, predictor: Predictor) -> dict:
    from os.path import splitext

    from liteseg_plugin.inference.images import find_images
    from liteseg_plugin.inference.pipeline import segment_files
    from liteseg_plugin.system.progress import progress_bar

    images = find_images(args.image_path)
    # Folders below the one that was named are kept: two of them may hold files of one name.
    names = [splitext(image.name)[0] for image in images]
    results = segment_files(predictor, [image.path for image in images], names, args.save_dir)
    return {"images": list(progress_bar(results, total=len(images), unit="image"))}


def _segment_video(args: argparse.Namespace, predictor: Predictor) -> dict:
    from liteseg_plugin.inference.images import check_video_paths
    from liteseg_plugin.inference.video import Frames, require_display, segment_video, show, watch

    check_video_paths(args.image_path, args.save_dir)
    if args.show:
        require_display()
    frames = Frames(args.image_path)
    results = segment_video(
        predictor,
        predictor.exported.named_classes(),
        frames,
        args.save_dir,
        legend=bool(predictor.exported.classes),
        save_labels=args.save_labels,
    )
    count, path = watch(
        results,
        frames,
        lambda result: not args.show or show(result["picture"], args.image_path),
    )
    return {"video": args.image_path, "frames": count, "overlay": path}
