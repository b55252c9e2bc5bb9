"""What infer segments: images, a video, or images in processes of Ray; and how fast it was."""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from liteseg_plugin.inference.pipeline import Extras
    from liteseg_plugin.inference.predictor import Predictor


def segment_on_ray(args: argparse.Namespace, runtime: str, extras: Extras) -> dict:
    """Segment images in several processes; return what the command prints as JSON."""
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


def segment_video(
    args: argparse.Namespace, predictor: Predictor, extras: Extras
) -> tuple[int, dict]:
    """Segment a video; return the number of frames, and what the command prints as JSON."""
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


def segment_images(
    args: argparse.Namespace, predictor: Predictor, extras: Extras, found: list
) -> tuple[int, dict]:
    """Segment images; return their number, and what the command prints as JSON."""
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


def report_speed(
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
