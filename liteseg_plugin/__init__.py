"""PP-LiteSeg as a plugin for PaddleSeg: train, evaluate, export, infer on today's Paddle.

Importing this package registers ``PPLiteSeg``, ``SPPM``, the UAFM family and
``OhemCrossEntropyLoss`` in PaddleSeg's managers (at once if paddleseg is already imported, else
when it is imported) and does nothing else. :func:`activate` also repairs what is broken between
PaddleSeg and Paddle; every command of ``liteseg`` calls it.
"""

from __future__ import annotations

# Paddle 2.6's wheel exports its own zlib: a Python that loads zlib after Paddle crashes at the
# first decompression.
import zlib  # noqa: F401

from liteseg_plugin.integration.import_hook import when_imported

__version__ = "0.1.0"

_ATTRIBUTES = {
    "PPLiteSeg": "liteseg_plugin.models.pp_liteseg",
    "SPPM": "liteseg_plugin.models.sppm",
    "UAFM": "liteseg_plugin.models.uafm",
    "OhemCrossEntropyLoss": "liteseg_plugin.losses",
    "LitesegError": "liteseg_plugin.errors",
    "Predictor": "liteseg_plugin.inference.predictor",
    "activate": "liteseg_plugin.integration.registry",
    "owners": "liteseg_plugin.integration.registry",
    "register": "liteseg_plugin.integration.registry",
}

__all__ = [*_ATTRIBUTES]


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that a command without Paddle does not load it."""
    if name not in _ATTRIBUTES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_ATTRIBUTES[name]), name)


def _register() -> None:
    from liteseg_plugin.integration.registry import register

    register()


when_imported("paddle")
when_imported("paddleseg", _register)
