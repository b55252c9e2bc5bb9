"""The training loop behind ``liteseg train``: PaddleSeg's steps, made safe.

It computes what ``paddleseg.core.train`` computes, bit for bit, and writes the same log lines,
VisualDL scalars and folders. Beyond PaddleSeg's loop: checkpoints are complete or absent and hold
everything, the sampler continues in the middle of an epoch, the best model is never replaced by a
worse one, a loss that is not finite stops training, signals save first, gradients can be
accumulated, and a sample that cannot be read is an error.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import paddle
from paddle import nn
from paddle.distributed import fleet
from paddle.io import Dataset
from paddleseg.utils import init_ema_params, logger, train_profiler, update_ema_model

from liteseg_plugin.system import heartbeat
from liteseg_plugin.training import batches, checkpoint, finite, processes
from liteseg_plugin.training.best import BestWeights, frozen_copy
from liteseg_plugin.training.log import RunLog, log_cpu_use
from liteseg_plugin.training.settings import Settings, check_format, check_precision
from liteseg_plugin.training.signals import Interrupted, deferred
from liteseg_plugin.training.state import State
from liteseg_plugin.training.step import Step, Stepper
from liteseg_plugin.training.validation import Validation
from liteseg_plugin.weights import load_weights


def train(
    model: nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    losses: dict,
    train_dataset: Dataset,
    settings: Settings,
    val_dataset: Dataset | None = None,
    test_config: dict | None = None,
    class_names: Sequence[str] = (),
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
        class_names: Of the classes of ``val_dataset``, for the log.

    Raises:
        DataError: If the images do not fill one batch, or one cannot be used.
        TrainingError: If the loss is not finite, the disk is full, the device does not know the
            precision, or processes resume from different checkpoints.
        WeightsError: If a checkpoint cannot be resumed.
        Interrupted: After SIGINT or SIGTERM, once a checkpoint is written.
    """
    processes.check_batch_is_filled(train_dataset, settings.batch_size)
    check_precision(settings.precision)
    check_format(settings.save_format)
    Path(settings.save_dir).mkdir(parents=True, exist_ok=True)
    if processes.count() > 1:
        fleet.init(is_collective=True)
    validation = None
    if val_dataset is not None:
        validation = Validation(val_dataset, test_config or {}, settings, class_names)
    _Trainer(model, optimizer, losses, train_dataset, settings, validation).run()


