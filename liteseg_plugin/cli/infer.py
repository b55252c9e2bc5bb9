"""Segment images with an exported model; takes the flags of PaddleSeg's infer.py."""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from liteseg_plugin.cli import _windows
from liteseg_plugin.cli.flags.infer import add_arguments, refuse_what_does_not_go_together

if TYPE_CHECKING:
    from liteseg_plugin.inference.pipeline import Extras
    from liteseg_plugin.inference.predictor import Predictor

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> dict:
    """Segment images or a video; write overlays, label maps and a legend, as ``predict``."""
    from dataclasses import replace

    from liteseg_plugin.integration.registry import repair

    repair()
    from liteseg_plugin.datasets.image_compose import showing
    from liteseg_plugin.exported import ExportedModel
    from liteseg_plugin.inference import frames, images, pipeline, tiled
    from liteseg_plugin.inference.predictor import Predictor
    from liteseg_plugin.runtimes.choice import choose

    tiling = _windows.tiling(args)
    is_video = frames.is_video(args.image_path)
    refuse_what_does_not_go_together(args, is_video)
    extras = pipeline.Extras(
        args.save_confidence, args.save_polygons, args.min_confidence, args.geotiff
    )
    exported = ExportedModel.read(args.config)
    exported = replace(exported, transforms=showing(exported.transforms, args.bands))
    choice = choose(exported, args.runtime, args.device, args.precision)
    if args.ray:
        return _on_ray(args, choice.runtime, extras)
    found = [] if is_video else images.find_images(args.image_path, args.separator)
    print(choice.text, flush=True)
    predictor = Predictor(
        exported, choice.runtime, args.device, args.cpu_threads, args.precision, tiling
    )
    if tiling is not None:
        print(tiled.describe(predictor, tiling), flush=True)
    started = perf_counter()
    if is_video:
        unit, (count, document) = "frames", _video(args, predictor, extras)
    else:
        unit, (count, document) = "images", _images(args, predictor, extras, found)
    return {**document, **_speed(args, predictor, unit, count, perf_counter() - started)}


def _on_ray(args: argparse.Namespace, runtime: str, extras: Extras) -> dict:
    from liteseg_plugin.inference import on_ray
    from liteseg_plugin.system.parallel import per_second

    started = perf_counter()
    model = on_ray.Model(args.config, runtime, args.device, args.cpu_threads, args.precision)
    run = on_ray.RayRun(
        args.ray, model, args.ray_workers, extras, args.image_column, args.save_as == "parquet"
    )
    summary = run.segment(args.image_path, args.save_dir, **_bulk_options(args))
    print(summary.text())
    rate = per_second(len(summary.done), perf_counter() - started)
    return {**summary.to_json(), "images_per_second": rate, "runtime": runtime}


def _video(args: argparse.Namespace, predictor: Predictor, extras: Extras) -> tuple[int, dict]:
    from liteseg_plugin.inference import video

    count, overlay = video.segment_source(
        predictor,
        args.image_path,
        args.save_dir,
        save_labels=args.save_labels,
        extras=extras,
        in_window=args.show,
    )
    return count, {"video": args.image_path, "frames": count, "overlay": overlay}


def _images(
    args: argparse.Namespace, predictor: Predictor, extras: Extras, found: list
) -> tuple[int, dict]:
    from liteseg_plugin.inference import bulk

    shard = bulk.Shard.parse(args.shard or "0/1")
    summary = bulk.segment_in_bulk(
        predictor, found, args.save_dir, extras=extras, shard=shard, **_bulk_options(args)
    )
    print(summary.text())
    return len(summary.done), summary.to_json()


def _bulk_options(args: argparse.Namespace) -> dict[str, Any]:
    from liteseg_plugin.system.progress import progress_bar

    skip = args.on_error == "skip"
    return {"resume": args.resume, "skip_errors": skip, "progress": progress_bar}


def _speed(
    args: argparse.Namespace, predictor: Predictor, unit: str, count: int, seconds: float
) -> dict:
    """Print how fast images or frames were segmented, and return it."""
    from liteseg_plugin.errors import printable
    from liteseg_plugin.system.parallel import per_second

    rate, times = per_second(count, seconds), [*predictor.engine_ms]
    latency = median(times[1:] or times) if times else None
    line = f"{count} {unit} in {printable(args.save_dir)}, {rate:.1f} a second"
    if latency is not None:
        line += f"; {predictor.runtime} alone, {args.precision}, median: {latency:.1f} ms"
    print(line)
    return {
        f"{unit}_per_second": rate,
        "engine_ms_median": latency,
        "runtime": predictor.runtime,
        "precision": args.precision,
    }
