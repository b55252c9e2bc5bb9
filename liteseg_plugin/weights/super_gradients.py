"""PP-LiteSeg of PyTorch: the names of Deci's super-gradients, which LibreYOLO has too.

Their network has the layers of PaddleSeg's, under other names, with three differences. The decoder
feature comes first in the fusion, so its attention is turned round. The auxiliary heads read other
features and cannot be converted. The poolings of the backbone count the padding: use the backbones
``STDC1_PyTorch`` and ``STDC2_PyTorch``, which do so too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from liteseg_plugin.errors import WeightsError, printable

_WRAPPERS = ("ema_net", "net", "model", "state_dict")
_PREFIX = "module."  # of distributed training
_STAGE = re.compile(r"encoder\.backbone\.stages\.block_s(\d+)\.(\d+)\.(.+)")
_DROPPED = re.compile(r"aux_heads\.|.*\.num_batches_tracked$")
_RULES = (
    (r"encoder\.context_module\.branches\.(\d)\.1\.seq", r"ppseg_head.cm.stages.\1.1"),
    (r"encoder\.context_module\.conv_out\.seq", r"ppseg_head.cm.conv_out"),
    (r"encoder\.proj_convs\.(\d)\.seq", r"ppseg_head.arm_list.\1.conv_x"),
    (r"decoder\.up_stages\.0\.", r"ppseg_head.arm_list.2."),
    (r"decoder\.up_stages\.1\.", r"ppseg_head.arm_list.1."),
    (r"decoder\.up_stages\.2\.", r"ppseg_head.arm_list.0."),
    (r"\.conv_atten\.(\d)\.seq", r".conv_xy_atten.\1"),
    (r"(arm_list\.\d\.conv_out)\.seq", r"\1"),
    (r"seg_head\.0\.seg_head\.0\.seq", r"seg_heads.0.conv"),
    (r"seg_head\.0\.seg_head\.2\.", r"seg_heads.0.conv_out."),
    (r"\.conv\.weight$", r"._conv.weight"),
    (r"\.bn\.", r"._batch_norm."),
)
_BACKBONE_RULES = (
    (r"conv_list\.1\.0\.seq\.conv\.", "avd_layer.0."),
    (r"conv_list\.1\.0\.seq\.bn\.", "avd_layer.1."),
    (r"conv_list\.1\.1\.seq\.", "conv_list.1."),
    (r"\bseq\.", ""),
)
_STATISTICS = ((r"\.running_mean$", "._mean"), (r"\.running_var$", "._variance"))
_AUXILIARY_CHANNELS = 64


def is_super_gradients(arrays: Mapping[str, Any]) -> bool:
    """Tell whether arrays have the names of super-gradients' PP-LiteSeg."""
    return any(name.removeprefix(_PREFIX).startswith("encoder.backbone.stages.") for name in arrays)


def state_dict_in(content: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint, which may be in a wrapper of the training that wrote it.

    Raises:
        WeightsError: If it holds no named arrays.
    """
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    found = content.items() if isinstance(content, dict) else ()
    arrays = {name: value for name, value in found if isinstance(value, np.ndarray)}
    if not arrays:
        raise WeightsError("it has no named tensors")
    return {str(name): value for name, value in arrays.items()}


def to_paddleseg(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return float32 arrays under PaddleSeg's names, as :class:`PPLiteSeg` takes them.

    Its auxiliary heads, which only training uses, get random weights, the same each time.

    Raises:
        WeightsError: If the network has layers that PaddleSeg's lacks.
    """
    arrays = {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
    stages = [match for match in map(_STAGE.fullmatch, arrays) if match]
    blocks = {stage: 1 + max(int(m[2]) for m in stages if m[1] == stage) for _, stage in
              sorted({(int(m[1]), m[1]) for m in stages})}  # fmt: skip
    starts = dict(zip(blocks, np.cumsum([0, *blocks.values()]).tolist()))
    converted = {}
    for name, array in arrays.items():
        if _DROPPED.match(name):
            continue
        match = _STAGE.fullmatch(name)
        if match:
            new = f"backbone.features.{starts[match[1]] + int(match[2])}."
            new += _renamed(match[3], _BACKBONE_RULES)
        else:
            new = _renamed(name, _RULES)
        new = _renamed(new, _STATISTICS)
        if not new.startswith(("backbone.", "ppseg_head.", "seg_heads.")) or "proj_skip" in new:
            raise WeightsError(f"PaddleSeg's PP-LiteSeg has nothing like {printable(name)}")
        converted[new] = array
    _turn_attention(converted)
    _add_what_is_missing(converted)
    return converted


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def _turn_attention(arrays: dict[str, np.ndarray]) -> None:
    """Let ``high * a + low * (1 - a)`` be ``low * a + high * (1 - a)``."""
    for number in range(3):
        name = f"ppseg_head.arm_list.{number}.conv_xy_atten"
        first = arrays[f"{name}.0._conv.weight"]
        arrays[f"{name}.0._conv.weight"] = first[:, [2, 3, 0, 1]]
        for last in (f"{name}.1._batch_norm.weight", f"{name}.1._batch_norm.bias"):
            arrays[last] = -arrays[last]  # sigmoid(-x) = 1 - sigmoid(x)


def _add_what_is_missing(arrays: dict[str, np.ndarray]) -> None:
    """Add constants that PaddleSeg's layers have, and auxiliary heads."""
    for name in [name for name in arrays if re.match(r"ppseg_head\.cm\..*_conv\.weight", name)]:
        bias = np.zeros(len(arrays[name]), arrays[name].dtype)
        arrays[name.replace("weight", "bias")] = bias
    rng = np.random.default_rng(0)
    classes, middle = len(arrays["seg_heads.0.conv_out.weight"]), _AUXILIARY_CHANNELS

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype("float32")

    for number in range(3):
        arrays[f"ppseg_head.arm_list.{number}._scale"] = np.ones(1, "float32")
        if number:
            channels = len(arrays[f"ppseg_head.arm_list.{number}.conv_out._conv.weight"])
            head = f"seg_heads.{number}"
            arrays[f"{head}.conv._conv.weight"] = drawn(middle, channels, 3, 3)
            for part, value in (("weight", 1), ("bias", 0), ("_mean", 0), ("_variance", 1)):
                full = np.full(middle, value, "float32")
                arrays[f"{head}.conv._batch_norm.{part}"] = full
            arrays[f"{head}.conv_out.weight"] = drawn(classes, middle, 1, 1)
