"""Flags of infer for many images, and for many processes or machines."""

from __future__ import annotations

import argparse


def add_many(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a run over many images."""
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


def add_ray(parser: argparse.ArgumentParser) -> None:
    """Add ``--ray`` and its flags."""
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
