"""A cache of decoded images and labels, in a folder that all processes of a machine share.

A file of the folder is one array, mapped when it is read: only the pixels that a crop takes are
touched. Whatever happens to a process, a file is complete or absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from liteseg_plugin.errors import ConfigError
from liteseg_plugin.system.files import private_folder

_STAMP_BYTES = 32


class FrameCache:
    """Arrays by the file that they were decoded from.

    When the folder is full, further files are decoded each time. Nothing is evicted: an epoch
    reads every file once, so eviction would only cost time.

    Args:
        folder: Folder of the arrays; created if missing.
        limit: Limit of the total size of its arrays, in bytes.

    Raises:
        ConfigError: If the folder cannot be used or is not this user's own, or this system has no
            file locks of Unix.
    """

    def __init__(self, folder: str | os.PathLike, limit: int) -> None:
        self._folder = Path(folder).expanduser().absolute()
        self._limit = limit
        self._closed = False
        try:
            private_folder(self._folder)
            # A kill may have left a count that is too high.
            with self._locked() as count:
                _write_number(count, sum(p.stat().st_size for p in self._folder.glob("*.npy")))
        except OSError as error:
            raise ConfigError(
                f"decoded images cannot be cached in {self._folder}: {error}; cache_dir names a "
                "folder"
            ) from error

    def read(self, path: str, decode: Callable[[str], np.ndarray], kind: str) -> np.ndarray:
        """Return what ``decode(path)`` gives; the array may be read-only.

        Args:
            path: The file; if it has changed, it is decoded again.
            decode: Reads it.
            kind: Names ``decode``, if a file is decoded in several ways.
        """
        stamp = _stamp(path)
        file = os.fsencode(os.path.abspath(path))  # whose name may not be text
        name = hashlib.sha256(f"{kind}\0".encode() + file).hexdigest()
        stored = self._folder / f"{name[:40]}.npy"
        array = _map(stored, stamp) if stamp else None
        if array is None:
            array = decode(path)
            if stamp and stamp == _stamp(path) and not self._closed:
                self._store(stored, array, stamp)
        return array

    def _store(self, path: Path, array: np.ndarray, stamp: bytes) -> None:
        part = self._folder / "part"
        array = np.ascontiguousarray(array)
        try:
            with self._locked() as count, contextlib.ExitStack() as unless_renamed:
                replaced = path.stat().st_size if path.exists() else 0
                head = io.BytesIO()
                npy.write_array_header_1_0(head, npy.header_data_from_array_1_0(array))
                size = head.tell() + array.nbytes + len(stamp)
                used = _read_number(count) - replaced + size
                self._closed = used > self._limit
                if self._closed:
                    return
                unless_renamed.callback(part.unlink, missing_ok=True)
                with part.open("wb") as file:
                    file.write(head.getvalue())
                    file.write(array.data)
                    file.write(stamp)
                    file.flush()
                    os.fsync(file.fileno())
                _write_number(count, used)  # first: a kill leaves it too high, not too low
                os.replace(part, path)
        except (OSError, ValueError) as error:  # of a corrupt count
            from paddleseg.utils import logger

            self._closed = True
            logger.warning(f"No more decoded images are cached in {self._folder}: {error}")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Lock out other processes and threads; yield the file that counts the bytes."""
        try:
            import fcntl
        except ImportError as error:
            raise ConfigError("cache_gb needs the file locks of Unix; remove it here") from error
        file = os.open(self._folder / "bytes", os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(file, "rb+", buffering=0):
            fcntl.flock(file, fcntl.LOCK_EX)  # a kill unlocks
            try:
                yield file
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked since has it too


def _stamp(path: str) -> bytes | None:
    """Return a stamp that changes when the file is written."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return hashlib.sha256(repr(facts).encode()).digest()[:_STAMP_BYTES]


def _map(path: Path, stamp: bytes) -> np.ndarray | None:
    """Return the array of a complete file that ends with this stamp."""
    try:
        with path.open("rb") as file:
            file.seek(-_STAMP_BYTES, os.SEEK_END)
            if file.read() != stamp:
                return None
            file.seek(0)
            npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file)
            if dtype.hasobject:
                return None
            return np.memmap(file, dtype, "r", file.tell(), shape).view(np.ndarray)
    except (OSError, ValueError):
        return None


def _read_number(file: int) -> int:
    return int(os.pread(file, 20, 0) or 0)  # nothing, if someone emptied the folder


def _write_number(file: int, number: int) -> None:
    os.pwrite(file, b"%020d" % number, 0)
