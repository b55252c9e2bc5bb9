"""The training loop behind ``liteseg train``: PaddleSeg's steps, made safe.

It computes what ``paddleseg.core.train`` computes (a test holds the two against each other) and
writes the same log lines, VisualDL scalars and folders. What PaddleSeg's loop could not be taught
from outside: checkpoints are complete or absent and hold everything, the sampler goes on in the
middle of an epoch, the best model is never replaced by a worse one, a loss that is no number
stops, signals save first, and gradients can be accumulated.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import paddle
from paddle import nn
from paddle.distributed import fleet
from paddle.io import Dataset
from paddleseg import core
from paddleseg.utils import (
    TimeAverager,
    calculate_eta,
    init_ema_params,
    logger,
    train_profiler,
    update_ema_model,
)

from liteseg_plugin.errors import TrainingError
from liteseg_plugin.integration import patches
from liteseg_plugin.runtimes.base import usable_cpus
from liteseg_plugin.training import batches, checkpoint
from liteseg_plugin.training.checkpoint import Best
from liteseg_plugin.weights import load_weights

# `paddleseg.core.train` is the function; the module of that name is where loss_computation lives.
_paddleseg_loop = import_module("paddleseg.core.train")

# As in PaddleSeg's loop.
_AMP_LISTS = {
    "custom_white_list": {"elementwise_add", "batch_norm", "sync_batch_norm"},
    "custom_black_list": {"bilinear_interp_v2"},
}


@dataclass(frozen=True)
class Settings:
    """How to train; names and meanings are those of PaddleSeg's ``tools/train.py``.

    Attributes:
        iters: Optimiser steps.
        batch_size: Images of one forward pass in one process.
        save_dir: Where checkpoints go.
        resume_model: The checkpoint to go on from, as :func:`checkpoint.prepare` gives it.
        save_interval: Steps between checkpoints, each evaluated if there is a validation set.
        log_iters: Steps between log lines.
        num_workers: Worker processes of the data loader.
        use_vdl: Whether to write VisualDL scalars.
        use_ema: Whether to keep an exponential moving average of the weights.
        keep_checkpoint_max: How many checkpoints stay; 0 for all.
        early_stop_intervals: Stop after so many evaluations below the best in a row.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        amp_level: ``O1`` (chosen operators in low precision) or ``O2`` (nearly all).
        gradient_accumulation_steps: Forward passes of one step.
        profiler_options: Of PaddleSeg's profiler.
        to_static_training: Whether to compile the network.
        seed: What samples are seeded by where worker processes read them.
    """

    iters: int
    batch_size: int
    save_dir: str = "output"
    resume_model: Path | None = None
    save_interval: int = 1000
    log_iters: int = 10
    num_workers: int = 0
    use_vdl: bool = False
    use_ema: bool = False
    keep_checkpoint_max: int = 5
    early_stop_intervals: int | None = None
    precision: str = "fp32"
    amp_level: str = "O1"
    gradient_accumulation_steps: int = 1
    profiler_options: str | None = None
    to_static_training: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would never end, or never begin."""
        names = ("iters", "batch_size", "save_interval", "log_iters", "gradient_accumulation_steps")
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Interrupted(KeyboardInterrupt):
    """A signal ended training; ``checkpoint`` is where it goes on."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(str(checkpoint))
        self.checkpoint = checkpoint


def train(
    model: nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    losses: dict,
    train_dataset: Dataset,
    settings: Settings,
    val_dataset: Dataset | None = None,
    test_config: dict | None = None,
) -> None:
    """Train a network, in one process or in each of those of ``paddle.distributed.launch``.

    Args:
        model: The network.
        optimizer: Its optimiser.
        losses: ``types`` and ``coef`` of each of its outputs, as PaddleSeg builds them.
        train_dataset: Images and labels.
        settings: How to train.
        val_dataset: Evaluated at every checkpoint, to keep the best one.
        test_config: Further arguments of PaddleSeg's ``evaluate``.

    Raises:
        DataError: If the images do not fill one batch, or one cannot be used.
        TrainingError: If the loss is no number, the disk is full, or the device does not know the
            precision.
        WeightsError: If a checkpoint cannot be resumed.
        Interrupted: After SIGINT or SIGTERM, once a checkpoint is written.
    """
    _Run(model, optimizer, losses, train_dataset, settings, val_dataset, test_config or {}).go()


class _Step(NamedTuple):
    """What is remembered of a step until its losses are read from the device."""

    iteration: int
    losses: list[paddle.Tensor]  # the sum, then that of each output, each of one element
    files: list[str]


class _Run:
    def __init__(
        self,
        model: nn.Layer,
        optimizer: paddle.optimizer.Optimizer,
        losses: dict,
        train_dataset: Dataset,
        settings: Settings,
        val_dataset: Dataset | None,
        test_config: dict,
    ) -> None:
        environment = paddle.distributed.ParallelEnv()
        self.settings = settings
        self.processes, self.is_main = environment.nranks, environment.local_rank == 0
        self.save_dir = Path(settings.save_dir)
        self.save_dir.mkdir(parents=True, exist_ok=True)
        self.losses, self.val_dataset, self.test_config = losses, val_dataset, test_config
        self.model = model
        patches.check_batch_is_filled(train_dataset, settings.batch_size)
        _check_precision(settings.precision)
        if self.processes > 1:
            fleet.init(is_collective=True)

        self.ema_model = _frozen_copy(model) if settings.use_ema else None
        self.scaler = None
        if settings.precision == "fp16":
            self.scaler = paddle.amp.GradScaler(init_loss_scaling=1024)
        seed = random.SystemRandom().getrandbits(31) if settings.seed is None else settings.seed
        self.batches = batches.Batches(
            train_dataset, settings.batch_size, settings.num_workers, seed
        )
        self.iteration = 0
        # In a folder that training goes on in, there may be one of after the checkpoint.
        self.best = checkpoint.read_best(self._best_weights.parent)
        self.best_ema = checkpoint.read_best(self._best_ema_weights.parent)
        self.evaluations_below_best = 0
        self.window: list[list[float]] = []  # losses since the last log line, as in _Step
        self.said_it_waits = False
        self.unread: list[_Step] = []
        if settings.resume_model is not None:
            self._resume(settings.resume_model, optimizer)
        elif self.ema_model is not None:
            init_ema_params(self.ema_model, self.model)

        model.train()
        if settings.precision != "fp32" and settings.amp_level == "O2":
            self.model, optimizer = paddle.amp.decorate(
                model, optimizer, level="O2", dtype=self._amp_dtype, save_dtype="float32"
            )
        self.optimizer, self.network = optimizer, self.model
        if self.processes > 1:
            self.optimizer = fleet.distributed_optimizer(optimizer)
            self.network = fleet.distributed_model(self.model)
        if settings.to_static_training:
            self.model = paddle.jit.to_static(self.model)
            self.network = self.network if self.processes > 1 else self.model
        self.log_writer = None
        if settings.use_vdl and self.is_main:
            from visualdl import LogWriter

            self.log_writer = LogWriter(settings.save_dir)

    # --- the loop --------------------------------------------------------------------------------

    def go(self) -> None:
        """Train to the end."""
        settings = self.settings
        _log_cpu_use(self.processes)
        self._rate_known_best_model()
        if self.iteration >= settings.iters:
            logger.info(f"Iteration {self.iteration} of {settings.iters}: nothing left to train")
        batch_cost, reader_cost = TimeAverager(), TimeAverager()
        passes = settings.gradient_accumulation_steps
        waits_anyway = paddle.get_device().startswith("cpu")
        stream = self.batches.start(self.iteration * passes)
        with contextlib.closing(stream), _SignalsDeferred() as signals:
            while self.iteration < settings.iters:
                start = time.time()
                self.iteration += 1
                lr = self._step(stream, reader_cost)
                train_profiler.add_profiler_step(settings.profiler_options)
                logs = self.iteration % settings.log_iters == 0
                ends = self.iteration == settings.iters
                saves = ends or self.iteration % settings.save_interval == 0
                stops = False
                if waits_anyway or logs or saves:
                    stops = self._read_losses_and_agree(signals.received)
                # After reading, which waits for what a GPU has still to do.
                batch_cost.record(time.time() - start, num_samples=settings.batch_size * passes)
                if logs:
                    epoch = (self.iteration - 1) * passes // len(self.batches) + 1
                    self._log(epoch, lr, batch_cost, reader_cost)
                if self.ema_model is not None:
                    update_ema_model(self.ema_model, self.model, step=self.iteration)
                if saves or stops:
                    self._check_weights()
                stops_early = saves and self._evaluate_and_keep_best()
                if saves or stops:
                    self._save()
                if stops and not ends:
                    raise Interrupted(self._folder())
                if stops_early:
                    break
        if self.log_writer is not None:
            self.log_writer.close()

    def _step(self, stream: Iterator[batches.Batch], reader_cost: TimeAverager) -> float:
        """Make one optimiser step and return the learning rate that it used."""
        passes = self.settings.gradient_accumulation_steps
        sums: list[paddle.Tensor] = []
        files: list[str] = []
        for i in range(passes):
            start = time.time()
            self.batch = next(stream)
            reader_cost.record(time.time() - start)
            files += self.batch.files
            # Gradients are exchanged once a step, with the last pass.
            alone = self.processes > 1 and i < passes - 1
            with self.network.no_sync() if alone else contextlib.nullcontext():
                values = self._backward(self.batch.data, passes)
            sums = [a + b for a, b in zip(sums, values)] if sums else values
        self.unread.append(_Step(self.iteration, sums, files))

        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        lr = self.optimizer.get_lr()
        schedule = self.optimizer._learning_rate
        if isinstance(schedule, paddle.optimizer.lr.ReduceOnPlateau):
            schedule.step(sums[0])
        elif isinstance(schedule, paddle.optimizer.lr.LRScheduler):
            schedule.step()
        self.model.clear_gradients()
        return lr

    def _backward(self, data: dict[str, paddle.Tensor], passes: int) -> list[paddle.Tensor]:
        """Add a batch's gradients; return the loss and that of each output, detached."""
        labels = data["label"].astype("int64")
        edges = data["edge"].astype("int64") if "edge" in data else None
        with self._autocast():
            logits = self.network(data["img"])
            if hasattr(self.model, "loss_computation"):
                parts = self.model.loss_computation(logits, self.losses, data)
            else:
                parts = _paddleseg_loop.loss_computation(
                    logits_list=logits, labels=labels, edges=edges, losses=self.losses
                )
            loss = sum(parts)
        if passes > 1:
            loss, parts = loss / passes, [part / passes for part in parts]
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return [value.detach().astype("float32") for value in (loss, *parts)]

    @property
    def _amp_dtype(self) -> str:
        return {"fp16": "float16", "bf16": "bfloat16"}[self.settings.precision]

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.settings.precision == "fp32":
            return contextlib.nullcontext()
        return paddle.amp.auto_cast(
            level=self.settings.amp_level, dtype=self._amp_dtype, **_AMP_LISTS
        )

    # --- what the processes agree on -------------------------------------------------------------

    def _read_losses_and_agree(self, interrupted: bool) -> bool:
        """Read the losses since the last time, and tell whether a process was interrupted.

        On a GPU, reading waits for the device. So it is done where a log line or a checkpoint
        needs the numbers, and no checkpoint is written before: weights that a loss of NaN has
        spoilt are never saved. What the gradients' scaler overflows is not looked at: it skips
        such steps by itself.

        Raises:
            TrainingError: If a loss was no finite number, in any process.
        """
        values = paddle.concat([loss.reshape([1]) for step in self.unread for loss in step.losses])
        rows = values.numpy().reshape(len(self.unread), -1).tolist()
        bad = next(
            (
                {"iteration": step.iteration, "losses": [str(v) for v in row], "files": step.files}
                for step, row in zip(self.unread, rows)
                if not all(map(math.isfinite, row))
            ),
            None,
        )
        self.window += rows
        self.unread.clear()
        answers = _gather((interrupted, bad))
        found = [entry for _, entry in answers if entry]
        if found:
            # A process that is wrong spoils the others' weights: theirs come later.
            first = min(entry["iteration"] for entry in found)
            found = [entry for entry in found if entry["iteration"] == first]
            files = [file for entry in found for file in entry["files"]]
            self._stop(f"the loss is {found[0]['losses'][0]}", first, files, found[0]["losses"])
        return any(stops for stops, _ in answers)

    def _check_weights(self) -> None:
        """Refuse to save what a step spoilt whose loss was still a number."""
        finite = [paddle.isfinite(parameter).all() for parameter in self.model.parameters()]
        if not bool(paddle.stack(finite).all()):
            self._stop("weights are no numbers", self.iteration, self.batch.files, [])

    def _stop(self, what: str, iteration: int, files: list[str], losses: list[str]) -> None:
        path = self.save_dir / f"nan_iter_{iteration}.json"
        if self.is_main:
            content = {"iteration": iteration, "losses": losses, "files": files}
            path.write_text(json.dumps(content, indent=2), encoding="utf-8")
        shown = ", ".join(files[:4]) + (", ..." if len(files) > 4 else "")
        known = checkpoint.list_checkpoints(self.save_dir)
        stays = f"the last checkpoint is {known[-1]}" if known else "no checkpoint was written yet"
        raise TrainingError(
            f"{what} at iteration {iteration}, on {shown} (listed in {path}); {stays}. Look at "
            "these images and labels, or lower the learning rate"
        )

    # --- log and evaluation ----------------------------------------------------------------------

    def _log(
        self, epoch: int, lr: float, batch_cost: TimeAverager, reader_cost: TimeAverager
    ) -> None:
        means = [sum(values) / len(self.window) for values in zip(*self.window)]
        remaining = self.settings.iters - self.iteration
        batch, reader = batch_cost.get_average(), reader_cost.get_average()
        logger.info(
            f"[TRAIN] epoch: {epoch}, iter: {self.iteration}/{self.settings.iters}, "
            f"loss: {means[0]:.4f}, lr: {lr:.6f}, batch_cost: {batch:.4f}, "
            f"reader_cost: {reader:.5f}, ips: {batch_cost.get_ips_average():.4f} samples/sec "
            f"| ETA {calculate_eta(remaining, batch)}"
        )
        waits = reader * self.settings.gradient_accumulation_steps / batch
        if waits > 0.2 and not self.said_it_waits:
            self.said_it_waits = True
            logger.info(
                f"{waits:.0%} of the time went into waiting for images; fast_loading and cache_gb "
                f"of train_dataset help, and --num_workers up to "
                f"{max(usable_cpus() // self.processes, 1)}"
            )
        scalars = {"loss": means[0], "lr": lr, "batch_cost": batch, "reader_cost": reader}
        if len(means) > 2:
            scalars.update({f"loss_{i}": mean for i, mean in enumerate(means[1:])})
        self._write_scalars("Train", scalars)
        self.window.clear()
        batch_cost.reset()
        reader_cost.reset()

    def _write_scalars(self, group: str, scalars: dict[str, float]) -> None:
        if self.log_writer is not None:
            for name, value in scalars.items():
                self.log_writer.add_scalar(f"{group}/{name}", value, self.iteration)

    def _evaluate_and_keep_best(self) -> bool:
        """Evaluate, keep the best weights, and tell whether to stop early."""
        if self.val_dataset is None:
            return False
        miou, accuracy = self._evaluate(self.model)
        scalars = {"mIoU": miou, "Acc": accuracy}
        if self.ema_model is not None:
            ema_miou, ema_accuracy = self._evaluate(self.ema_model)
            scalars.update(Ema_mIoU=ema_miou, Ema_Acc=ema_accuracy)
        self.model.train()

        if miou > self.best.miou:
            self.best, self.evaluations_below_best = Best(miou, self.iteration), 0
            self._save_best(self._best_weights, self.model, self.best)
        elif miou < self.best.miou:
            self.evaluations_below_best += 1
        logger.info(
            f"[EVAL] The model with the best validation mIoU ({self.best.miou:.4f}) was saved at "
            f"iter {self.best.iteration}."
        )
        if self.ema_model is not None:
            if ema_miou > self.best_ema.miou:
                self.best_ema = Best(ema_miou, self.iteration)
                self._save_best(self._best_ema_weights, self.ema_model, self.best_ema)
            logger.info(
                f"[EVAL] The EMA model with the best validation mIoU ({self.best_ema.miou:.4f}) "
                f"was saved at iter {self.best_ema.iteration}."
            )
        self._write_scalars("Evaluate", scalars)
        limit = self.settings.early_stop_intervals
        stops = limit is not None and self.evaluations_below_best >= limit
        if stops:
            logger.info(
                f"Early stopping at iter {self.iteration}. The best mean IoU is "
                f"{self.best.miou:.4f}."
            )
        return stops

    def _evaluate(self, model: nn.Layer) -> tuple[float, float]:
        """Return mIoU and accuracy of the weights that the main process would save."""
        if self.processes > 1:  # without SyncBatchNorm each has batch statistics of its own
            for buffer in model.buffers():
                paddle.distributed.broadcast(buffer, src=0)
        workers = min(self.settings.num_workers, 1)
        with self._autocast():
            miou, accuracy, *_ = core.evaluate(
                model, self.val_dataset, num_workers=workers, **self.test_config
            )
        return float(miou), float(accuracy)

    # --- checkpoints -----------------------------------------------------------------------------

    @property
    def _best_weights(self) -> Path:
        return self.save_dir / "best_model" / "model.pdparams"

    @property
    def _best_ema_weights(self) -> Path:
        return self.save_dir / "ema_best_model" / "ema_model.pdparams"

    def _folder(self) -> Path:
        return self.save_dir / f"iter_{self.iteration}"

    def _save_best(self, path: Path, model: nn.Layer, best: Best) -> None:
        if self.is_main:
            checkpoint.save_best(path, model.state_dict(), best)

    def _save(self) -> None:
        """Write a checkpoint; every process leaves when it is complete."""
        random_states = _gather(
            {
                **self.batch.random_state,
                "paddle": batches.paddle_random_state(),
                "samples": self.batches.seed,
            }
        )
        if self.is_main:
            files = {
                "model.pdparams": self.model.state_dict(),
                "model.pdopt": self.optimizer.state_dict(),
            }
            if self.ema_model is not None:
                files["ema_model.pdparams"] = self.ema_model.state_dict()
            scaler = self.scaler.state_dict() if self.scaler else {}
            state = {
                "iteration": self.iteration,
                "best": self.best,
                "best_ema": self.best_ema,
                "evaluations_below_best": self.evaluations_below_best,
                "window": self.window,
                "scaler": {k: getattr(v, "tolist", lambda v=v: v)() for k, v in scaler.items()},
                "random": random_states,
            }
            checkpoint.save(self._folder(), files, state)
            checkpoint.prune(self.save_dir, self.iteration, self.settings.keep_checkpoint_max)
        _gather(None)

    def _resume(self, folder: Path, optimizer: paddle.optimizer.Optimizer) -> None:
        self.iteration = checkpoint.iteration_of(folder)
        state = checkpoint.restore(folder, self.model, optimizer)
        lacks = [] if state else ["random state", "best mIoU", "loss scale of fp16"]
        if self.ema_model is not None:
            ema_weights = folder / "ema_model.pdparams"
            if ema_weights.is_file():
                load_weights(self.ema_model, ema_weights)
            else:
                init_ema_params(self.ema_model, self.model)
                lacks.append("EMA, which starts from these weights")
        random_states = state.get("random", [])
        if len(random_states) == self.processes:
            mine = random_states[paddle.distributed.get_rank()]
            batches.set_random_state(mine)
            batches.set_paddle_random_state(mine["paddle"])
            self.batches.seed = mine["samples"]
        elif random_states:
            lacks.append(f"random state of {self.processes} processes ({len(random_states)} wrote)")
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.window = state.get("window", [])
        self.evaluations_below_best = state.get("evaluations_below_best", 0)
        self.best = max(self.best, Best(*state.get("best", Best())))
        self.best_ema = max(self.best_ema, Best(*state.get("best_ema", Best())))
        logger.info(f"Resumed from {folder}, at iteration {self.iteration}")
        if lacks:
            logger.warning(f"Not in {folder}: {'; '.join(lacks)}")

    def _rate_known_best_model(self) -> None:
        """Evaluate a ``best_model`` of PaddleSeg's loop, which notes nowhere how good it is."""
        if self.val_dataset is None or self.best.miou >= 0 or not self._best_weights.is_file():
            return
        logger.info(f"Evaluating {self._best_weights}, as nothing says how good it is")
        model = _frozen_copy(self.model)
        load_weights(model, self._best_weights)
        self.best = Best(self._evaluate(model)[0], -1)


