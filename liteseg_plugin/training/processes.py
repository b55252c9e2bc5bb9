"""The processes of ``paddle.distributed.launch``, and what they agree on."""

from __future__ import annotations

import math
from typing import Any

import paddle
from paddle import nn
from paddle.io import Dataset

from liteseg_plugin.errors import DataError, TrainingError


def count() -> int:
    """Return the number of processes that train together."""
    return paddle.distributed.ParallelEnv().nranks


def is_main() -> bool:
    """Tell whether this is the process that writes logs and checkpoints."""
    return paddle.distributed.ParallelEnv().local_rank == 0


def connect() -> None:
    """Let the processes talk to each other, unless they do so already."""
    if count() > 1 and not paddle.distributed.is_initialized():
        paddle.distributed.init_parallel_env()


def gather(value: Any) -> list:
    """Return the value of each process; all processes wait for each other."""
    if count() == 1:
        return [value]
    values: list = []
    paddle.distributed.all_gather_object(values, value)
    return values


def share_statistics(model: nn.Layer) -> None:
    """Copy what is not trained from the main process: statistics of batch norm, and buffers.

    Without SyncBatchNorm each process has its own. Paddle keeps them as frozen parameters.
    """
    if count() > 1:
        frozen = [value for value in model.parameters() if value.stop_gradient]
        for value in [*frozen, *model.buffers()]:
            paddle.distributed.broadcast(value, src=0)


def check_same_start(iteration: int) -> None:
    """Refuse to train if hosts that do not share a folder found different checkpoints in it.

    Raises:
        TrainingError: If a process resumes from another iteration.
    """
    starts = sorted(set(gather(iteration)))
    if len(starts) > 1:
        found = " and ".join(map(str, starts))
        raise TrainingError(
            f"processes resume from iterations {found}: every host needs the same checkpoint; "
            "share --save_dir among the hosts, or copy the checkpoint to each"
        )


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
