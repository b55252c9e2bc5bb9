"""How a network sees an image: scales, flips, sliding windows and tiles."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from liteseg_plugin.errors import LitesegError

if TYPE_CHECKING:
    from liteseg_plugin.inference.tiles import Tiling


def add_augmentation(parser: argparse.ArgumentParser, switch: str) -> None:
    """Add the flags of multi-scale, flipped and sliding-window inference.

    ``switch`` is the flag that turns scales and flips on, ``--aug_eval`` or ``--aug_pred``.
    """
    add = parser.add_argument
    add(switch, action="store_true", help="use --scales and the flips, instead of the config's")
    help_text = f"scales of the image, whose results are averaged; needs {switch}"
    add("--scales", nargs="+", type=float, default=[1.0], help=help_text)
    for flip in ("horizontal", "vertical"):
        help_text = f"also use the image flipped in {flip} direction; needs {switch}"
        add(f"--flip_{flip}", action="store_true", help=help_text)
    add("--is_slide", action="store_true", help="infer by a sliding window")
    for flag, what in (("--crop_size", "size"), ("--stride", "step")):
        help_text = f"{what} of the window in pixels; needs --is_slide"
        add(flag, nargs=2, type=int, metavar=("W", "H"), help=help_text)


def add_tiles(parser: argparse.ArgumentParser) -> None:
    """Add ``--tile`` and ``--overlap``."""
    parser.add_argument(
        "--tile",
        nargs=2,
        type=int,
        metavar=("W", "H"),
        help="cut images into tiles of this size, for images of any size; logits are blended "
        "where tiles overlap",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="N",
        help="pixels that neighbouring tiles share (default: an eighth of the shorter side)",
    )


def augmentation(args: argparse.Namespace, switch: str, test_config: dict) -> dict:
    """Return the config's test settings, overridden by the flags of ``add_augmentation``."""
    chosen = dict(test_config)
    if getattr(args, switch):
        chosen["aug_eval"] = True
        for name in ("scales", "flip_horizontal", "flip_vertical"):
            chosen[name] = getattr(args, name)
    tiles = tiling(args)
    if tiles is not None:
        if args.is_slide or chosen.get("aug_eval"):
            raise LitesegError(
                "--tile runs a sliding window of its own, at scale 1: remove it, or "
                "--is_slide, scales and flips"
            )
        step = [tiles.width - tiles.overlap, tiles.height - tiles.overlap]
        chosen.update(is_slide=True, crop_size=[tiles.width, tiles.height], stride=step)
    if args.is_slide:
        if not (args.crop_size and args.stride):
            raise LitesegError("--is_slide needs --crop_size W H and --stride W H")
        for name in ("is_slide", "crop_size", "stride"):
            chosen[name] = getattr(args, name)
    return chosen


def tiling(args: argparse.Namespace) -> Tiling | None:
    """Return the tiles of ``--tile`` and ``--overlap``; None without them.

    Raises:
        LitesegError: If ``--overlap`` stands alone, or a value is impossible.
    """
    from liteseg_plugin.inference.tiles import Tiling

    if args.tile is None:
        if args.overlap is not None:
            raise LitesegError("--overlap needs --tile W H")
        return None
    overlap = min(args.tile) // 8 if args.overlap is None else args.overlap
    width, height = args.tile
    return Tiling(width, height, overlap, show_progress=True)
