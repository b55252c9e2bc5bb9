"""The configs that come with the plugin, found by name."""

from __future__ import annotations

import os
from pathlib import Path

from liteseg_plugin.errors import ConfigError, printable

_SUFFIX = ".yml"
_PACKAGE = Path(__file__).parents[1]


def config_folder() -> Path:
    """Return the folder of the configs: the installed package's, or the checkout's ``configs``."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def config_files() -> dict[str, Path]:
    """Return the configs that commands take by name; not those that are only a ``_base_``."""
    paths = sorted(config_folder().glob(f"*/*{_SUFFIX}"))
    return {path.stem: path for path in paths if path.parent.name != "_base_"}


def find_config(path_or_name: str | os.PathLike) -> Path:
    """Return the file of a config.

    Args:
        path_or_name: A path, or a name of :func:`config_files` with or without ``.yml``. A path
            that exists wins.

    Returns:
        The file; the path itself where neither exists.
    """
    path = Path(path_or_name)
    if path.exists() or path.name != str(path):
        return path
    return config_files().get(path.name.removesuffix(_SUFFIX), path)


def new_config(path: str, *, overwrite: bool) -> Path:
    """Return the path of a config that is to be written.

    Args:
        path: As the user gave it.
        overwrite: Whether an existing file is replaced.

    Raises:
        ConfigError: If the name does not end in ``.yml`` or ``.yaml``, or the file exists.
    """
    dest = Path(path)
    if dest.suffix not in (".yml", ".yaml"):
        raise ConfigError(f"{printable(dest)} must end in .yml, as PaddleSeg requires of a config")
    if dest.exists() and not overwrite:
        raise ConfigError(f"{printable(dest)} already exists; --overwrite replaces it")
    return dest
