"""The data set: scenes in CamVid's layout, in a folder that is complete or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np

from liteseg_plugin.datasets.base import SPLIT_NAMES
from liteseg_plugin.datasets.camvid import CLASS_NAMES
from liteseg_plugin.datasets.toy_street.scene import checked_resolution, render_scene
from liteseg_plugin.system.files import scratch_folder
from liteseg_plugin.system.progress import progress_bar

FORMAT_VERSION: int = 1
RECORD_NAME: str = "toy_street.json"


def _holds(dest: Path, record: dict) -> bool:
    """Tell whether `dest` is a complete copy of the data set that `record` describes."""
    try:
        if json.loads((dest / RECORD_NAME).read_text(encoding="utf-8")) != record:
            return False
        lists = [(dest / f"{split}.txt").read_text(encoding="utf-8") for split in SPLIT_NAMES]
    except (OSError, ValueError):
        return False
    return all((dest / name).is_file() for name in " ".join(lists).split())


def _write_png(path: Path, pixels: np.ndarray) -> None:
    # Not cv2.imwrite, which reports a full disk or a missing folder by a return value only.
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _write(root: Path, record: dict, *, progress: bool) -> None:
    """Renders every scene of `record` into the folder `root`, which must not exist."""
    for folder in ("images", "annot"):
        (root / folder).mkdir(parents=True)
    scenes = [(split, index) for split in SPLIT_NAMES for index in range(record[split])]
    lines: dict[str, list[str]] = {split: [] for split in SPLIT_NAMES}
    for split, index in progress_bar(scenes, desc="Toy Street", unit="scene", disable=not progress):
        # Each scene has its own seed: splits share none, and counts change none.
        rng = np.random.default_rng((record["seed"], SPLIT_NAMES.index(split), index))
        image, label = render_scene(rng, record["resolution_wh"])
        name = f"{split}_{index:04d}.png"
        _write_png(root / "images" / name, image)
        _write_png(root / "annot" / name, label)
        lines[split].append(f"images/{name} annot/{name}\n")
    for split in SPLIT_NAMES:
        (root / f"{split}.txt").write_text("".join(lines[split]), encoding="utf-8")
    (root / "labels.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")
    (root / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def generate(
    dest: str | os.PathLike,
    *,
    train: int = 160,
    val: int = 32,
    test: int = 16,
    resolution_wh: tuple[int, int] = (256, 192),
    seed: int = 2022,
    progress: bool = True,
) -> Path:
    """Writes the data set in CamVid's layout, or keeps it where `dest` already holds it.

    The layout: `images/*.png`, `annot/*.png` (8-bit class indices), `train.txt`, `val.txt` and
    `test.txt` with lines `images/x.png annot/x.png`, `labels.txt`, and `toy_street.json`, the
    record of the arguments. The folder appears under its name only when it is complete.
    The same arguments give the same pixels; OpenCV releases differ in a few on outlines.

    Args:
        dest: folder to make; its parents are made too.
        train: number of scenes to train on.
        val: number of scenes to validate on.
        test: number of scenes to test on.
        resolution_wh: width and height of every scene in pixels.
        seed: scene i of a split depends on the seed, the split and i, and on nothing else.
        progress: show a progress bar.

    Returns:
        `dest` as a `Path`.

    Raises:
        ValueError: a count or the seed is negative or not an integer, no scene is asked for, or
            the resolution is too small.
        FileExistsError: `dest` exists and is not exactly this data set.

    Example:
        >>> root = generate("data/toy_street", train=2, val=1, test=0, progress=False)
        >>> print((root / "val.txt").read_text(), end="")
        images/val_0000.png annot/val_0000.png
    """
    counts = {"train": train, "val": val, "test": test}
    for name, value in {**counts, "seed": seed}.items():
        if not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"{name} {value!r}: must be an integer of at least 0")
    if not any(counts.values()):
        raise ValueError("train 0, val 0, test 0: at least one scene is needed")
    record = {
        "format_version": FORMAT_VERSION,
        **{name: int(count) for name, count in counts.items()},
        "resolution_wh": list(checked_resolution(resolution_wh)),
        "seed": int(seed),
    }

    dest = Path(dest)
    if not os.path.lexists(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(dest.parent, dest.name) as scratch:
            whole = scratch / "whole"
            _write(whole, record, progress=progress)
            try:
                whole.rename(dest)
            except OSError:
                # Another process may have made the same data set in the meantime.
                if not _holds(dest, record):
                    raise
    elif not _holds(dest, record):
        raise FileExistsError(
            f"{dest} exists and is not the Toy Street data set asked for ({record}); "
            f"choose another folder or remove this one"
        )
    return dest
