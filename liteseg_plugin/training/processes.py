"""The processes of ``paddle.distributed.launch``, and what they agree on."""

from __future__ import annotations

import math
from typing import Any

import paddle
from paddle import nn
from paddle.io import Dataset

from liteseg_plugin.errors import DataError


def count() -> int:
    """Return the number of processes that train together."""
    return paddle.distributed.ParallelEnv().nranks


def is_main() -> bool:
    """Tell whether this is the process that writes logs and checkpoints."""
    return paddle.distributed.ParallelEnv().local_rank == 0


def gather(value: Any) -> list:
    """Return the value of each process; all processes wait for each other."""
    if count() == 1:
        return [value]
    values: list = []
    paddle.distributed.all_gather_object(values, value)
    return values


def share_buffers(model: nn.Layer) -> None:
    """Copy the main process's buffers: without SyncBatchNorm each has its own statistics."""
    if count() > 1:
        for buffer in model.buffers():
            paddle.distributed.broadcast(buffer, src=0)


def check_batch_is_filled(dataset: Dataset, batch_size: int) -> None:
    """Refuse to wait forever for the first batch.

    PaddleSeg drops the last batch of an epoch if it is not complete.

    Raises:
        DataError: If the images per process do not fill a batch.
    """
    if math.ceil(len(dataset) / count()) < batch_size:
        raise DataError(
            f"{len(dataset)} training images do not fill one batch of {batch_size} in each of "
            f"{count()} process(es); lower --batch_size or add images"
        )
