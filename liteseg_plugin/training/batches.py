"""Training batches in PaddleSeg's order, from any position, augmented as if never interrupted.

Without worker processes samples draw from the global random state, as in PaddleSeg; the state
after each batch travels with it, as the loader is ahead of training. In worker processes each
sample is seeded by itself, so that its augmentation does not depend on which worker reads it.
"""

from __future__ import annotations

import contextlib
import random
import signal
from collections import deque
from collections.abc import Generator
from typing import Any, NamedTuple, cast

import numpy as np
import paddle
from paddle.io import DataLoader, Dataset, DistributedBatchSampler
from paddle.io.dataloader.collate import default_collate_fn

from liteseg_plugin.errors import DataError, LitesegError
from liteseg_plugin.system import heartbeat

_ERROR = "error"  # in place of a batch of which a sample could not be read


class Batch(NamedTuple):
    """A batch of training.

    Attributes:
        data: Tensors by name: ``img`` (N, 3, H, W), ``label`` (N, H, W), at times ``edge``.
        files: The images.
        random_state: That of Python and NumPy after the batch was read.
    """

    data: dict[str, paddle.Tensor]
    files: list[str]
    random_state: dict[str, Any]


class Batches:
    """The batches of a training set for this process.

    ``seed`` is what samples are seeded by where there are worker processes.
    """

    def __init__(self, dataset: Dataset, batch_size: int, num_workers: int, seed: int) -> None:
        self.seed = seed
        self._dataset = dataset
        self._num_workers = num_workers
        self._sampler = DistributedBatchSampler(dataset, batch_size, shuffle=True, drop_last=True)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._sampler)

    def start(self, position: int) -> Generator[Batch, None, None]:
        """Yield batches without end.

        Args:
            position: Number of batches used before, in all epochs.

        Raises:
            LitesegError: When the turn comes to a batch of which a sample cannot be read.
        """
        epoch, skipped = divmod(position, len(self))
        while True:
            self._sampler.set_epoch(epoch)
            yield from self._read([*self._sampler][skipped:], epoch)
            epoch, skipped = epoch + 1, 0

    def _read(self, batches: list[list[int]], epoch: int) -> Generator[Batch, None, None]:
        states: deque[dict[str, Any]] = deque()

        def collate(samples: list[dict]) -> dict:  # in the thread that reads
            batch = _collate(samples)
            states.append(random_state())
            return batch

        seeds = self.seed if self._num_workers else None
        before = random_state()
        loader: Any = DataLoader(
            _Samples(self._dataset, seeds),
            batch_sampler=cast(Any, [[(epoch, index) for index in batch] for batch in batches]),
            collate_fn=cast(Any, _collate if self._num_workers else collate),
            num_workers=self._num_workers,
            worker_init_fn=_leave_interrupts_to_the_parent,
        )
        iterator: Any = iter(loader)
        if self._num_workers:
            set_random_state(before)  # it draws a seed, which nobody uses
        try:
            for data, indices in zip(iterator, batches):
                if _ERROR in data:
                    raise data[_ERROR]
                state = random_state() if self._num_workers else states.popleft()
                yield Batch(data, [self._file(index) for index in indices], state)
        finally:
            # Its thread and processes, which are ahead of training, hold it: it never goes alone.
            iterator._try_shutdown_all()

    def _file(self, index: int) -> str:
        files = getattr(self._dataset, "file_list", None)
        return str(files[index][0]) if files else f"sample {index}"


class _Samples(Dataset):
    """Samples by epoch and index; an error in reading one is passed on instead.

    Raised in a thread or a worker process of Paddle's loader, it would never reach the main thread.
    Augmentation follows from ``seed``, epoch and index, or, if that is None, from the global random
    state.
    """

    def __init__(self, dataset: Dataset, seed: int | None) -> None:
        self._dataset = dataset
        self._seed = seed

    def __getitem__(self, key: Any) -> dict:
        epoch, index = key
        heartbeat.tick()
        if self._seed is not None:
            words = np.random.SeedSequence((self._seed, epoch, index)).generate_state(4)
            random.seed(words.tobytes())
            np.random.seed(words)
        try:
            return self._dataset[index]
        except Exception as error:
            return {_ERROR: sample_error(error)}

    def __len__(self) -> int:
        return len(self._dataset)


def _collate(samples: list[dict]) -> dict:
    for sample in samples:
        if _ERROR in sample:
            # The loader takes a batch without an array for the end of the data.
            return {**sample, "img": np.zeros(1, np.float32)}
    return default_collate_fn(samples)


def sample_error(error: Exception) -> LitesegError:
    """Return what went wrong with a sample as an error that a worker process can hand over."""
    if isinstance(error, LitesegError):
        return error
    described = DataError(f"cannot read a sample: {type(error).__name__}: {error}")
    described.__cause__ = error
    return described


def _leave_interrupts_to_the_parent(worker: int) -> None:
    # Ctrl-C reaches every process of a terminal; training still needs its next batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def random_state() -> dict[str, Any]:
    """Return the random state of Python and NumPy, as values that JSON keeps exactly."""
    version, words, gauss = random.getstate()
    state: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = state
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, keys.tolist(), position, has_gauss, cached],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what :func:`random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))


def paddle_random_state() -> list:
    """Return the random state of Paddle's generators, as values that JSON keeps.

    Paddle 2.6 does not expose the state of its CPU generator; PP-LiteSeg does not use it.
    """
    return [state.__getstate__() for state in paddle.get_rng_state()]


def set_paddle_random_state(state: list) -> None:
    """Restore what :func:`paddle_random_state` returned, if there are as many devices."""
    restored = []
    for current, values in zip(paddle.get_rng_state(), state):
        kind = type(current)
        restored.append(kind.__new__(kind))
        restored[-1].__setstate__(tuple(values))
    if len(restored) == len(state):
        with contextlib.suppress(ValueError):  # the record has fewer devices
            paddle.set_rng_state(restored)
