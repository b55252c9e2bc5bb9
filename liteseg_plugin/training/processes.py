"""The processes of ``paddle.distributed.launch``, and what they agree on."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
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


def wait_for_others() -> None:
    """Wait until all processes come here; gloo gives up after 30 s in which one does not."""
    if count() > 1:
        paddle.distributed.barrier()


def check_same(facts: Mapping[str, str]) -> None:
    """Refuse to run on hosts that were given different things: values by name.

    Raises:
        TrainingError: If a process has another value; the same error in all of them.
    """
    shares = gather((socket.gethostname(), dict(facts)))
    main_host, expected = shares[0]
    for rank, (host, found) in enumerate(shares):
        others = [
            f"{name} is {found.get(name, 'missing')}, not {expected.get(name, 'missing')}"
            for name in {**expected, **found}
            if found.get(name) != expected.get(name)
        ]
        if others:
            more = f"; and {len(others) - 3} more" if len(others) > 3 else ""
            raise TrainingError(
                f"rank {rank} on host {host} differs from rank 0 on host {main_host}: "
                f"{'; '.join(others[:3])}{more}; start the same on every host"
            )


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
