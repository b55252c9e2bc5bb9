"""A model card beside weights, as the Hugging Face hub reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from liteseg_plugin.errors import WeightsError, printable
from liteseg_plugin.evaluation.result import Evaluation
from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.training.run import TrainedRun
from liteseg_plugin.visualization.html import percent
from liteseg_plugin.weights import ReleasedWeights

_USE = """## Use

```shell
pip install liteseg_plugin paddlepaddle safetensors
liteseg val --config {config} --model_path {file}
liteseg export --config {config} --model_path {file} --save_dir exported
```
"""
_LIMITS = """## Limits

- The numbers hold for the images of the evaluation. Other cameras, places, weather and times of day
  give other results; evaluate on your own images before you rely on the model.
- Every pixel gets one of the classes, also a pixel of something that is none of them.
- Not made for decisions on which safety depends without further measures.
"""


def card_path(weights: Path) -> Path:
    """Return where the card of weights goes: ``README.md``, or ``NAME.md`` if there is another.

    Raises:
        WeightsError: If both exist.
    """
    path = weights.with_name("README.md")
    if path.exists():
        path = weights.with_suffix(".md")
    if path.exists():
        raise WeightsError(f"{printable(path)} already exists; rename or delete it")
    return path


def write_card_of_run(run: TrainedRun) -> Path:
    """Write ``README.md``, a model card, beside the weights of a run; return its path."""
    name = run.folder.resolve().name
    parts = [
        f"# {_cell(name)}\n",
        _what(None),
        f"## Evaluation\n\nmIoU {percent(run.miou)} % on the validation images of the config, at "
        f"iteration {run.iteration}. `liteseg val --report` gives the scores of each class.\n",
        f"## Data and recipe\n\n```yaml\n{run.config.read_text(encoding='utf-8')}```\n",
    ]
    path, config = run.weights.with_name("README.md"), run.config.name
    return _write(path, parts, run.weights, name, config=config, miou=run.miou)


def write_card(
    weights: Path, record: ReleasedWeights | None, evaluation: Evaluation | None
) -> Path:
    """Write a model card to :func:`card_path`, and return that.

    Args:
        weights: The file of weights.
        record: The record of released weights, if they are such.
        evaluation: Of ``liteseg val --report``, if there is one.

    Raises:
        WeightsError: As :func:`card_path`.
    """
    name = record.name if record else weights.stem
    config = record.config if record else evaluation.config if evaluation else "CONFIG"
    parts = [f"# {name}\n", _what(record)]
    if record and record.miou is not None:
        parts.append(_of_record(record))
    if evaluation:
        parts.append(_of_report(evaluation))
    miou = evaluation.miou if evaluation else record.miou / 100 if record and record.miou else None
    return _write(card_path(weights), parts, weights, name, record, config, miou)


def _write(
    path: Path,
    parts: list[str],
    weights: Path,
    name: str,
    record: ReleasedWeights | None = None,
    config: str = "CONFIG",
    miou: float | None = None,
) -> Path:
    licence = record.licence if record else "Not stated: write your terms here"
    parts += [f"## Licence\n\n{licence}.\n", _LIMITS, _USE.format(config=config, file=weights.name)]
    head = yaml.safe_dump(_metadata(name, record, miou), sort_keys=False)
    atomic_write(path, f"---\n{head}---\n\n{chr(10).join(parts)}".encode())
    return path


def _metadata(name: str, record: ReleasedWeights | None, miou: float | None) -> dict[str, Any]:
    data = record.dataset if record and record.miou else "the images of the evaluation"
    result = {
        "task": {"type": "image-segmentation", "name": "semantic segmentation"},
        "dataset": {"type": data.lower().replace(" ", "-"), "name": data},
        "metrics": [{"type": "mean_iou", "name": "mIoU", "value": miou}],
    }
    return {
        **({"license": "apache-2.0"} if record else {}),
        "library_name": "paddlepaddle",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "pp-liteseg"],
        "metrics": ["mean_iou"],
        **({"model-index": [{"name": name, "results": [result]}]} if miou is not None else {}),
    }


def _what(record: ReleasedWeights | None) -> str:
    if record is None:
        return "Weights of a network for semantic segmentation, trained with PaddleSeg's recipes.\n"
    return f"Weights of {record.model}, from {record.url}.\n"


def _of_record(record: ReleasedWeights) -> str:
    ms = "-" if record.miou_ms_flip is None else f"{record.miou_ms_flip:.2f}"
    split = "test" if record.dataset == "CamVid" else "val"
    sizes = ["{}x{}".format(*size) for size in (record.train_wh, record.test_wh) if size]
    return (
        f"## Recipe and metrics of its authors\n\nTrained on {record.dataset} ({record.classes} "
        f"classes), {record.iterations} iterations, crop {sizes[0]}; evaluated on {split} at "
        f"{sizes[1]}. Log: {record.log_url}\n\n| mIoU, % | with flip | with scales and flip |\n"
        f"|-|-|-|\n| {record.miou:.2f} | {record.miou_flip:.2f} | {ms} |\n"
    )


def _of_report(evaluation: Evaluation) -> str:
    rows = "".join(
        f"| {_cell(row.info.name)} | {percent(row.iou)} | {percent(row.precision)} "
        f"| {percent(row.recall)} |\n"
        for row in evaluation.class_scores()
    )
    return (
        f"## Evaluation\n\n{evaluation.images} images, run by {_cell(evaluation.runtime)}, config "
        f"`{Path(evaluation.config).name}`: mIoU {percent(evaluation.miou)}, accuracy "
        f"{percent(evaluation.accuracy)}, Dice {percent(evaluation.dice)} (all in %).\n\n"
        f"| Class | IoU | Precision | Recall |\n|-|-|-|-|\n{rows}"
    )


def _cell(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text if c.isprintable())
