"""Repairs of PaddleSeg's losses, training loop and metrics, as records in ``ENTRIES``."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import numpy as np
import paddle
from paddleseg.core import train as _  # noqa: F401 - loads the module of that name
from paddleseg.cvlibs import manager
from paddleseg.models import losses as paddleseg_losses
from paddleseg.utils import metrics

from liteseg_plugin.integration.entry import Entry, wrap
from liteseg_plugin.losses.ohem import OhemCrossEntropyLoss
from liteseg_plugin.metrics.confusion import calculate_area

# `paddleseg.core.train` is the function; the module of that name is where loss_computation lives.
_loop: Any = sys.modules["paddleseg.core.train"]

# --- loss ---------------------------------------------------------------------------------------


def _ohem_raises_type_error() -> bool:
    loss = paddleseg_losses.OhemCrossEntropyLoss(min_kept=1)
    try:
        loss(paddle.zeros([1, 2, 2, 2]), paddle.zeros([1, 2, 2], dtype="int64"))
    except (TypeError, ValueError):
        return True
    return False


def _register_ohem() -> None:
    manager.LOSSES.components_dict[OhemCrossEntropyLoss.__name__] = OhemCrossEntropyLoss


def _cross_entropy_raises_type_error() -> bool:
    loss = paddleseg_losses.CrossEntropyLoss()
    try:
        loss(paddle.zeros([1, 2, 2, 2]), paddle.zeros([1, 2, 2], dtype="int64"))
    except TypeError:
        return True
    return False


def _average_cross_entropy_in_float() -> None:
    def average(
        self: paddle.nn.Layer,
        logit: paddle.Tensor,
        label: paddle.Tensor,
        semantic_weights: paddle.Tensor | None,
        loss: paddle.Tensor,
    ) -> paddle.Tensor:
        labelled = label != self.ignore_index
        counted = labelled if self.avg_non_ignore else paddle.ones_like(labelled)
        counted = counted.astype("float32")
        loss = loss.reshape(counted.shape) * counted
        if semantic_weights is not None:
            loss = loss * semantic_weights
        share = paddle.ones_like(counted)
        if self.weight is not None:
            true_class = paddle.where(labelled, label, paddle.zeros_like(label))
            share = paddle.gather(self.weight, true_class.flatten()).reshape(label.shape)
        if self.top_k_percent_pixels == 1.0:
            return loss.mean() / ((counted * share).mean() + self.EPS)
        hardest = int(self.top_k_percent_pixels * loss.size)
        loss, indices = paddle.topk(loss.flatten(), hardest)
        share = paddle.gather(share.flatten(), indices).detach()
        return loss.mean() / (share.mean() + self.EPS)

    paddleseg_losses.CrossEntropyLoss._post_process_loss = average


def _dice_changes_labels() -> bool:
    label = paddle.full([1, 2, 2], 255, dtype="int64")
    paddleseg_losses.DiceLoss()(paddle.zeros([1, 2, 2, 2]), label)
    return bool((label != 255).any())


def _give_dice_labels_of_its_own() -> None:
    def forward(original: Any, self: Any, logits: Any, labels: paddle.Tensor) -> paddle.Tensor:
        return original(self, logits, labels.clone())

    wrap(paddleseg_losses.DiceLoss, "forward", forward)


def _training_indexes_scalar_losses() -> bool:
    class Net(paddle.nn.Conv2D):
        def forward(self, x: paddle.Tensor) -> Any:
            return [super().forward(x)]

    class OnePixel(paddle.io.Dataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            return {"img": np.ones((3, 1, 1), "float32"), "label": np.zeros((1, 1), "int64")}

    net = Net(3, 2, 1)
    loss = paddle.nn.CrossEntropyLoss(axis=1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _loop.train(
                net,
                OnePixel(),
                optimizer=paddle.optimizer.SGD(0.1, net.parameters()),
                save_dir=folder,
                iters=1,
                batch_size=1,
                log_iters=1,
                losses={"types": [loss], "coef": [1]},
            )
        except IndexError:
            return True
    return False


def _give_losses_one_dimension() -> None:
    def loss_computation(original: Any, *args: Any, **kwargs: Any) -> list[paddle.Tensor]:
        return [loss.reshape([1]) for loss in original(*args, **kwargs)]

    wrap(_loop, "loss_computation", loss_computation)


# --- evaluation ---------------------------------------------------------------------------------


def _area_raises_value_error() -> bool:
    pixel = paddle.zeros([1, 1, 1], dtype="int64")
    try:
        metrics.calculate_area(pixel, pixel, 1)
    except ValueError:
        return True
    return False


def _count_area_in_one_pass() -> None:
    def area(original, pred, label, num_classes, ignore_index=255, **kwargs):
        if any(kwargs.values()):  # use_multilabel, which has no single class a pixel
            return original(pred, label, num_classes, ignore_index, **kwargs)
        return calculate_area(pred, label, num_classes, ignore_index)

    wrap(metrics, "calculate_area", area)


ENTRIES = (
    Entry(
        "ohem-dtype",
        "OhemCrossEntropyLoss in manager.LOSSES",
        "training stops: TypeError, OhemCrossEntropyLoss adds float32 and int64",
        "the plugin's OhemCrossEntropyLoss is registered instead",
        "paddleseg 2.8.0 on Paddle 3",
        _ohem_raises_type_error,
        _register_ohem,
        always=True,
    ),
    Entry(
        "cross-entropy-dtype",
        "CrossEntropyLoss._post_process_loss",
        "training stops: TypeError, CrossEntropyLoss multiplies float32 and int64",
        "its average is computed in float32",
        "paddleseg 2.8.0 on Paddle 3",
        _cross_entropy_raises_type_error,
        _average_cross_entropy_in_float,
    ),
    Entry(
        "dice-labels",
        "DiceLoss.forward",
        "DiceLoss turns ignored pixels into class 0 for losses after it, and stops those before it",
        "it works on a copy of the labels",
        "paddleseg 2.8.0 and develop",
        _dice_changes_labels,
        _give_dice_labels_of_its_own,
    ),
    Entry(
        "scalar-losses",
        "loss_computation of paddleseg.core.train",
        "training stops at its first log line: IndexError, too many indices for a 0-D loss",
        "loss_computation gives losses of shape (1,)",
        "paddleseg 2.8.0 on Paddle 2.6 and 3",
        _training_indexes_scalar_losses,
        _give_losses_one_dimension,
        always=True,
        scripts_only=True,
    ),
    Entry(
        "calculate-area",
        "paddleseg.utils.metrics.calculate_area",
        "evaluation stops: ValueError, 0-D tensors cannot be concatenated (or it is slow)",
        "pixels are counted by one bincount instead of one pass per class",
        "paddleseg 2.8.0 on Paddle 2.6 and 3",
        _area_raises_value_error,
        _count_area_in_one_pass,
        always=True,
    ),
)
"""Repairs that training and evaluation need."""
