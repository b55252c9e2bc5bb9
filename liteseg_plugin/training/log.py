"""What a run writes: PaddleSeg's log lines and VisualDL scalars, and ``metrics.csv``."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import paddle
from paddleseg.utils import TimeAverager, calculate_eta, logger

from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.system.parallel import usable_cpus
from liteseg_plugin.training import processes
from liteseg_plugin.training.batches import Batch
from liteseg_plugin.training.settings import Settings
from liteseg_plugin.training.validation import Score

METRICS = "metrics.csv"


@dataclass(frozen=True)
class Metrics:
    """One row of ``metrics.csv``: of training since the row before it, or of an evaluation.

    Attributes:
        iteration: After which it was written.
        loss: Mean of the losses.
        lr: Learning rate.
        batch_cost: Seconds of one iteration.
        reader_cost: Seconds of waiting for one batch.
        ips: Images a second in one process.
        miou: On the validation set, from 0 to 1.
        accuracy: Share of pixels that are right.
        ema_miou: Of the exponential moving average.
        ema_accuracy: Likewise.
    """

    iteration: int
    loss: float | None = None
    lr: float | None = None
    batch_cost: float | None = None
    reader_cost: float | None = None
    ips: float | None = None
    miou: float | None = None
    accuracy: float | None = None
    ema_miou: float | None = None
    ema_accuracy: float | None = None


class MetricsFile:
    """``metrics.csv`` of a run, written row by row; rows after where it continues are dropped."""

    _columns = tuple(field.name for field in dataclasses.fields(Metrics))

    def __init__(self, save_dir: Path, iteration: int) -> None:
        self._path = save_dir / METRICS
        self._file: TextIO | None = None
        kept = [",".join(self._columns), *self._rows_until(iteration)]
        try:
            atomic_write(self._path, "".join(f"{row}\n" for row in kept).encode())
            self._file = self._path.open("a", encoding="utf-8", newline="")
        except OSError as error:
            self._give_up(error)

    def add(self, metrics: Metrics) -> None:
        """Write a row; if that fails, log it and continue without the file."""
        if self._file is None:
            return
        try:
            csv.writer(self._file, lineterminator="\n").writerow(dataclasses.astuple(metrics))
            self._file.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _rows_until(self, iteration: int) -> list[str]:
        if not self._path.is_file():
            return []
        header, *lines = self._path.read_text(encoding="utf-8").split("\n")
        if header != ",".join(self._columns):
            other = self._path.with_name(f"{METRICS}.old")
            logger.warning(f"{self._path} has other columns: renamed to {other.name}")
            os.replace(self._path, other)
            return []
        # The last is empty, or what a kill left of a row.
        return [line for line in lines[:-1] if _iteration_of(line) <= iteration]

    def _give_up(self, error: OSError) -> None:
        logger.warning(f"Cannot write {self._path} ({error}): training continues without it")
        with contextlib.suppress(OSError):  # closing writes what is left
            self.close()
        self._file = None


def _iteration_of(row: str) -> float:
    """Return the iteration of a row, infinity for what is not a row."""
    number = row.split(",")[0]
    return int(number) if number.isdecimal() else math.inf


class RunLog:
    """Log lines, VisualDL scalars and ``metrics.csv`` of a run, which continues at an iteration.

    Attributes:
        window: Losses since the last log line, as :class:`state.State` holds them.
    """

    def __init__(self, settings: Settings, iteration: int, window: list[list[float]]) -> None:
        self.window = window
        self._settings = settings
        self._batch_cost, self._reader_cost = TimeAverager(), TimeAverager()
        self._said_it_waits = False
        self._writer, self._metrics = None, None
        if processes.is_main():
            self._metrics = MetricsFile(Path(settings.save_dir), iteration)
            if settings.use_vdl:
                from visualdl import LogWriter

                self._writer = LogWriter(settings.save_dir)

    def timed(self, stream: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches, and record the waiting time of each."""
        while True:
            start = time.time()
            batch = next(stream)
            self._reader_cost.record(time.time() - start)
            yield batch

    def record(self, seconds: float) -> None:
        """Record the time of an iteration."""
        settings = self._settings
        images = settings.batch_size * settings.gradient_accumulation_steps
        self._batch_cost.record(seconds, num_samples=images)

    def train(self, iteration: int, epoch: int, lr: float) -> None:
        """Write the iterations since the last log line."""
        means = [sum(values) / len(self.window) for values in zip(*self.window)]
        batch, reader = self._batch_cost.get_average(), self._reader_cost.get_average()
        ips = self._batch_cost.get_ips_average()
        remaining = self._settings.iters - iteration
        logger.info(
            f"[TRAIN] epoch: {epoch}, iter: {iteration}/{self._settings.iters}, "
            f"loss: {means[0]:.4f}, lr: {lr:.6f}, batch_cost: {batch:.4f}, "
            f"reader_cost: {reader:.5f}, ips: {ips:.4f} samples/sec "
            f"| ETA {calculate_eta(remaining, batch)}"
        )
        self._warn_of_waiting(batch, reader)
        scalars = {"loss": means[0], "lr": lr, "batch_cost": batch, "reader_cost": reader}
        metrics = Metrics(iteration, **scalars, ips=ips)
        if len(means) > 2:
            scalars.update({f"loss_{i}": mean for i, mean in enumerate(means[1:])})
        self._write(metrics, "Train", scalars)
        self.window.clear()
        self._batch_cost.reset()
        self._reader_cost.reset()

    def evaluation(self, iteration: int, score: Score, ema: Score | None) -> None:
        """Write an evaluation of the network and of its moving average."""
        scalars = {"mIoU": score.miou, "Acc": score.accuracy}
        metrics = Metrics(iteration, miou=score.miou, accuracy=score.accuracy)
        if ema is not None:
            scalars.update(Ema_mIoU=ema.miou, Ema_Acc=ema.accuracy)
            metrics = dataclasses.replace(metrics, ema_miou=ema.miou, ema_accuracy=ema.accuracy)
        self._write(metrics, "Evaluate", scalars)

    def close(self) -> None:
        """Close the files."""
        for file in (self._metrics, self._writer):
            if file is not None:
                file.close()

    def _warn_of_waiting(self, batch: float, reader: float) -> None:
        waits = reader * self._settings.gradient_accumulation_steps / batch
        if waits > 0.2 and not self._said_it_waits:
            self._said_it_waits = True
            logger.info(
                f"{waits:.0%} of the time went into waiting for images; fast_loading and cache_gb "
                f"of train_dataset help, and --num_workers up to "
                f"{max(usable_cpus() // processes.count(), 1)}"
            )

    def _write(self, metrics: Metrics, group: str, scalars: dict[str, float]) -> None:
        if self._metrics is not None:
            self._metrics.add(metrics)
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(f"{group}/{name}", value, metrics.iteration)


def log_cpu_use() -> None:
    """Log how many cores training uses on a CPU, and how to use more."""
    if not paddle.get_device().startswith("cpu"):
        return
    cores, threads = usable_cpus(), os.environ.get("OMP_NUM_THREADS", "1")
    path = os.environ.get("MKL_DEBUG_CPU_TYPE")
    chosen = f", MKL_DEBUG_CPU_TYPE={path}" if path else ""
    logger.info(
        f"CPU: {processes.count()} process(es) of {threads} thread(s) on {cores} cores{chosen}. "
        "To use more cores, start more processes: "
        "liteseg launch --nproc_per_node N train ..."
    )
