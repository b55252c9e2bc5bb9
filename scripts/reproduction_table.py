"""Print PaddleSeg's tables of the released models, with what ``scripts/reproduce.sh`` measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from liteseg_plugin.weights import RELEASED

_HEAD = (
    "| Model | Backbone | Training Iters | Train Resolution | Test Resolution "
    "| mIoU | mIoU (flip) | mIoU (ms+flip) | Links |\n" + 9 * "|-" + "|"
)
_EVALUATIONS = ("val", "val_flip", "val_ms_flip")


def table(dataset: str, output: Path) -> str:
    """Return the table of a data set, as Markdown.

    Args:
        dataset: ``Cityscapes`` or ``CamVid``.
        output: Has a folder for each configuration, with ``val.json`` and others.
    """
    rows = []
    for released in (entry for entry in RELEASED if entry.dataset == dataset):
        results = (output / released.name / f"{name}.json" for name in _EVALUATIONS)
        sizes = ("x".join(map(str, wh)) for wh in (released.train_wh, released.test_wh) if wh)
        cells = [released.model, released.backbone, str(released.iterations), *sizes]
        cells += [_miou(path) for path in results]
        cells.append(f"[config](configs/pp_liteseg/{released.name}.yml)")
        rows.append(f"|{'|'.join(cells)}|")
    return "\n".join([f"### {dataset}\n", _HEAD, *rows, ""])


def _miou(path: Path) -> str:
    """Return mIoU in percent; ``-`` if it was not measured."""
    if not path.is_file():
        return "-"
    return f"{100 * json.loads(path.read_text(encoding='utf-8'))['miou']:.2f}%"


if __name__ == "__main__":
    for data_set in ("Cityscapes", "CamVid"):
        print(table(data_set, Path(sys.argv[1])))
