"""One optimiser step: forward, backward, accumulation, learning rate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import paddle
from paddle import nn
from paddle.distributed import fleet

from liteseg_plugin.training import processes
from liteseg_plugin.training.batches import Batch
from liteseg_plugin.training.settings import Settings

# `paddleseg.core.train` is the function; the module of that name is where loss_computation lives.
_paddleseg_loop = import_module("paddleseg.core.train")


@dataclass(frozen=True)
class Step:
    """The record of a step.

    Attributes:
        iteration: Its number, from 1.
        losses: The sum, then that of each output: tensors of one element, still on the device.
        lr: The learning rate that it used.
        files: The images.
        random_state: That of Python and NumPy after its last batch was read.
    """

    iteration: int
    losses: list[paddle.Tensor]
    lr: float
    files: list[str]
    random_state: dict[str, Any]


class Stepper:
    """Runs optimiser steps, in one process or several.

    Takes what ``trainer.train`` does, and the scaler of the loss in fp16.

    Attributes:
        model: The network whose weights are saved.
        optimizer: The optimiser whose state is.
    """

    def __init__(
        self,
        model: nn.Layer,
        optimizer: paddle.optimizer.Optimizer,
        losses: dict,
        scaler: paddle.amp.GradScaler | None,
        settings: Settings,
    ) -> None:
        self._losses, self._scaler, self._settings = losses, scaler, settings
        model.train()
        if settings.precision != "fp32" and settings.amp_level == "O2":
            model, optimizer = paddle.amp.decorate(
                model, optimizer, level="O2", dtype=settings.amp_dtype, save_dtype="float32"
            )
        self.model, self.optimizer, self._network = model, optimizer, model
        if processes.count() > 1:
            self.optimizer = fleet.distributed_optimizer(optimizer)
            self._network = fleet.distributed_model(model)
        if settings.to_static_training:
            self.model = paddle.jit.to_static(model)
            self._network = self._network if processes.count() > 1 else self.model

    def step(self, stream: Iterator[Batch], iteration: int) -> Step:
        """Run one optimiser step over the accumulated batches."""
        passes = self._settings.gradient_accumulation_steps
        sums: list[paddle.Tensor] = []
        files: list[str] = []
        for i in range(passes):
            batch = next(stream)
            files += batch.files
            # Gradients are exchanged once a step, with the last pass.
            alone = processes.count() > 1 and i < passes - 1
            with self._network.no_sync() if alone else contextlib.nullcontext():
                values = self._backward(batch.data, passes)
            sums = [a + b for a, b in zip(sums, values)] if sums else values

        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        lr = self.optimizer.get_lr()
        schedule = self.optimizer._learning_rate
        if isinstance(schedule, paddle.optimizer.lr.ReduceOnPlateau):
            schedule.step(sums[0])
        elif isinstance(schedule, paddle.optimizer.lr.LRScheduler):
            schedule.step()
        self.model.clear_gradients()
        return Step(iteration, sums, lr, files, batch.random_state)

    def _backward(self, data: dict[str, paddle.Tensor], passes: int) -> list[paddle.Tensor]:
        """Add a batch's gradients; return the loss and that of each output, detached."""
        labels = data["label"].astype("int64")
        edges = data["edge"].astype("int64") if "edge" in data else None
        with self._settings.autocast():
            logits = self._network(data["img"])
            if hasattr(self.model, "loss_computation"):
                parts = self.model.loss_computation(logits, self._losses, data)
            else:
                parts = _paddleseg_loop.loss_computation(
                    logits_list=logits, labels=labels, edges=edges, losses=self._losses
                )
            loss = sum(parts)
        if passes > 1:
            loss, parts = loss / passes, [part / passes for part in parts]
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        return [value.detach().astype("float32") for value in (loss, *parts)]
