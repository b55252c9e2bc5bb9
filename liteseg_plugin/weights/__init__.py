"""Weights: records of released ones, their download, and strict loading that runs no code."""

from liteseg_plugin.weights.fetching import fetch, find_weights, local_path, needs_network
from liteseg_plugin.weights.loading import (
    load_matching_weights,
    load_trained,
    load_weights,
    read_arrays,
    read_state_dict,
)
from liteseg_plugin.weights.records import (
    BACKBONES,
    PSSL,
    RELEASED,
    ReleasedWeights,
    find_record,
    get_record,
)

__all__ = [
    "BACKBONES",
    "PSSL",
    "RELEASED",
    "ReleasedWeights",
    "fetch",
    "find_record",
    "find_weights",
    "get_record",
    "load_matching_weights",
    "load_trained",
    "load_weights",
    "local_path",
    "needs_network",
    "read_arrays",
    "read_state_dict",
]
