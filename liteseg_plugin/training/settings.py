"""How to train."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import paddle

from liteseg_plugin.errors import TrainingError

# As in PaddleSeg's loop.
_AMP_LISTS: dict[str, Any] = {
    "custom_white_list": {"elementwise_add", "batch_norm", "sync_batch_norm"},
    "custom_black_list": {"bilinear_interp_v2"},
}
_SMALLEST = {
    **dict.fromkeys(("iters", "batch_size", "save_interval", "log_iters"), 1),
    "gradient_accumulation_steps": 1,
    "num_workers": 0,
}
_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}

FORMATS = ("pdparams", "safetensors")
"""Of weights in checkpoints and best models; both are read everywhere."""


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
        save_format: Suffix of the files of weights, one of ``FORMATS``.
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
    save_format: str = "pdparams"

    def __post_init__(self) -> None:
        """Refuse settings that would never end or never start."""
        for name, smallest in _SMALLEST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < smallest:
                raise ValueError(f"{name} must be at least {smallest}, got {value}")

    @property
    def amp_dtype(self) -> Any:
        """Return Paddle's name of a low precision."""
        return _DTYPES[self.precision]

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context in which the network computes in the chosen precision."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        level: Any = self.amp_level
        return paddle.amp.auto_cast(level=level, dtype=self.amp_dtype, **_AMP_LISTS)


def check_format(save_format: str) -> None:
    """Refuse a format that cannot be written, before the training instead of after it.

    Raises:
        TrainingError: If its package is missing.
    """
    if save_format == "safetensors" and find_spec("safetensors") is None:
        raise TrainingError(
            "--save_format safetensors needs a package: pip install 'liteseg_plugin[safetensors]'"
        )


def check_precision(precision: str) -> None:
    """Refuse a precision that Paddle would ignore with a warning.

    Raises:
        TrainingError: If the chosen device does not support it.
    """
    if precision == "fp32":
        return
    device = paddle.get_device()
    supported = {"fp16": paddle.amp.is_float16_supported, "bf16": paddle.amp.is_bfloat16_supported}
    # Paddle claims that a CPU supports bfloat16, but trains in float32 there.
    if device.startswith("cpu") or not supported[precision]():
        raise TrainingError(f"--precision {precision} does not work on {device}; use fp32")
