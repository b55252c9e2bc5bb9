"""Losses and weights that are not finite numbers stop training before they are saved."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import paddle
from paddle import nn

from liteseg_plugin.errors import TrainingError
from liteseg_plugin.training import checkpoint, processes
from liteseg_plugin.training.step import Step


@dataclass(frozen=True)
class BadStep:
    """A step that is not finite, as ``nan_iter_N.json`` holds it.

    Attributes:
        iteration: Its number.
        losses: The sum, then that of each output, as text: JSON has no NaN.
        files: The images.
    """

    iteration: int
    losses: list[str]
    files: list[str]


def read_losses(steps: Sequence[Step]) -> tuple[list[list[float]], BadStep | None]:
    """Read the losses of steps from the device, which on a GPU waits for it.

    Returns:
        The losses of each step, and the first step of which one is not finite.
    """
    values = paddle.concat([loss.reshape([1]) for step in steps for loss in step.losses])
    rows = values.numpy().reshape(len(steps), -1).tolist()
    for step, row in zip(steps, rows):
        if not all(map(math.isfinite, row)):
            return rows, BadStep(step.iteration, [str(value) for value in row], step.files)
    return rows, None


def refuse(bad_steps: Sequence[BadStep], save_dir: Path) -> None:
    """Stop if a process has seen a loss that is not finite.

    Raises:
        TrainingError: If there are such steps.
    """
    if bad_steps:
        # A bad step of one process makes the others' weights invalid: theirs come later.
        first = min(bad_steps, key=lambda bad: bad.iteration)
        files = [f for bad in bad_steps if bad.iteration == first.iteration for f in bad.files]
        _stop(f"the loss is {first.losses[0]}", replace(first, files=files), save_dir)


def check_weights(model: nn.Layer, step: Step, save_dir: Path) -> None:
    """Refuse to save weights that a step made NaN while its loss was still finite.

    Raises:
        TrainingError: If a weight is not finite.
    """
    finite = [paddle.isfinite(parameter).all() for parameter in model.parameters()]
    if not bool(paddle.stack(finite).all()):
        _stop("weights are not finite", BadStep(step.iteration, [], step.files), save_dir)


def _stop(what: str, bad: BadStep, save_dir: Path) -> None:
    path = save_dir / f"nan_iter_{bad.iteration}.json"
    if processes.is_main():
        path.write_text(json.dumps(asdict(bad), indent=2), encoding="utf-8")
    shown = ", ".join(bad.files[:4]) + (", ..." if len(bad.files) > 4 else "")
    known = checkpoint.list_checkpoints(save_dir)
    stays = f"the last checkpoint is {known[-1]}" if known else "no checkpoint was written yet"
    raise TrainingError(
        f"{what} at iteration {bad.iteration}, on {shown} (listed in {path}); {stays}. Look at "
        "these images and labels, or lower the learning rate"
    )