class _Trainer:
    def __init__(
        self,
        model: nn.Layer,
        optimizer: paddle.optimizer.Optimizer,
        losses: dict,
        train_dataset: Dataset,
        settings: Settings,
        validation: Validation | None,
    ) -> None:
        self.settings, self.validation = settings, validation
        self.save_dir = Path(settings.save_dir)
        self.ema_model = frozen_copy(model) if settings.use_ema else None
        self.scaler = None
        if settings.precision == "fp16":
            self.scaler = paddle.amp.GradScaler(init_loss_scaling=1024)
        seed = random.SystemRandom().getrandbits(31) if settings.seed is None else settings.seed
        self.batches = batches.Batches(
            train_dataset, settings.batch_size, settings.num_workers, seed
        )
        suffix = settings.save_format
        self.best = BestWeights(self.save_dir / "best_model" / f"model.{suffix}", "model")
        self.best_ema = BestWeights(
            self.save_dir / "ema_best_model" / f"ema_model.{suffix}", "EMA model"
        )
        self.iteration = 0
        window: list[list[float]] = []
        if settings.resume_model is not None:
            window = self._resume(settings.resume_model, model, optimizer)
        elif self.ema_model is not None:
            init_ema_params(self.ema_model, model)
        processes.check_same_start(self.iteration)
        self.stepper = Stepper(model, optimizer, losses, self.scaler, settings)
        self.log = RunLog(settings, self.iteration, window)
        self.unread: list[Step] = []

    def run(self) -> None:
        """Train to the end."""
        settings = self.settings
        log_cpu_use()
        if self.validation is not None:
            self.best.rate_file(self.stepper.model, self.validation)
            if self.ema_model is not None:
                self.best_ema.rate_file(self.ema_model, self.validation)
        if self.iteration >= settings.iters:
            logger.info(f"Iteration {self.iteration} of {settings.iters}: nothing left to train")
        passes = settings.gradient_accumulation_steps
        waits_anyway = paddle.get_device().startswith("cpu")
        stream = self.batches.start(self.iteration * passes)
        timed = self.log.timed(stream)
        with contextlib.closing(self.log), contextlib.closing(stream), deferred() as signals:
            while self.iteration < settings.iters:
                start = time.time()
                self.iteration += 1
                step = self.stepper.step(timed, self.iteration)
                self.unread.append(step)
                train_profiler.add_profiler_step(settings.profiler_options)
                logs = self.iteration % settings.log_iters == 0
                ends = self.iteration == settings.iters
                saves = ends or self.iteration % settings.save_interval == 0
                stops = False
                if waits_anyway or logs or saves:
                    stops = self._read_losses_and_agree(bool(signals))
                    heartbeat.reached("stepped")
                heartbeat.tick()
                # After reading, which waits for what a GPU has still to do.
                self.log.record(time.time() - start)
                if logs:
                    epoch = (self.iteration - 1) * passes // len(self.batches) + 1
                    self.log.train(self.iteration, epoch, step.lr)
                if self.ema_model is not None:
                    update_ema_model(self.ema_model, self.stepper.model, step=self.iteration)
                if saves or stops:
                    finite.check_weights(self.stepper.model, step, self.save_dir)
                stops_early = saves and self._evaluate_and_keep_best()
                if saves or stops:
                    self._save(step)
                if stops and not ends:
                    raise Interrupted(self._folder)
                if stops_early:
                    break

    def _read_losses_and_agree(self, interrupted: bool) -> bool:
        """Read the losses since the last time, and tell whether a process was interrupted.

        On a GPU, reading waits for the device. So it is done where a log line or a checkpoint
        needs the numbers, and no checkpoint is written before: weights that a loss of NaN
        made invalid are never saved. An overflow of the gradient scaler does not count: it skips
        such steps by itself.

        Raises:
            TrainingError: If a loss was not finite, in any process.
        """
        rows, bad = finite.read_losses(self.unread)
        self.log.window += rows
        self.unread.clear()
        answers = processes.gather((interrupted, bad))
        finite.refuse([bad for _, bad in answers if bad is not None], self.save_dir)
        return any(stops for stops, _ in answers)

    def _evaluate_and_keep_best(self) -> bool:
        """Evaluate, keep the best weights, and tell whether to stop early."""
        if self.validation is None:
            return False
        model, ema_model = self.stepper.model, self.ema_model
        score = self.validation(model)
        ema_score = None if ema_model is None else self.validation(ema_model)
        model.train()

        self.best.keep(model, score, self.iteration)
        if ema_model is not None and ema_score is not None:
            self.best_ema.keep(ema_model, ema_score, self.iteration)
        self.log.evaluation(self.iteration, score, ema_score)
        limit = self.settings.early_stop_intervals
        stops = limit is not None and self.best.below >= limit
        if stops:
            logger.info(
                f"Early stopping at iter {self.iteration}. The best mean IoU is "
                f"{self.best.best.miou:.4f}."
            )
        return stops

    @property
    def _folder(self) -> Path:
        return self.save_dir / f"iter_{self.iteration}"

    def _save(self, step: Step) -> None:
        """Write a checkpoint; every process returns when it is complete."""
        random_states = processes.gather(
            {
                **step.random_state,
                "paddle": batches.paddle_random_state(),
                "samples": self.batches.seed,
            }
        )
        if processes.is_main():
            files = {
                f"model.{self.settings.save_format}": self.stepper.model.state_dict(),
                "model.pdopt": self.stepper.optimizer.state_dict(),
            }
            if self.ema_model is not None:
                files[f"ema_model.{self.settings.save_format}"] = self.ema_model.state_dict()
            scaler: dict[str, Any] = dict(self.scaler.state_dict()) if self.scaler else {}
            state = State(
                iteration=self.iteration,
                best=self.best.best,
                best_ema=self.best_ema.best,
                evaluations_below_best=self.best.below,
                window=self.log.window,
                scaler={k: getattr(v, "tolist", lambda v=v: v)() for k, v in scaler.items()},
                random=random_states,
            )
            checkpoint.save(self._folder, files, vars(state))
            checkpoint.prune(self.save_dir, self.iteration, self.settings.keep_checkpoint_max)
        processes.gather(None)

    def _resume(
        self, folder: Path, model: nn.Layer, optimizer: paddle.optimizer.Optimizer
    ) -> list[list[float]]:
        """Load a checkpoint and return the losses since the last log line before it."""
        self.iteration = checkpoint.iteration_of(folder)
        content = checkpoint.restore(folder, model, optimizer)
        state = State.from_json(content)
        lacks = [] if content else ["random state", "best mIoU", "loss scale of fp16"]
        if self.ema_model is not None:
            ema_weights = checkpoint.find_weights(folder, "ema_model")
            if ema_weights.is_file():
                load_weights(self.ema_model, ema_weights)
            else:
                init_ema_params(self.ema_model, model)
                lacks.append("EMA, which starts from these weights")
        if len(state.random) == processes.count():
            mine = state.random[paddle.distributed.get_rank()]
            batches.set_random_state(mine)
            batches.set_paddle_random_state(mine["paddle"])
            self.batches.seed = mine["samples"]
        elif state.random:
            lacks.append(
                f"random state of {processes.count()} processes ({len(state.random)} wrote)"
            )
        if self.scaler is not None and state.scaler:
            self.scaler.load_state_dict(cast(Any, state.scaler))
        self.best.restore(state.best, state.evaluations_below_best)
        self.best_ema.restore(state.best_ema)
        logger.info(f"Resumed from {folder}, at iteration {self.iteration}")
        if lacks:
            logger.warning(f"Not in {folder}: {'; '.join(lacks)}")
        return state.window
