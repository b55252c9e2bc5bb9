"""Segment images with an exported model; takes the flags of PaddleSeg's infer.py."""

from __future__ import annotations

import argparse
from time import perf_counter

from liteseg_plugin.cli import _segment
from liteseg_plugin.cli.flags import windows
from liteseg_plugin.cli.flags.infer import add_arguments, refuse_what_does_not_go_together

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

    tiling = windows.tiling(args)
    is_video = frames.is_video(args.image_path)
    refuse_what_does_not_go_together(args, is_video)
    extras = pipeline.Extras(
        args.save_confidence, args.save_polygons, args.min_confidence, args.geotiff
    )
    exported = ExportedModel.read(args.config)
    exported = replace(exported, transforms=showing(exported.transforms, args.bands))
    choice = choose(exported, args.runtime, args.device, args.precision)
    if args.ray:
        return _segment.segment_on_ray(args, choice.runtime, extras)
    found = [] if is_video else images.find_images(args.image_path, args.separator)
    print(choice.text, flush=True)
    predictor = Predictor(
        exported, choice.runtime, args.device, args.cpu_threads, args.precision, tiling
    )
    if tiling is not None:
        print(tiled.describe(predictor, tiling), flush=True)
    started = perf_counter()
    if is_video:
        unit, (count, document) = "frames", _segment.segment_video(args, predictor, extras)
    else:
        unit, (count, document) = "images", _segment.segment_images(args, predictor, extras, found)
    return {
        **document,
        **_segment.report_speed(args, predictor, unit, count, perf_counter() - started),
    }
