"""What a checkpoint holds beside weights and optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple


class Best(NamedTuple):
    """The best evaluation so far.

    Attributes:
        miou: Its mIoU; -1 before the first.
        iteration: Its iteration.
    """

    miou: float = -1.0
    iteration: int = -1


@dataclass(frozen=True)
class State:
    """What ``training.json`` holds: the state for a resume, without weights and optimiser.

    Attributes:
        iteration: Optimiser steps so far.
        best: The best evaluation of the network.
        best_ema: The best evaluation of its exponential moving average.
        evaluations_below_best: Number in a row below the best.
        window: Losses since the last log line: of each step the sum, then those of each output.
        scaler: The state of the loss scale of fp16.
        random: The random state of each process.
    """

    iteration: int = 0
    best: Best = field(default_factory=Best)
    best_ema: Best = field(default_factory=Best)
    evaluations_below_best: int = 0
    window: list[list[float]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)
    random: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> State:
        """Read the content of ``training.json``, or a part of it."""
        known = {entry.name: content[entry.name] for entry in fields(cls) if entry.name in content}
        for name in {"best", "best_ema"} & known.keys():
            known[name] = Best(*known[name])
        return cls(**known)
