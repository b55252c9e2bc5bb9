"""Evaluation by PaddleSeg's ``evaluate``, where a sample that cannot be read is an error."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from paddle import nn
from paddle.io import Dataset
from paddleseg import core
from paddleseg.utils import logger

from liteseg_plugin.errors import DataError
from liteseg_plugin.system import heartbeat
from liteseg_plugin.training import processes
from liteseg_plugin.training.batches import sample_error
from liteseg_plugin.training.settings import Settings


@dataclass(frozen=True)
class Score:
    """Scores on the validation set, each from 0 to 1."""

    miou: float
    accuracy: float


@dataclass(frozen=True)
class Validation:
    """Evaluates networks on a validation set while they are trained, by :func:`evaluate`."""

    dataset: Dataset
    test_config: Mapping[str, Any]
    settings: Settings
    class_names: Sequence[str]

    def __call__(self, model: nn.Layer) -> Score:
        """Evaluate the weights that the main process would save."""
        processes.share_statistics(model)
        workers = min(self.settings.num_workers, 1)
        with self.settings.autocast():
            miou, accuracy, *_ = evaluate(
                model, self.dataset, self.class_names, num_workers=workers, **self.test_config
            )
        return Score(float(miou), float(accuracy))


def evaluate(
    model: nn.Layer, dataset: Dataset, class_names: Sequence[str] = (), **options: Any
) -> tuple:
    """Return what PaddleSeg's ``evaluate`` returns, and log the IoU of each class by its name.

    Args:
        model: The network.
        dataset: A data set of mode ``val``.
        class_names: Of the classes; PaddleSeg logs their numbers in a row.
        options: Further arguments of PaddleSeg's ``evaluate``.

    Raises:
        DataError: If the data set is empty, or a sample cannot be read.
    """
    check_not_empty(dataset)
    samples = _Samples(dataset)
    hook = model.register_forward_pre_hook(cast(Any, lambda *_: samples.raise_error()))
    try:
        scores = core.evaluate(model, samples, **options)
    except Exception:
        samples.raise_error()
        raise
    finally:
        hook.remove()
    if class_names:
        named = (f"{name} {iou:.4f}" for name, iou in zip(class_names, scores[2]))
        logger.info(f"[EVAL] Class IoU by name: {', '.join(named)}")
    return scores


def check_not_empty(dataset: Dataset) -> None:
    """Check that there is something to evaluate on.

    Raises:
        DataError: If the data set is empty.
    """
    if len(dataset) == 0:
        raise DataError("there are no images to evaluate on: the list of val_dataset is empty")


class _Samples(Dataset):
    """Hands over errors of reading: in a thread of Paddle's loader they would be lost.

    In place of a sample that cannot be read there is an empty one. It never counts, as the error
    is raised before the network sees it.
    """

    def __init__(self, dataset: Any) -> None:
        self.num_classes, self.ignore_index = dataset.num_classes, dataset.ignore_index
        self._dataset = dataset
        self._errors: Any = multiprocessing.SimpleQueue()  # from worker processes, too

    def __getitem__(self, index: int) -> dict:
        heartbeat.tick()
        try:
            return self._dataset[index]
        except Exception as error:
            self._errors.put(sample_error(error))
            image, label = np.zeros((3, 32, 32), np.float32), np.zeros((1, 32, 32), np.uint8)
            return {"img": image, "label": label, "trans_info": [], "gt_fields": []}

    def __len__(self) -> int:
        return len(self._dataset)

    def raise_error(self) -> None:
        heartbeat.tick()
        if not self._errors.empty():
            raise self._errors.get()
