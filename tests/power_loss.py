"""A disk that loses power: what was not forced to it is gone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

CHANGES = ("replace", "rename", "unlink", "remove", "rmdir")


class PowerLoss:
    """Records what a power failure at each moment would leave of a folder.

    A file has the content of its last `fsync`, a folder the names of its last one; what was there
    before is on the disk. Each moment gives two states: with the names that were forced to the
    disk, and with the current names, as a file system may write them earlier than contents.
    """

    def __init__(self, root: Path, monkeypatch) -> None:
        self.root, self.states = root, []
        self._contents, self._names, self._held = {}, {}, []
        for path in (root, *root.rglob("*")):
            self._force(path)
        fsync = os.fsync

        def forced(descriptor):
            fsync(descriptor)
            self._force(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            self._record()

        monkeypatch.setattr(os, "fsync", forced)
        for name in CHANGES:
            monkeypatch.setattr(os, name, self._recorded(getattr(os, name)))

    def write(self, target: Path):
        """Write each state into a folder of its own, and yield the folders."""
        self._record()
        for number, state in enumerate(self.states):
            folder = target / str(number)
            folder.mkdir(parents=True)
            for name, content in state.items():
                path = folder / name
                if content is None:
                    path.mkdir(parents=True, exist_ok=True)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            yield folder

    def _recorded(self, original):
        def change(*args, **kwargs):
            self._record()
            result = original(*args, **kwargs)
            self._record()
            return result

        return change

    def _force(self, path: Path) -> None:
        found = path.lstat()
        self._held.append(os.open(path, os.O_RDONLY))  # so that no other file gets its number
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = {p.name: _identity(p) for p in path.iterdir()}
        else:
            self._contents[found.st_ino] = path.read_bytes()

    def _record(self) -> None:
        for current in (False, True):
            state: dict[str, bytes | None] = {}
            self._read(_identity(self.root), self.root if current else None, "", state)
            if state not in self.states:
                self.states.append(state)

    def _read(self, identity, current, prefix, state) -> None:
        number = identity[0]
        names = self._names.get(number, {})
        if current is not None:
            names = {path.name: _identity(path) for path in current.iterdir()}
        for name, child in names.items():
            path = f"{prefix}{name}"
            if child[1]:
                state[path] = None
                below = None if current is None else current / name
                self._read(child, below, f"{path}/", state)
            else:
                state[path] = self._contents.get(child[0], b"")


def _identity(path: Path) -> tuple[int, bool]:
    found = path.lstat()
    return found.st_ino, stat.S_ISDIR(found.st_mode)
