"""Losses that PP-LiteSeg is trained with."""

from liteseg_plugin.losses.ohem import OhemCrossEntropyLoss

__all__ = ["OhemCrossEntropyLoss"]
