"""One training at a time per folder."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from paddleseg.utils import logger

from liteseg_plugin.errors import TrainingError
from liteseg_plugin.training import checkpoint, processes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FILE = ".lock"
# What lockf raises where another process holds the lock; anything else means no locks here.
_TAKEN = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def run_folder(save_dir: Path, resume_model: str | None) -> Iterator[Path | None]:
    """Lock the folder of a run, clean it, and yield the checkpoint to resume from.

    The main process holds one lock for all processes of ``paddle.distributed.launch``. Takes what
    :func:`checkpoint.prepare` does.

    Raises:
        TrainingError: If another process trains there, or checkpoints would be overwritten.
        WeightsError: If there is no such checkpoint.
    """
    is_main = processes.is_main()
    with hold(save_dir) if is_main else contextlib.nullcontext():
        resumed = checkpoint.prepare(save_dir, resume_model, is_main=is_main)
        if resume_model and not resumed:
            logger.info(f"There is no checkpoint in {save_dir}: starting from the beginning")
        yield resumed


@contextlib.contextmanager
def hold(save_dir: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, so that no other training writes or deletes there.

    The kernel releases the lock when the process ends, however it ends. ``lockf`` rather than
    ``flock``: worker processes of the data loader would inherit the latter, and keep it for a
    while after a kill. Without locks (Windows, some network file systems) a warning is logged. The
    folder is created if missing.

    Raises:
        TrainingError: If another process holds the lock.
    """
    save_dir.mkdir(parents=True, exist_ok=True)
    # Never deleted: a process might lock the deleted file while another locks a new one.
    with (save_dir / _FILE).open("a+", encoding="utf-8") as file:
        _take(file, save_dir)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
        file.truncate(0)


def _take(file: TextIO, save_dir: Path) -> None:
    if fcntl is None:
        logger.warning(f"No file locks on this system: start no other training in {save_dir}")
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _TAKEN:
            logger.warning(f"Cannot lock {file.name} ({error}): start no other training there")
            return
        file.seek(0)
        raise TrainingError(
            f"another training runs in --save_dir {save_dir}: {file.read().strip() or 'a process'}"
            f" holds {file.name}. Give another --save_dir, or stop that process first"
        ) from None
