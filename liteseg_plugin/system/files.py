"""Atomic writes, leftovers of killed processes, and the cache folder."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import glob
import itertools
import os
import platform
import re
import shlex
import shutil
import stat
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from liteseg_plugin.errors import printable
from liteseg_plugin.system.heartbeat import is_alive

_LFS_START = b"version https://git-lfs.github.com/spec/v1"
_SHOWN_NAME = 48
_TAG = re.compile(r"\.(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]+)-")
_LEFT_AFTER_SECONDS = 24 * 3600
_number = itertools.count()


def atomic_write(
    path: str | os.PathLike, content: bytes | memoryview, *, durable: bool = True
) -> None:
    """Write a file atomically: under another name, then renamed.

    Args:
        path: The file; its folder is created if missing.
        content: Its content.
        durable: Whether it is complete even after a power failure, which costs about a
            millisecond; without it, such a failure may leave an empty file.

    Raises:
        OSError: If it cannot be written; an existing file does not change.
    """
    path = Path(path)
    # Part of the name only, as the file system limits its length.
    name = f".{path.name[:_SHOWN_NAME]}.{scratch_tag()}-{next(_number)}.part"
    scratch = path.with_name(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_parts(os.path.abspath(path.parent))
        try:
            scratch.write_bytes(content)
            if durable:
                to_disk(scratch)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {printable(path)}: {error.strerror}") from error


def require_html(path: str | os.PathLike) -> None:
    """Refuse the name of a page that would promise another format.

    Raises:
        ValueError: If it does not end in ``.html``, in upper or lower case.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"{printable(path)} would be HTML; name it {printable(path.stem)}.html")


@contextlib.contextmanager
def scratch_folder(parent: str | os.PathLike, name: str) -> Iterator[Path]:
    """Create a hidden folder, and remove it afterwards; also remove those of killed processes.

    ``name`` is its purpose, and part of its name.
    """
    remove_leftovers(parent, f".{glob.escape(name)}.*")
    prefix = f".{name}.{scratch_tag()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder:
        yield Path(folder)


def is_lfs_pointer(path: str | os.PathLike) -> bool:
    """Tell whether a file is a Git LFS pointer, left where the content was not fetched.

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read(len(_LFS_START)) == _LFS_START


def to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place_folder(made: Path, dest: Path) -> None:
    """Rename a complete folder to its final name, under which a power failure leaves it whole.

    Args:
        made: The folder; all that it holds is forced to the disk first.
        dest: Its name, on the same disk; absent, or an empty folder.
    """
    for path in (*made.rglob("*"), made):
        to_disk(path)
    os.replace(made, dest)
    to_disk(dest.absolute().parent)


@functools.cache  # once for each folder
def _remove_parts(folder: str) -> None:
    remove_leftovers(folder, ".*.part")


def scratch_tag() -> str:
    """Return the part of a scratch file's name that identifies its process: ``MACHINE-PID``.

    :func:`remove_leftovers` looks for it between ``.`` and ``-``, as in ``.export.TAG-``.
    """
    return f"{_machine()}-{os.getpid()}"


@functools.cache
def _machine() -> str:
    """Return a short name of the scope of process numbers: a host, or a container on it."""
    numbers = ""
    with contextlib.suppress(OSError):
        numbers = os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(f'{platform.node()} {numbers}'.encode()):08x}"


def remove_leftovers(folder: str | os.PathLike, pattern: str) -> None:
    """Remove scratch files and folders of processes that were killed.

    They are those with the tag of a process that has ended. Where that cannot be known (on
    Windows, or as the folder is shared with another machine), it is those a day old.

    Args:
        folder: The folder; subfolders are not searched.
        pattern: Of the names, as :mod:`fnmatch` has it.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(os.fspath(folder))):
            tag = _TAG.search(entry.name)
            if not tag or not fnmatch.fnmatchcase(entry.name, pattern):
                continue
            # Another process may be removing the same.
            with contextlib.suppress(OSError):
                if not _is_left(entry, tag["machine"], int(tag["pid"])):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def _is_left(entry: os.DirEntry, machine: str, pid: int) -> bool:
    if machine != _machine() or os.name == "nt":  # where os.kill ends the process
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _LEFT_AFTER_SECONDS
    return not is_alive(pid)


def cache_folder() -> Path:
    """Return the cache folder: ``LITESEG_CACHE``, or the user's."""
    chosen = os.environ.get("LITESEG_CACHE")
    if chosen:
        return Path(chosen)
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    return Path(os.environ.get(variable) or Path.home() / ".cache", "liteseg")


def private_folder(path: str | os.PathLike) -> Path:
    """Return a folder for a cache, which only this user can change; create it if missing.

    Who can write into it can replace engines, which hold code, and pixels that are trained with. A
    new folder has mode 0700, and so gets one in :func:`cache_folder`; another folder keeps its
    mode.

    Raises:
        OSError: If it is a symbolic link or not a folder, belongs to another user, or others may
            write into it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()  # the folder itself: links are not followed
    problem = ""
    if stat.S_ISLNK(found.st_mode):
        problem = "it is a symbolic link, which caches do not follow; name the folder itself"
    elif not stat.S_ISDIR(found.st_mode):
        problem = "it is not a folder"
    elif hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        problem = f"it belongs to another user (number {found.st_uid}); name a folder of your own"
    elif os.path.abspath(path.parent) == os.path.abspath(cache_folder()):
        path.chmod(0o700)
    elif os.name != "nt" and found.st_mode & 0o022:
        problem = f"other users may write into it; run: chmod go-w {shlex.quote(str(path))}"
    if problem:
        raise OSError(f"the cache {printable(path)} is not used: {problem}")
    return path
