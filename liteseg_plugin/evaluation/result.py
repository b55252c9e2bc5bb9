"""What an evaluation gives, on disk and on the terminal."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import DataError, printable
from liteseg_plugin.metrics.confusion import areas
from liteseg_plugin.visualization.html import percent

NUMBERS_FILE = "metrics.json"
FORMAT = 1
"""Version of ``metrics.json``, which :meth:`Evaluation.read` checks."""

HEADLINE = {
    "miou": "mIoU",
    "accuracy": "Accuracy",
    "kappa": "Kappa",
    "dice": "Dice",
    "precision": "Precision",
    "recall": "Recall",
    "boundary_f1": "Boundary F1",
}
"""The scores of a whole evaluation, by attribute, in the order in which they are shown."""

_COLUMNS = {
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "dice": "Dice",
    "boundary_f1": "boundary F1",
    "share": "of pixels",
}


@dataclass(frozen=True)
class ImageScore:
    """Scores of one image, each 0 to 1, or None where no pixel counts.

    Attributes:
        image: The image's path, relative to the data set if it is in it.
        label: The label's path, likewise.
        miou: Mean IoU over the classes that occur in the image, in truth or prediction.
        accuracy: Share of the pixels that count that are right.
        boundary_f1: Mean boundary F1 over the classes that have a boundary in the image.
    """

    image: str
    label: str
    miou: float | None
    accuracy: float | None
    boundary_f1: float | None


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class, each 0 to 1, as :class:`Evaluation` has them.

    Attributes:
        info: Name and colour.
        occurs: Whether the class occurs in truth or prediction.
        boundary_f1: None where the class has no boundary.
        share: Share of the labelled pixels.
    """

    info: ClassInfo
    occurs: bool
    iou: float
    precision: float
    recall: float
    dice: float
    boundary_f1: float | None
    share: float


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a data set, each 0 to 1, or None where it is not defined.

    Attributes:
        model: The weights or the exported folder.
        runtime: What ran it: the network's class, or the name of a runtime, with the precision
            if it is not float32: ``openvino int8``.
        config: The config file.
        test_config: Scales, flips and sliding window, as in a config.
        classes: The classes, C of them.
        miou: Mean over the classes, like ``dice``, ``precision`` and ``recall``.
        accuracy: Share of the pixels that are right.
        kappa: Cohen's kappa.
        class_iou: One value a class, like ``class_dice``, ``class_precision``, ``class_recall``.
        iou_of_absent: IoU of a class that occurs neither in truth nor in prediction.
        boundary_f1: Mean over the classes.
        class_boundary_f1: Means over the images in which the class has a boundary.
        boundary_tolerance: What a boundary may be off by, as a share of the image's diagonal.
        confusion_matrix: Pixels by true and predicted class, (C + 1, C + 1).
        images: Number of images.
        seconds: Time of the evaluation.
        image_scores: Scores of each image, in the order of the data set.
    """

    model: str
    runtime: str
    config: str
    test_config: dict[str, Any]
    classes: list[ClassInfo]
    miou: float | None
    accuracy: float | None
    kappa: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    class_iou: list[float]
    class_dice: list[float]
    class_precision: list[float]
    class_recall: list[float]
    iou_of_absent: float
    boundary_f1: float | None
    class_boundary_f1: list[float | None]
    boundary_tolerance: float
    confusion_matrix: list[list[int]]
    images: int
    seconds: float
    image_scores: list[ImageScore]

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        document = {field.name: getattr(self, field.name) for field in fields(self)}
        document["classes"] = [entry.to_json() for entry in self.classes]
        document["image_scores"] = [asdict(score) for score in self.image_scores]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Evaluation:
        """Read what :meth:`to_json` returns; other keys are left out.

        Raises:
            KeyError, TypeError, ValueError: If a value is missing or invalid.
        """
        values = {field.name: document[field.name] for field in fields(cls)}
        values["classes"] = [ClassInfo.from_json(entry) for entry in values["classes"]]
        values["image_scores"] = [ImageScore(**score) for score in values["image_scores"]]
        return cls(**values)

    def save(self, folder: Path) -> None:
        """Write ``metrics.json`` to a folder."""
        document = json.dumps({"format": FORMAT, **self.to_json()}, indent=1)
        (folder / NUMBERS_FILE).write_text(document, encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike) -> Evaluation:
        """Read a report: its folder, or the ``metrics.json`` in it.

        Raises:
            DataError: If it is not a report.
        """
        path = Path(path)
        path = path / NUMBERS_FILE if path.is_dir() else path
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            version = document["format"]
            if version == FORMAT:
                return cls.from_json(document)
        except OSError as error:
            raise DataError(
                f"{path} is not a report: {error.strerror}; `liteseg val --report DIR` creates one"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not the metrics.json of a report: {error!r}") from None
        raise DataError(f"{path} has format {version!r}, not {FORMAT}; make the report again")

    def worst_images(self, how_many: int) -> list[int]:
        """Return indices of images, that of lowest mIoU first; without counted pixels, none."""
        ranked = [
            (score.miou, index)
            for index, score in enumerate(self.image_scores)
            if score.miou is not None
        ]
        return [index for _, index in sorted(ranked)[:how_many]]

    def class_scores(self) -> list[ClassScore]:
        """Return the scores by class."""
        _, predicted, labelled = areas(np.array(self.confusion_matrix))
        return [
            ClassScore(
                info=info,
                occurs=bool(predicted[index] + labelled[index] > 0),
                iou=self.class_iou[index],
                precision=self.class_precision[index],
                recall=self.class_recall[index],
                dice=self.class_dice[index],
                boundary_f1=self.class_boundary_f1[index],
                share=float(labelled[index] / max(labelled.sum(), 1)),
            )
            for index, info in enumerate(self.classes)
        ]

    def log_line(self) -> str:
        """Return the line that PaddleSeg's tools/val.py logs, for scripts that read it."""
        scores = (self.miou, self.accuracy, self.kappa, self.dice)
        miou, acc, kappa, dice = (math.nan if score is None else score for score in scores)
        return (
            f"[EVAL] #Images: {self.images} mIoU: {miou:.4f} Acc: {acc:.4f} Kappa: {kappa:.4f} "
            f"Dice: {dice:.4f}"
        )

    def text(self) -> str:
        """Return the scores, overall and by class, as lines for the terminal, in %."""
        rows = self.class_scores()
        names = [printable(row.info.name) for row in rows]
        width = max(map(len, names))
        scores = (f"{name} {percent(getattr(self, key))}" for key, name in HEADLINE.items())
        lines = [f"{self.images} images, in %: {', '.join(scores)}", ""]
        lines += [" " * width + "".join(f"{title:>13}" for title in _COLUMNS.values())]
        for name, row in zip(names, rows):
            cells = (percent(getattr(row, c)) if row.occurs else "-" for c in _COLUMNS)
            lines.append(f"{name:{width}}" + "".join(f"{cell:>13}" for cell in cells))
        return "\n".join(lines)
