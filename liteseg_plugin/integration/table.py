"""The table of all that the plugin replaces, and its application."""

from __future__ import annotations

from liteseg_plugin.integration import compat, compat_training, scripts, scripts_images

ENTRIES = (*compat.ENTRIES, *compat_training.ENTRIES, *scripts.ENTRIES, *scripts_images.ENTRIES)
"""Every replacement, in the order in which they are made."""

_applied: dict[str, bool] = {}


def apply(*, for_scripts: bool) -> None:
    """Replace what is broken here. Idempotent.

    Args:
        for_scripts: Whether PaddleSeg's unmodified scripts may run in this process, rather than
            only the plugin's commands.
    """
    for entry in ENTRIES:
        if entry.name in _applied or (entry.scripts_only and not for_scripts):
            continue
        _applied[entry.name] = entry.always or entry.is_broken()
        if _applied[entry.name]:
            entry.repair()


def is_active(name: str) -> bool:
    """Tell whether the replacement of this name was made in this process."""
    return _applied.get(name, False)
