"""Flags about images: what is segmented, and which of its channels."""

from __future__ import annotations

import argparse


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add ``--image_path`` and ``--separator`` of what is segmented."""
    add = parser.add_argument
    add(
        "--image_path",
        required=True,
        help="an image, a folder, a list file, a video file, a camera (camera:0), or a stream "
        "(rtsp://..., http://..., tcp://...)",
    )
    add("--separator", help="separator of image and label in a list file (default: white space)")


def add_channels(parser: argparse.ArgumentParser) -> None:
    """Add ``--channels``."""
    channels = "number of channels to read of an image (default: those of most images)"
    parser.add_argument("--channels", type=int, help=channels)


def add_bands(parser: argparse.ArgumentParser) -> None:
    """Add ``--bands``."""
    parser.add_argument(
        "--bands",
        nargs=3,
        type=int,
        metavar=("R", "G", "B"),
        help="channels, from 0, that overlays show as red, green and blue (default: shown_bands)",
    )
