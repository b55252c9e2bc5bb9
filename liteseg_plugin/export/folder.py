"""Change the files of an exported folder that is in use."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from liteseg_plugin.errors import ConfigError
from liteseg_plugin.system import read_yaml, write_whole

DEPLOY_FILE = "deploy.yaml"

# Names that files have between two states of deploy.yaml: model.1a2b3c4d-export.json.
_MARK = "-export"
_STAGED = re.compile(r"\w+\.[0-9a-f]{8}-export\.\w+")


def replace_files(folder: Path, complete: Path, deploy: dict[str, Any]) -> None:
    """Put files and a ``deploy.yaml`` in place; at every moment the folder is the old or the new.

    ``deploy.yaml`` names files and their checksums, so a file must not change under a name that it
    has there. The new files first get names of their own, and ``deploy.yaml`` changes to these, in
    one step. Then nothing uses the usual names: they are replaced, and ``deploy.yaml`` changes to
    them. Whoever is killed in between leaves a folder that works, and that the next call tidies.

    Args:
        folder: The exported folder.
        complete: A folder on the same disk with the new files, under their usual names; it is
            emptied.
        deploy: The new content of ``deploy.yaml``, which names files in ``complete`` or in
            ``folder``.
    """
    files = sorted(path.name for path in complete.iterdir())
    deploy = _renamed(deploy, {})
    if not set(files).isdisjoint(_named(_current(folder))):
        tag = _tag(complete, files)
        staged = {name: _staged_name(name, tag) for name in files if name in _named(deploy)}
        for name, target in staged.items():
            shutil.copyfile(complete / name, complete / target)
            os.replace(complete / target, folder / target)
        _write(folder, _renamed(deploy, staged))
    for name in files:
        os.replace(complete / name, folder / name)
    _write(folder, deploy)
    for path in folder.iterdir():
        if _STAGED.fullmatch(path.name) and path.name not in _named(deploy):
            path.unlink()


def _current(folder: Path) -> dict[str, Any]:
    """Return what ``deploy.yaml`` says, or nothing if there is none that can be read."""
    with contextlib.suppress(OSError, ConfigError):
        content = read_yaml(folder / DEPLOY_FILE)
        if isinstance(content, dict):
            return content
    return {}


def _named(deploy: dict[str, Any]) -> set[str]:
    """Return the names of files that a ``deploy.yaml`` has."""
    sections = deploy.get("Deploy"), deploy.get("liteseg")
    return {
        value
        for section in sections
        if isinstance(section, dict)
        for key in ("model", "params", "onnx", "onnx_int8")
        if isinstance(value := section.get(key), str)
    }


def _renamed(deploy: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return a ``deploy.yaml`` with other names of files, and no checksums but theirs."""

    def changed(section: dict[str, Any]) -> dict[str, Any]:
        keys = ("model", "params", "onnx", "onnx_int8")
        return {k: names.get(v, v) if k in keys else v for k, v in section.items()}

    own = deploy.get("liteseg") or {}
    named = _named(deploy)
    checksums = {
        names.get(name, name): value
        for name, value in (own.get("sha256") or {}).items()
        if name in named
    }
    return {
        "Deploy": changed(deploy["Deploy"]),
        "liteseg": {**changed(own), "sha256": checksums},
    }


def _tag(folder: Path, files: list[str]) -> str:
    """Return eight digits that tell these files from others: the same ones are of no harm."""
    digest = hashlib.sha256()
    for name in files:
        digest.update(name.encode() + file_sha256(folder / name).encode())
    return digest.hexdigest()[:8]


def _staged_name(name: str, tag: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}.{tag}{_MARK}{dot}{suffix}"


def _write(folder: Path, deploy: dict[str, Any]) -> None:
    write_whole(folder / DEPLOY_FILE, yaml.safe_dump(deploy, sort_keys=False).encode())


def file_sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
