"""Segment images with an exported model; takes the flags of PaddleSeg's infer.py."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg_plugin.cli import _arguments, _steps
from liteseg_plugin.errors import LitesegError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--config", required=True, help="deploy.yaml of the export, or its folder")
    _arguments.add_images(parser)
    parser.add_argument(
        "--save_dir", default="./output", help="folder for label images and overlays"
    )
    _arguments.add_runtime(parser)
    _arguments.add_device(parser)
    _arguments.add_precision(parser)
    parser.add_argument("--cpu_threads", type=int, help="CPU threads (default: all available)")
    parser.add_argument(
        "--save_labels", action="store_true", help="also write label images of a video's frames"
    )
    parser.add_argument(
        "--show", action="store_true", help="show the overlay of a video in a window"
    )
    parser.add_argument(
        "--save_confidence",
        action="store_true",
        help="also write the probability of each label, as a grey image, of a video's frames too; "
        "needs an export with "
        "--output_op confidence",
    )
    parser.add_argument(
        "--min_confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="labels of a smaller probability become 255; needs such an export",
    )
    parser.add_argument(
        "--save_polygons", action="store_true", help="also write outlines, as files of labelme"
    )
    _arguments.add_bands(parser)
    _arguments.add_tiles(parser)
    parser.add_argument(
        "--geotiff",
        action="store_true",
        help="read images by windows and write GeoTIFFs with their georeference; needs --tile, and "
        "rasterio (the extra geo)",
    )
    many = parser.add_argument_group("many images")
    many.add_argument(
        "--resume",
        action="store_true",
        help="skip images whose results are in --save_dir and complete; those of another model "
        "count, too",
    )
    many.add_argument(
        "--on_error",
        default="stop",
        choices=("stop", "skip"),
        help="what to do at an image that cannot be segmented; manifest.jsonl in --save_dir "
        "names it",
    )
    many.add_argument("--shard", metavar="I/N", help="segment part I (from 0) of N, of all images")
    add_ray(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_ray(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``--ray``."""
    ray = parser.add_argument_group("many processes or machines")
    ray.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="segment with Ray Data: on the cluster at ADDRESS (auto, HOST:6379), or without one, "
        "in processes of this machine; --image_path may then be Parquet, a file or a folder",
    )
    ray.add_argument(
        "--ray_workers",
        type=int,
        metavar="N",
        help="processes with a predictor; by default one per GPU, or else one per machine",
    )
    ray.add_argument(
        "--image_column",
        default="image",
        metavar="NAME",
        help="column of Parquet: paths, or encoded images (bytes)",
    )
    ray.add_argument(
        "--save_as",
        default="files",
        choices=("files", "parquet"),
        help="parquet: label maps alone, in labels/part-NNNNN.parquet",
    )


def run(args: argparse.Namespace) -> dict:
    """Segment images or a video; write overlays, label maps and a legend, as ``predict``."""
    from dataclasses import replace
    from statistics import median
    from time import perf_counter

    from liteseg_plugin.integration.registry import repair

    repair()
    from liteseg_plugin.datasets.image_compose import showing
    from liteseg_plugin.errors import printable
    from liteseg_plugin.exported import ExportedModel
    from liteseg_plugin.inference import bulk, frames, images, on_ray, pipeline, tiled, video
    from liteseg_plugin.inference.predictor import Predictor
    from liteseg_plugin.runtimes.choice import choose
    from liteseg_plugin.system.parallel import per_second
    from liteseg_plugin.system.progress import progress_bar

    tiling = _steps.tiling(args)
    extras = pipeline.Extras(
        args.save_confidence, args.save_polygons, args.min_confidence, args.geotiff
    )
    is_video = frames.is_video(args.image_path)
    _refuse_what_does_not_go_together(args, is_video)
    exported = ExportedModel.read(args.config)
    exported = replace(exported, transforms=showing(exported.transforms, args.bands))
    choice = choose(exported, args.runtime, args.device, args.precision)
    runtime = choice.runtime
    bulk_options: dict[str, Any] = {
        "resume": args.resume,
        "skip_errors": args.on_error == "skip",
        "progress": progress_bar,
    }
    if args.ray:
        started = perf_counter()
        model = on_ray.Model(args.config, runtime, args.device, args.cpu_threads, args.precision)
        ray_run = on_ray.RayRun(
            args.ray, model, args.ray_workers, extras, args.image_column, args.save_as == "parquet"
        )
        summary = ray_run.segment(args.image_path, args.save_dir, **bulk_options)
        print(summary.text())
        rate = per_second(len(summary.done), perf_counter() - started)
        return {**summary.to_json(), "images_per_second": rate, "runtime": runtime}
    found = [] if is_video else images.find_images(args.image_path, args.separator)
    print(choice.text, flush=True)
    predictor = Predictor(exported, runtime, args.device, args.cpu_threads, args.precision, tiling)
    if tiling is not None:
        print(tiled.describe(predictor, tiling), flush=True)
    started = perf_counter()
    document: dict[str, Any]
    if is_video:
        unit = "frames"
        count, overlay = video.segment_source(
            predictor,
            args.image_path,
            args.save_dir,
            save_labels=args.save_labels,
            extras=extras,
            in_window=args.show,
        )
        document = {"video": args.image_path, "frames": count, "overlay": overlay}
    else:
        unit = "images"
        summary = bulk.segment_in_bulk(
            predictor,
            found,
            args.save_dir,
            extras=extras,
            shard=bulk.Shard.parse(args.shard or "0/1"),
            **bulk_options,
        )
        print(summary.text())
        count, document = len(summary.done), summary.to_json()
    rate = per_second(count, perf_counter() - started)
    times = [*predictor.engine_ms]
    latency = median(times[1:] or times) if times else None
    engine = (
        "" if latency is None else f"; {runtime} alone, {args.precision}, median: {latency:.1f} ms"
    )
    print(f"{count} {unit} in {printable(args.save_dir)}, {rate:.1f} a second{engine}")
    return {
        **document,
        f"{unit}_per_second": rate,
        "engine_ms_median": latency,
        "runtime": runtime,
        "precision": args.precision,
    }


def _refuse_what_does_not_go_together(args: argparse.Namespace, is_video: bool) -> None:
    if args.geotiff and args.tile is None:
        raise LitesegError("--geotiff reads images by windows; give their size: --tile W H")
    if is_video and (args.save_polygons or args.geotiff):
        raise LitesegError("--save_polygons and --geotiff are for images, not for videos")
    if is_video and (args.resume or args.shard):
        raise LitesegError("--resume and --shard are for images; a video is segmented as a whole")
    if args.ray and (is_video or args.shard):
        raise LitesegError("--ray is for images, and divides them itself: not with --shard")
    if args.ray and (args.tile or args.separator):
        raise LitesegError("--ray does not take --tile or --separator")
    if not args.ray and (args.ray_workers or args.save_as == "parquet"):
        raise LitesegError("--ray_workers and --save_as parquet need --ray")
    if args.save_as == "parquet" and (args.save_confidence or args.save_polygons):
        raise LitesegError("--save_as parquet writes label maps alone, no confidence or polygons")
