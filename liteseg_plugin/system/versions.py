"""Versions of installed packages, without importing them."""

from __future__ import annotations

from importlib import metadata


def installed_versions(*distributions: str) -> dict[str, str]:
    """Return the versions of those distributions that are installed, by name as pip has them."""
    versions = {}
    for name in distributions:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
