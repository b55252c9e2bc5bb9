"""STDC as PyTorch computes it, for weights that were trained there."""

from __future__ import annotations

from typing import Any

from paddle import nn
from paddleseg.models import STDC1, STDC2


def STDC1_PyTorch(**arguments: Any) -> nn.Layer:  # noqa: N802 - configs name it as a class
    """Return PaddleSeg's STDC1, whose poolings count the padding, as PyTorch's do.

    Args:
        arguments: Of PaddleSeg's STDC1.

    Returns:
        The backbone. Without this, the first row and column of each pooling differ.
    """
    return _counting_padding(STDC1(**arguments))


def STDC2_PyTorch(**arguments: Any) -> nn.Layer:  # noqa: N802
    """Return STDC2 likewise."""
    return _counting_padding(STDC2(**arguments))


def _counting_padding(backbone: nn.Layer) -> nn.Layer:
    for layer in backbone.sublayers():
        if isinstance(layer, nn.AvgPool2D):
            layer.exclusive = False
    return backbone
