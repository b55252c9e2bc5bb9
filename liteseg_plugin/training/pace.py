"""How fast a training would be."""

from __future__ import annotations

import contextlib
import time
from statistics import median

from paddleseg.cvlibs import SegBuilder

from liteseg_plugin.training.batches import Batches
from liteseg_plugin.training.processes import check_batch_is_filled
from liteseg_plugin.training.settings import Settings
from liteseg_plugin.training.step import Stepper

_ITERATIONS = 4  # the first, which is slower, does not count


def seconds_per_iteration(builder: SegBuilder) -> float:
    """Run a few iterations, loading included, and return the median of their seconds.

    The network of the config is trained a little.

    Raises:
        DataError: If the images do not fill a batch, or one cannot be read.
    """
    dataset, batch_size = builder.train_dataset, builder.config.batch_size
    check_batch_is_filled(dataset, batch_size)
    settings = Settings(iters=_ITERATIONS, batch_size=batch_size)
    stepper = Stepper(builder.model, builder.optimizer, builder.loss, None, settings)
    seconds = []
    with contextlib.closing(Batches(dataset, batch_size, 0, 0).start(0)) as stream:
        for number in range(_ITERATIONS):
            started = time.perf_counter()
            float(stepper.step(stream, number + 1).losses[0])  # waits for the device
            seconds.append(time.perf_counter() - started)
    return median(seconds[1:])
