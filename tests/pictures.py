"""Pictures that tests write."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_images(folder: Path, number: int, size_hw: tuple[int, int] = (64, 96)) -> list[Path]:
    """Write smooth pictures, and return their paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for seed in range(number):
        coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        paths.append(folder / f"{seed}.png")
        cv2.imwrite(str(paths[-1]), cv2.resize(coarse, size_hw[::-1]))
    return paths
