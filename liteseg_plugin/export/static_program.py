"""Paddle inference models as static programs, of Paddle 2 (``.pdmodel``) or 3 (``.json``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import paddle
from paddle import static

from liteseg_plugin.exported import ModelFiles
from liteseg_plugin.runtimes.base import paddle_files


@contextlib.contextmanager
def static_mode(files: ModelFiles) -> Iterator[None]:
    """Let programs of the model's format be loaded and run."""
    old_format = contextlib.nullcontext
    if files.model.suffix != ".json":  # Paddle 2.6 knows no other
        old_format = getattr(getattr(paddle, "pir_utils", None), "OldIrGuard", old_format)
    dynamic = paddle.in_dynamic_mode()
    paddle.enable_static()
    try:
        with old_format(), static.scope_guard(static.Scope()):
            yield
    finally:
        if dynamic:
            paddle.disable_static()


def load(files: ModelFiles) -> static.Program:
    """Load a model, within :func:`static_mode`."""
    model, params = paddle_files(files)
    program, _, _ = static.load_inference_model(
        str(model.parent),
        static.Executor(paddle.CPUPlace()),
        model_filename=model.name,
        params_filename=params.name,
    )
    return program


def drop_feed_and_fetch(program: static.Program) -> None:
    """Remove operators that block fetching other tensors."""
    block = program.global_block()
    for number, op in reversed(list(enumerate(block.ops))):
        if hasattr(op, "type"):  # Paddle 2's format
            if op.type in ("feed", "fetch"):
                block._remove_op(number)
        elif op.name() == "pd_op.fetch":
            block.remove_op(op)
