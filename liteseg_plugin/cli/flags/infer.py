"""The flags of infer, and which of them go together."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _windows
from liteseg_plugin.cli.flags import shared
from liteseg_plugin.errors import LitesegError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--config", required=True, help="deploy.yaml of the export, or its folder")
    shared.add_images(parser)
    parser.add_argument(
        "--save_dir", default="./output", help="folder for label images and overlays"
    )
    shared.add_runtime(parser)
    shared.add_device(parser)
    shared.add_precision(parser)
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
    shared.add_bands(parser)
    _windows.add_tiles(parser)
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
    _add_ray(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_ray(parser: argparse.ArgumentParser) -> None:
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


def refuse_what_does_not_go_together(args: argparse.Namespace, is_video: bool) -> None:
    """Refuse flags that exclude or need each other.

    Raises:
        LitesegError: It names the flags.
    """
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
