"""Checkpoints that withstand a kill, a full disk and a hostile file.

A checkpoint is a folder ``iter_N`` with PaddleSeg's files (``model.pdparams``, ``model.pdopt``,
with EMA ``ema_model.pdparams``) and ``training.json``, which holds what else training needs.
``.safetensors`` may take the place of ``.pdparams`` (``--save_format``). It is
written under another name, forced to the disk, and renamed: a folder ``iter_N`` is complete.
``SHA256SUMS`` lists its files, and reading them checks it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from liteseg_plugin.errors import TrainingError, WeightsError
from liteseg_plugin.system.checksums import check_sum, file_sha256, sums_of, write_sums
from liteseg_plugin.system.files import to_disk
from liteseg_plugin.training.state import Best
from liteseg_plugin.weights import load_weights, read_arrays
from liteseg_plugin.weights.converting import save_safetensors

STATE = "training.json"
_BEST = "best.json"
_PARTIAL = ".partial-"  # half written, or half deleted
_REPLACED = ".replaced-"
_NAMES = "StructuredToParameterName@@"  # Paddle's table of the parameters' own names


def iteration_of(folder: Path) -> int:
    """Return N of a checkpoint ``iter_N``.

    Raises:
        WeightsError: If it is not a folder of that name.
    """
    iteration = folder.name.rpartition("_")[2]
    if not folder.is_dir() or not iteration.isdecimal():
        raise WeightsError(
            f"cannot resume from {folder}: give a checkpoint folder named iter_N, in which "
            "training left model.pdparams and model.pdopt"
        )
    return int(iteration)


def list_checkpoints(save_dir: Path) -> list[Path]:
    """Return the checkpoints of a run, from old to new."""
    folders = (path for path in save_dir.glob("iter_*") if re.fullmatch(r"iter_\d+", path.name))
    return sorted((path for path in folders if path.is_dir()), key=iteration_of)


def prepare(
    save_dir: Path, resume_model: str | None = None, *, is_main: bool = True
) -> Path | None:
    """Clean the folder of a run, and return the checkpoint to resume from.

    Call it with the folder's lock held (:func:`lock.hold`): what it cleans would otherwise be what
    another training is writing.

    Args:
        save_dir: Where the run's checkpoints go. What a kill during a save left there is removed.
        resume_model: A folder ``iter_N``, also by its name in ``save_dir``; the folder of a run,
            for its newest checkpoint; ``auto`` for that of ``save_dir``, or for a new start if
            there is none; or None.
        is_main: Whether this is the main process, which cleans. The other processes of the run
            return the same, whether it has done so or not.

    Raises:
        WeightsError: If there is no such checkpoint.
        TrainingError: If ``save_dir`` holds checkpoints that the run would overwrite.
    """
    if is_main:
        _clean(save_dir)
    resumed = None
    if resume_model is not None:
        run = save_dir if resume_model == "auto" else Path(resume_model)
        inside = save_dir / resume_model
        if not run.exists() and inside in _cleaned_checkpoints(save_dir):
            run = inside  # given by its name alone
        [*_, resumed] = [None, *_cleaned_checkpoints(run)]
        if resumed is None and resume_model != "auto":
            if run not in _cleaned_checkpoints(run.parent):
                iteration_of(run)
            resumed = run
    known = [*_cleaned_checkpoints(save_dir), *save_dir.glob("best_model")]
    # With auto, a best_model alone is of this run: killed before its first checkpoint.
    goes_on = resume_model == "auto" or (
        resumed is not None and resumed.resolve().parent == save_dir.resolve()
    )
    if known and not goes_on:
        raise TrainingError(
            f"--save_dir {save_dir} holds an earlier run ({known[-1].name}), which this one would "
            "overwrite. Resume it with --resume_model auto, or choose another --save_dir"
        )
    return resumed


def _clean(save_dir: Path) -> None:
    """Remove what a kill during a save left, and undo an incomplete replacement."""
    for old in save_dir.glob(f"{_REPLACED}*"):
        name = save_dir / old.name[len(_REPLACED) :]
        if not name.exists():  # killed between the two renames of _publish
            with contextlib.suppress(OSError):
                old.rename(name)
    for pattern in (f"{_REPLACED}*", f"{_PARTIAL}*", f"*best_model/{_PARTIAL}*"):
        for leftover in [*save_dir.glob(pattern)]:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _cleaned_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints that are in a folder once it is cleaned, from old to new."""
    # Before the others: renamed in between, a checkpoint is found twice rather than never.
    replaced = [path.name[len(_REPLACED) :] for path in run.glob(f"{_REPLACED}iter_*")]
    names = {*replaced, *(path.name for path in list_checkpoints(run))}
    return [run / name for name in sorted(names, key=lambda name: int(name.rpartition("_")[2]))]


def find_weights(folder: Path, name: str = "model") -> Path:
    """Return the file of weights in a folder, whichever format it has; it may be missing."""
    path = folder / f"{name}.safetensors"
    return path if path.is_file() else path.with_suffix(".pdparams")


