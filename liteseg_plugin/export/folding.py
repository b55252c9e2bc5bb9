"""Batch norms of a network, folded into its convolutions."""

from __future__ import annotations

import copy

import numpy as np
from paddle import nn

_NORMS = (nn.BatchNorm2D, nn.SyncBatchNorm)


def without_batch_norms(network: nn.Layer) -> nn.Layer:
    """Return a copy for inference whose convolutions do what the batch norms after them did.

    Engines fold them too, each time they load a model; Paddle Inference takes a second for it.

    Args:
        network: Where a batch norm is declared after a convolution, it must run right after it.
    """
    network = copy.deepcopy(network)
    network.eval()
    for layer in network.sublayers(include_self=True):
        children = list(layer.named_children())
        for (_, conv), (name, norm) in zip(children, children[1:]):
            if isinstance(conv, nn.Conv2D) and isinstance(norm, _NORMS):
                _fold(norm, conv)
                setattr(layer, name, nn.Identity())
    return network


def _fold(norm: nn.BatchNorm2D | nn.SyncBatchNorm, conv: nn.Conv2D) -> None:
    """Let a convolution (O, I, h, w) also do what a batch norm of O channels does after it."""
    scale, shift, mean, variance = (
        np.asarray(tensor, "float64")
        for tensor in (norm.weight, norm.bias, norm._mean, norm._variance)
    )
    scale = scale / np.sqrt(variance + norm._epsilon)
    weight = conv.weight.numpy() * scale.reshape(-1, 1, 1, 1)
    bias = 0.0 if conv.bias is None else conv.bias.numpy()
    conv.weight.set_value(weight.astype("float32"))
    value = nn.initializer.Assign(((bias - mean) * scale + shift).astype("float32"))
    conv.bias = conv.create_parameter([len(scale)], default_initializer=value, is_bias=True)
