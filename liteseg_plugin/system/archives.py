"""Archives, unpacked member by member within bounds."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from liteseg_plugin.errors import DataError, LitesegError, printable
from liteseg_plugin.system.files import scratch_folder

MOST_MEMBERS = 200_000
"""Files and folders of an archive."""
MOST_BYTES = 64 << 30
"""Bytes of its files."""
MOST_RATIO = 200
"""Bytes of its files as a multiple of its own size; images and weights have less than 10."""

_FREE_BYTES = 1 << 20  # which the ratio does not count
_HEADER_BYTES = 1 << 20  # of one member of a tar
_BLOCK = 1 << 20
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
# Of members that do not fit each other, a name that is too long, a place before the file's start.
_OF_MEMBERS = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL)


class _Member(NamedTuple):
    name: str
    kind: str  # "file", "folder", or what is refused
    open: Any


def is_archive(path: str | os.PathLike) -> bool:
    """Tell whether a file is a tar, compressed or not, or a zip."""
    try:
        return any(True for _ in _members(Path(path), _FREE_BYTES)) or _is_zip(Path(path))
    except _TooLargeError:
        return True  # to be refused
    except Exception:  # a hostile file may raise anything
        return False


def unpack(
    archive: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    most_members: int = MOST_MEMBERS,
    most_bytes: int = MOST_BYTES,
    error: type[LitesegError] = DataError,
) -> list[str]:
    """Unpack a tar or zip: all of it, or nothing.

    Only files and folders below the folder are written, with the permissions of new files.

    Args:
        archive: The file.
        folder: Where its members go; created if missing. Files there are replaced.
        most_members: Number of files and folders that it may have.
        most_bytes: Bytes that its files may have, at most ``MOST_RATIO`` times its own size.
        error: What to raise.

    Returns:
        The names of its files, as they are in the folder.

    Raises:
        LitesegError: Of the type ``error``, if it is not an archive, is damaged, exceeds a bound,
            or has an absolute path, a path with ``..``, a link, a device, or a file twice.
        OSError: If the folder cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = archive.stat().st_size
    left = min(most_bytes, _FREE_BYTES + MOST_RATIO * size, shutil.disk_usage(folder).free)
    names = []
    with scratch_folder(folder, "unpack") as scratch:
        try:
            for number, member in enumerate(_members(archive, left)):
                if number >= most_members:
                    raise error(f"{archive} has more than {most_members} members")
                parts = _parts(member.name)
                if parts is None or member.kind not in ("file", "folder"):
                    what = "a path outside of it" if parts is None else member.kind
                    raise error(f"{archive} is refused: {printable(member.name)} is {what}")
                target = scratch.joinpath(*parts)
                if member.kind == "folder":
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, target.open("xb") as file:
                    left = _copy(source, file, left)
                names.append("/".join(parts))
        except _TooLargeError:
            raise error(
                f"{archive} is refused: it holds more than its {size} bytes can honestly hold, or "
                "than the disk has left"
            ) from None
        except LitesegError:
            raise
        except Exception as wrong:  # a hostile file may raise anything
            if isinstance(wrong, OSError) and wrong.errno not in (None, *_OF_MEMBERS):
                raise
            raise error(
                f"{archive} is not an archive, or is damaged ({type(wrong).__name__}: {wrong})"
            ) from wrong
        _move(scratch, folder, error)
    return names


def _move(source: Path, folder: Path, error: type[LitesegError]) -> None:
    """Move what a folder holds into another one, but not through links."""
    moves = [(path, folder / path.relative_to(source)) for path in sorted(source.rglob("*"))]
    for _, target in moves:
        if target.is_symlink():
            raise error(f"{target} is a link, through which nothing is unpacked; remove it")
    for path, target in moves:
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            os.replace(path, target)


class _TooLargeError(Exception):
    """A bound of the archive is exceeded."""


def _copy(source: IO[bytes], target: IO[bytes], left: int) -> int:
    """Copy a file, and return how many bytes are left."""
    while block := source.read(_BLOCK):
        left -= len(block)
        if left < 0:
            raise _TooLargeError
        target.write(block)
    return left


def _parts(name: str) -> list[str] | None:
    """Return the parts of a member's path; None if it leads out of the folder, on any system."""
    if re.match(r"[/\\]|[A-Za-z]:", name) or "\0" in name:
        return None
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    return None if ".." in parts else parts


def _members(archive: Path, most_bytes: int) -> Iterator[_Member]:
    return _of_zip(archive) if _is_zip(archive) else _of_tar(archive, most_bytes)


def _is_zip(archive: Path) -> bool:
    with archive.open("rb") as file:
        return file.read(2) == b"PK" and zipfile.is_zipfile(archive)


def _of_zip(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            mode = info.external_attr >> 16
            kind = "folder" if info.is_dir() else "file"
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a link or a device"
            if info.flag_bits & 1:
                kind = "encrypted"
            yield _Member(info.filename, kind, lambda info=info: file.open(info))


class _Header(tarfile.TarInfo):
    """A header whose damage is an error; tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None


def _of_tar(archive: Path, most_bytes: int) -> Iterator[_Member]:
    with archive.open("rb") as raw:
        head = raw.read(8)
        raw.seek(0)
        opener = next((o for magic, o in _OPENERS.items() if head.startswith(magic)), None)
        stream: Any = _Bounded(opener(raw) if opener else raw, most_bytes)  # type: ignore[operator]
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=_Header) as file:
            while (info := file.next()) is not None:
                kind = "a link or a device"
                if info.isreg() or info.isdir():
                    kind = "folder" if info.isdir() else "file"
                file.members = []  # type: ignore[attr-defined]  # they would add up
                yield _Member(info.name, kind, lambda info=info: file.extractfile(info))


class _Bounded:
    """A decompressed tar; a header cannot take all memory, nor an archive all time."""

    def __init__(self, file: Any, most_bytes: int) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell
        self._last = 2 * most_bytes + _HEADER_BYTES  # with headers and padding

    def read(self, number: int = -1) -> bytes:
        """Return bytes, as many as a header or a block of a file may have."""
        if not 0 <= number <= _HEADER_BYTES or self._file.tell() > self._last:
            raise _TooLargeError
        return self._file.read(number)
