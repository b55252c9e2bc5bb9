"""Paddle 2's model format, which Paddle 3 writes if ``FLAGS_enable_pir_api`` is 0.

Some fifty functions of Paddle 3.3 only know Paddle 3's format. Here are those of them that the
exported graph of PP-LiteSeg calls, as earlier Paddles have them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import paddle
from paddle.base.layer_helper import LayerHelper

from liteseg_plugin.integration.entry import wrap

_FLAG = "FLAGS_enable_pir_api"
_UNARY = ("abs", "ceil", "exp", "floor", "sigmoid")
_BINARY = {
    "logical_and": "logical_and",
    "maximum": "elementwise_max",
    "minimum": "elementwise_min",
}


def lacks_functions() -> bool:
    """Whether models are written in Paddle 2's format, for which functions are missing."""
    return bool(_without_old_format()) and not paddle.get_flags(_FLAG)[_FLAG]


def complete() -> None:
    """Let functions write Paddle 2's operators while a program of Paddle 2's format is built."""
    writers: dict[str, Callable[..., Any]] = {
        **{name: _unary(name) for name in _UNARY},
        **{name: _binary(kind) for name, kind in _BINARY.items()},
        "argmax": _argmax,
        "matmul": _matmul,
        "sum": _sum,
    }
    for name in _without_old_format() & set(writers):
        for module in (paddle, paddle.nn.functional):
            if hasattr(module, name):
                wrap(module, name, _in_old_programs(writers[name]))


def _without_old_format() -> set[str]:
    try:
        generated = importlib.import_module("paddle.base.dygraph.generated_tensor_methods_patch")
    except ImportError:  # before Paddle 3.3
        return set()
    return {name for name, _ in generated.funcs_map}


def _in_old_programs(writer: Callable[..., Any]) -> Callable[..., Any]:
    def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if paddle.in_dynamic_mode() or paddle.framework.in_pir_mode():
            return original(*args, **kwargs)
        return writer(*args, **kwargs)

    return call


def _append(kind: str, result_dtype: Any, x: Any, y: Any = None, **attributes: Any) -> Any:
    """Append an operator to the program; return its result."""
    helper = LayerHelper(kind)
    result = helper.create_variable_for_type_inference(result_dtype)
    inputs = {"X": x} if y is None else {"X": x, "Y": y}
    helper.append_op(type=kind, inputs=inputs, outputs={"Out": result}, attrs=attributes)
    return result


def _unary(kind: str) -> Callable[..., Any]:
    return lambda x: _append(kind, x.dtype, x)


def _binary(kind: str) -> Callable[..., Any]:
    return lambda x, y: _append(kind, x.dtype, x, y)


def _argmax(x: Any, axis: int, dtype: str) -> Any:
    number = paddle.base.framework.convert_np_dtype_to_dtype_(dtype)
    return _append("arg_max", dtype, x, axis=axis, dtype=number, keepdims=False, flatten=False)


def _matmul(x: Any, y: Any, transpose_x: bool = False, transpose_y: bool = False) -> Any:
    return _append("matmul_v2", x.dtype, x, y, trans_x=transpose_x, trans_y=transpose_y)


def _sum(x: Any, axis: int, keepdim: bool) -> Any:
    return _append("reduce_sum", x.dtype, x, dim=[axis], keep_dim=keepdim)