class _SignalsDeferred:
    """Within it, SIGINT and SIGTERM are only noted; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _SignalsDeferred:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.received = True


def _gather(value: Any) -> list:
    """Return what each process gave; all wait for each other."""
    if paddle.distributed.ParallelEnv().nranks == 1:
        return [value]
    values: list = []
    paddle.distributed.all_gather_object(values, value)
    return values


def _frozen_copy(model: nn.Layer) -> nn.Layer:
    copied = copy.deepcopy(model)
    copied.eval()
    for parameter in copied.parameters():
        parameter.stop_gradient = True
    return copied


def _check_precision(precision: str) -> None:
    """Refuse a precision that Paddle would ignore with a warning."""
    if precision == "fp32":
        return
    device = paddle.get_device()
    supported = {
        "fp16": paddle.amp.is_float16_supported,
        "bf16": paddle.amp.is_bfloat16_supported,
    }
    # Paddle says that a CPU knows bfloat16, but trains in float32 there.
    if device.startswith("cpu") or not supported[precision]():
        raise TrainingError(f"--precision {precision} does not work on {device}; use fp32")


def _log_cpu_use(processes: int) -> None:
    if not paddle.get_device().startswith("cpu"):
        return
    cores, threads = usable_cpus(), os.environ.get("OMP_NUM_THREADS", "1")
    path = os.environ.get("MKL_DEBUG_CPU_TYPE")
    chosen = f", MKL_DEBUG_CPU_TYPE={path}" if path else ""
    logger.info(
        f"CPU: {processes} process(es) of {threads} thread(s) on {cores} cores{chosen}. "
        "To use more cores, start more processes: "
        "python -m paddle.distributed.launch --nproc_per_node N ..."
    )
