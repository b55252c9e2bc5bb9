"""The flags of infer, and which of them go together."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags import bulk, images, shared, windows
from liteseg_plugin.errors import LitesegError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    add("--config", required=True, help="deploy.yaml of the export, or its folder")
    images.add_images(parser)
    add("--save_dir", default="./output", help="folder for label images and overlays")
    shared.add_runtime(parser)
    shared.add_device(parser)
    shared.add_precision(parser)
    add("--cpu_threads", type=int, help="CPU threads (default: all available)")
    add("--save_labels", action="store_true", help="also write label images of a video's frames")
    add("--show", action="store_true", help="show the overlay of a video in a window")
    add(
        "--save_confidence",
        action="store_true",
        help="also write the probability of each label, as a grey image, of a video's frames too; "
        "needs an export with --output_op confidence",
    )
    add(
        "--min_confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="labels of a smaller probability become 255; needs such an export",
    )
    add("--save_polygons", action="store_true", help="also write outlines, as files of labelme")
    images.add_bands(parser)
    windows.add_tiles(parser)
    add(
        "--geotiff",
        action="store_true",
        help="read images by windows and write GeoTIFFs with their georeference; needs --tile, and "
        "rasterio (the extra geo)",
    )
    bulk.add_many(parser)
    bulk.add_ray(parser)
    add("--json", action="store_true", help="print the result as JSON")


def refuse_what_does_not_go_together(args: argparse.Namespace, is_video: bool) -> None:
    """Refuse flags that exclude or need each other."""
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