def save(folder: Path, files: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint: ``folder`` is complete, or as it was before.

    Args:
        folder: ``iter_N`` in the folder of the run.
        files: State dicts by file name.
        state: What else is kept, as JSON.

    Raises:
        TrainingError: If the disk is full, or the checkpoint cannot be written.
    """
    writing = folder.with_name(_PARTIAL + folder.name)
    for name, content in files.items():
        if name == "model.safetensors":  # which has no place for them
            state = {**state, _NAMES: {key: tensor.name for key, tensor in content.items()}}
    with _explained(folder, files):
        shutil.rmtree(writing, ignore_errors=True)
        try:
            writing.mkdir(parents=True)
            for name, content in files.items():
                _write(writing / name, content)
            _write(writing / STATE, state)
            write_sums(writing, sums_of(writing.iterdir()))
            to_disk(writing)
            _publish(writing, folder)
        finally:
            shutil.rmtree(writing, ignore_errors=True)


def save_best(path: Path, weights: Mapping[str, Any], best: Best) -> None:
    """Replace the best weights at ``path``, and record their score beside them.

    Raises:
        TrainingError: As :func:`save`; the weights before stay.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _explained(path, weights):
        # Weights first: killed in between, a resumed run writes the same weights again.
        targets = (path, path.with_name(_BEST))
        parts = [target.with_name(_PARTIAL + target.name) for target in targets]
        try:
            for part, content in zip(parts, (weights, best._asdict())):
                _write(part, content)
            old = sums_of(target for target in targets if target.is_file())
            new = {target.name: file_sha256(part) for part, target in zip(parts, targets)}
            write_sums(path.parent, old, new)
            for part, target in zip(parts, targets):
                to_disk(path.parent)  # in this order on the disk, too
                part.replace(target)
            to_disk(path.parent)
            write_sums(path.parent, new)
            other = {".pdparams": ".safetensors"}.get(path.suffix, ".pdparams")
            path.with_suffix(other).unlink(missing_ok=True)  # of a run resumed in another format
            to_disk(path.parent)
        finally:
            for part in parts:
                part.unlink(missing_ok=True)


def read_best(folder: Path) -> Best:
    """Return the score that :func:`save_best` recorded in a folder."""
    path = folder / _BEST
    return Best(**read_json(path)) if path.is_file() else Best()


def prune(save_dir: Path, iteration: int, keep: int) -> None:
    """Delete the oldest checkpoints up to an iteration, but ``keep`` of them; all stay if it is 0.

    Those after ``iteration`` are of a run that was resumed from before them.
    """
    if keep <= 0:
        return
    known = [path for path in list_checkpoints(save_dir) if iteration_of(path) <= iteration]
    for old in known[:-keep]:
        shutil.rmtree(_renamed(old, _PARTIAL))


def restore(folder: Path, model: nn.Layer, optimizer: paddle.optimizer.Optimizer) -> dict[str, Any]:
    """Load a checkpoint, of this plugin's training or of PaddleSeg's, without running code in it.

    The learning rate schedule of the optimiser is restored, too.

    Returns:
        The content of ``training.json``; empty if PaddleSeg's loop wrote the checkpoint.

    Raises:
        WeightsError: If a file is missing, broken, or of another network.
    """
    weights, path = find_weights(folder), folder / "model.pdopt"
    load_weights(model, weights)
    record = folder / STATE
    state = read_json(record) if record.is_file() else {}
    names = state.pop(_NAMES, None)
    if names is None:
        names = read_arrays(weights).get(_NAMES, {}) if weights.suffix == ".pdparams" else {}
    content = read_arrays(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is not the state of an optimiser")
    renaming = {
        names[key]: tensor.name for key, tensor in model.state_dict().items() if key in names
    }
    try:
        optimizer.set_state_dict(_renamed_state(content, renaming))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} does not fit the optimiser: {error}") from error
    return state


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON document.

    Raises:
        WeightsError: If it is not JSON, or not the one that was written.
    """
    check_sum(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not valid JSON: {error}") from error


def _renamed_state(content: Mapping[str, Any], renaming: Mapping[str, str]) -> dict[str, Any]:
    """Translate an optimiser's state to the names that parameters have in this process.

    Paddle numbers parameters as they are made. If other code made some before, or PaddleSeg's
    class was trained, the state of ``conv2d_3.w_0`` is that of another parameter here.
    """
    state = {}
    for key, value in content.items():
        if key == _NAMES:
            continue
        if key == "master_weights":
            value = {
                renaming.get(name, name): paddle.to_tensor(_array(weight))
                for name, weight in value.items()
            }
        old = next((name for name in renaming if key.startswith(f"{name}_")), None)
        state[renaming[old] + key[len(old) :] if old else key] = _array(value)
    return state


def _array(value: Any) -> Any:
    is_named = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray)
    return value[1] if is_named else value


@contextlib.contextmanager
def _explained(target: Path, content: Mapping[str, Any]) -> Iterator[None]:
    """Refuse to write if the disk is full, and report what a failure leaves."""
    stays = "Earlier checkpoints did not change"
    needed, free = _bytes(content), shutil.disk_usage(target.parent).free
    if needed > free:
        raise TrainingError(
            f"cannot write {target}: it takes {needed / 2**20:.0f} MiB, and the disk has "
            f"{free / 2**20:.0f} MiB left. {stays}; free some space and resume with --resume_model"
        )
    try:
        yield
    except OSError as error:
        raise TrainingError(f"cannot write {target}: {error}. {stays}") from error


def _bytes(content: Any) -> int:
    if isinstance(content, Mapping):
        return sum(map(_bytes, content.values()))
    return content.size * content.element_size() if isinstance(content, paddle.Tensor) else 0


def _write(path: Path, content: Any) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps(content), encoding="utf-8")
    elif path.suffix == ".safetensors":
        save_safetensors({name: tensor.numpy() for name, tensor in content.items()}, path)
    else:
        paddle.save(content, str(path))
    to_disk(path)


def _publish(writing: Path, folder: Path) -> None:
    """Give a complete folder its name; only then remove an earlier one."""
    replaced = _renamed(folder, _REPLACED) if folder.exists() else None
    writing.rename(folder)
    to_disk(folder.parent)
    if replaced is not None:
        shutil.rmtree(replaced)


def _renamed(folder: Path, prefix: str) -> Path:
    """Hide a folder before deleting it, so that half of it never counts as a checkpoint."""
    return folder.rename(folder.with_name(prefix + folder.name))
