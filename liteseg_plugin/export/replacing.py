"""Replace an export by another: at every moment the folder holds the old one or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from liteseg_plugin.errors import ConfigError
from liteseg_plugin.export.ncnn import NCNN_FILES
from liteseg_plugin.exported import (
    DEPLOY_FILE,
    FILE_KEYS,
    INT8_FILE,
    INT8_REPORT_FILE,
    MODEL_FILES,
    NCNN_INT8_FILE,
    NCNN_INT8_REPORT_FILE,
    NCNN_INT8_WEIGHTS_FILE,
    ONNX_FILE,
    PARAMS_FILE,
    ExportedModel,
    deploy_sha256,
)
from liteseg_plugin.system.checksums import file_sha256
from liteseg_plugin.system.files import atomic_write, to_disk
from liteseg_plugin.system.text import read_yaml

# Names of files between two states of deploy.yaml: model.1a2b3c4d-export.json.
_MARK = "-export"
_STAGED = re.compile(r"\w+\.[0-9a-f]{8}-export\.\w+")
_OWN = (
    *(*MODEL_FILES, PARAMS_FILE, ONNX_FILE, INT8_FILE),
    *(*NCNN_FILES, NCNN_INT8_FILE, NCNN_INT8_WEIGHTS_FILE),
)
_REPORTS = {INT8_FILE: INT8_REPORT_FILE, NCNN_INT8_FILE: NCNN_INT8_REPORT_FILE}


def record_agreement(exported: ExportedModel, agreement: Mapping[str, float]) -> None:
    """Write into ``deploy.yaml`` which runtimes gave the labels of the trained network.

    Args:
        exported: The export.
        agreement: Share of equal labels, 0 to 1, by runtime.
    """
    folder = exported.model.parent
    deploy = read_yaml(folder / DEPLOY_FILE)
    deploy["liteseg"] = {**(deploy.get("liteseg") or {}), "agreement": dict(agreement)}
    _write(folder, deploy)


def replace_files(folder: Path, complete: Path, deploy: dict[str, Any]) -> list[str]:
    """Put files and a ``deploy.yaml`` in place; at every moment the export is old or new.

    ``deploy.yaml`` names files and their checksums, so a file must not change under a name that it
    has there. The new files first get names of their own, and ``deploy.yaml`` changes to these, in
    one step. Then nothing uses the usual names: they are replaced, and ``deploy.yaml`` changes to
    them. A process killed in between, or a power failure, leaves a folder that works, and that the
    next call cleans.

    At last, the export's own files go that the new ``deploy.yaml`` does not name: an ONNX or INT8
    model of an earlier export is another model. Files of others stay.

    Args:
        folder: The exported folder.
        complete: A folder on the same disk with the new files, under their usual names; it is
            emptied.
        deploy: The new content of ``deploy.yaml``, which names files in ``complete`` or in
            ``folder``.

    Returns:
        The usual names of files of an earlier export that were removed.
    """
    files = sorted(path.name for path in complete.iterdir())
    was_export = (folder / DEPLOY_FILE).exists()
    deploy = _renamed(deploy, {})
    if not set(files).isdisjoint(_named(_current(folder))):
        tag = _tag(complete, files)
        staged = {name: _staged_name(name, tag) for name in files if name in _named(deploy)}
        for name, target in staged.items():
            shutil.copyfile(complete / name, complete / target)
            to_disk(complete / target)
            os.replace(complete / target, folder / target)
        _write(folder, _renamed(deploy, staged))
    for name in files:
        to_disk(complete / name)
        os.replace(complete / name, folder / name)
    _write(folder, deploy)
    named = _named(deploy)
    for path in folder.iterdir():
        if _STAGED.fullmatch(path.name) and path.name not in named:
            path.unlink()
    stale = [name for name in _OWN if name not in named] if was_export else []
    stale += [report for name, report in _REPORTS.items() if name in stale]
    removed = [name for name in stale if (folder / name).is_file()]
    for name in removed:
        (folder / name).unlink()
    return removed


def _current(folder: Path) -> dict[str, Any]:
    """Return the content of ``deploy.yaml``, or nothing if it cannot be read."""
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
        for key in FILE_KEYS
        if isinstance(value := section.get(key), str)
    }


def _renamed(deploy: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return a ``deploy.yaml`` with other names of files, and no checksums but theirs."""

    def changed(section: dict[str, Any]) -> dict[str, Any]:
        return {k: names.get(v, v) if k in FILE_KEYS else v for k, v in section.items()}

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
    """Return eight digits that identify these files; equal digits are harmless."""
    digest = hashlib.sha256()
    for name in files:
        digest.update(name.encode() + file_sha256(folder / name).encode())
    return digest.hexdigest()[:8]


def _staged_name(name: str, tag: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}.{tag}{_MARK}{dot}{suffix}"


def _write(folder: Path, deploy: dict[str, Any]) -> None:
    """Write ``deploy.yaml``; on the disk, too, it comes after what it names."""
    to_disk(folder)
    if sums := deploy["liteseg"].get("sha256"):
        sums[DEPLOY_FILE] = deploy_sha256(deploy)
    atomic_write(folder / DEPLOY_FILE, yaml.safe_dump(deploy, sort_keys=False).encode())
    to_disk(folder)
