"""One training at a time in a folder."""

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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FILE = ".lock"
# What lockf raises where another process holds the lock; anything else means there are no locks.
_TAKEN = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def hold(save_dir: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, so that no other training writes or deletes there.

    The kernel releases the lock when the process ends, however it ends. ``lockf`` rather than
    ``flock``: worker processes of the data loader would inherit the latter, and keep it for a
    while after a kill. Without locks (Windows, some network file systems) a warning is logged.

    Args:
        save_dir: The folder; it is created if missing.

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
