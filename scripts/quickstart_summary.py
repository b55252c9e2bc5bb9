"""Print the numbers of the quick start, and write the picture of its results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from liteseg_plugin.datasets import camvid
from liteseg_plugin.visualization.overlay import legend_bar, overlay, side_by_side, write_image


def main(output: Path, dataset: Path) -> None:
    """Summarise a run of the quick start.

    Args:
        output: Its output folder, with metrics.json, infer.json and predictions/.
        dataset: The scenes it was evaluated on.
    """
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    inference = json.loads((output / "infer.json").read_text(encoding="utf-8"))
    classes = camvid.CLASSES
    rows = []
    for paths in inference["images"][:3]:
        image = cv2.imread(paths["image"])
        truth = np.asarray(Image.open(dataset / "annot" / Path(paths["image"]).name))
        guess = np.asarray(Image.open(paths["label"]))
        panels = [image, overlay(image, truth, classes)]
        panels.append(overlay(image, guess, classes))
        rows.append(side_by_side(panels, ("scene", "truth", "PP-LiteSeg-T"), scale=2))
    picture = output / "overlay.png"
    rows.append(legend_bar(classes, rows[0].shape[1]))
    write_image(picture, cv2.vconcat(rows))

    print(f"\n  mIoU          {metrics['miou']:.2%} on {metrics['images']} held-out scenes")
    for entry, iou in zip(classes, metrics["class_iou"]):
        print(f"    {entry.name:12}{iou:.2%}")
    print(f"  latency       {inference['engine_ms_median']:.1f} ms per image (Paddle Inference)")
    print(f"  exported      {output / 'exported'}")
    print(f"  look at       {picture.resolve()}")
    print(f"  all scenes    {(output / 'predictions' / 'added_prediction').resolve()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
