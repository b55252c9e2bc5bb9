"""Read and write files: many at a time, whole or not at all, and YAML within bounds."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import itertools
import os
import platform
import re
import shutil
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from liteseg_plugin.errors import ConfigError, LitesegError

_SHOWN_NAME = 48
_TAG = re.compile(r"\.(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]+)-")
_LEFT_AFTER_SECONDS = 24 * 3600
_number = itertools.count()
_LOG_SECONDS = 30  # between two lines of progress in a log


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """Return a progress bar: tqdm's on a terminal, a line every 30 seconds in a log.

    Args:
        iterable: What to go through; None to call ``update`` instead.
        options: Of tqdm.
    """
    if sys.stderr is not None and not sys.stderr.isatty():
        sparse = {"mininterval": _LOG_SECONDS, "maxinterval": _LOG_SECONDS}
        options = {**sparse, "ascii": True, "file": _Lines(), **options}
    return tqdm(iterable, **options)


class ProgressBar:
    """The progress bar in place of PaddleSeg's ``Progbar``, which writes into a log at each batch.

    Args:
        target: Number of batches.
        options: Of PaddleSeg's; they are about its looks.
    """

    def __init__(self, target: int, **options: Any) -> None:
        self._bar = progress_bar(total=target, unit="batch")

    def update(self, current: int, values: Any = None) -> None:
        """Show that ``current`` batches are done."""
        self._bar.update(current - self._bar.n)
        if current >= self._bar.total:
            self._bar.close()


class _Lines:
    """Standard error, where each state of a progress bar becomes a line of its own."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def process(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    description: str,
    workers: int | None = None,
    progress: bool = True,
) -> list[Any]:
    """Call a function on each item, several at a time, with a progress bar.

    Threads do: decoding, encoding and hashing, which take the time here, let others run.

    Args:
        function: What to do; the first exception that it raises stops everything.
        items: One argument each.
        description: Of the progress bar.
        workers: Number of threads; by default that of the processors.
        progress: Whether to show a progress bar.

    Returns:
        The results, in the order of the items.
    """
    results: list[Any] = [None] * len(items)
    pool = ThreadPoolExecutor(max_workers=workers or os.cpu_count())
    try:
        places = {pool.submit(function, item): place for place, item in enumerate(items)}
        bar = progress_bar(total=len(items), desc=description, unit="file", disable=not progress)
        with bar:
            for done in as_completed(places):
                results[places[done]] = done.result()
                bar.update()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any], number: int
) -> Iterator[Any]:
    """Yield ``function(item)`` in order, computed by the pool up to ``number`` items before."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > number:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def write_whole(path: str | os.PathLike, content: bytes, *, durable: bool = True) -> None:
    """Write a file under another name and rename it: what has the name is complete.

    Args:
        path: The file; its folder is made if need be.
        content: What it shall hold.
        durable: Whether it is complete even after a power failure, which costs about a
            millisecond; without it, such a failure may leave an empty file.

    Raises:
        OSError: If it cannot be written; a file that has the name already stays as it is.
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
                _to_disk(scratch)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        shown = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
        raise OSError(error.errno, f"cannot write {shown}: {error.strerror}") from error


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.cache  # once for each folder
def _remove_parts(folder: str) -> None:
    remove_leftovers(folder, ".*.part")


def scratch_tag() -> str:
    """Return the part of a scratch file's name that says whose it is: ``MACHINE-PID``.

    :func:`remove_leftovers` looks for it between ``.`` and ``-``, as in ``.export.TAG-``.
    """
    return f"{_machine()}-{os.getpid()}"


@functools.cache
def _machine() -> str:
    """Return a short name of where process numbers mean the same: a host, or a container on it."""
    numbers = ""
    with contextlib.suppress(OSError):
        numbers = os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(f'{platform.node()} {numbers}'.encode()):08x}"


def remove_leftovers(folder: str | os.PathLike, pattern: str) -> None:
    """Remove scratch files and folders of processes that were killed.

    They are those with the tag of a process that has ended. Where that cannot be known (on
    Windows, or as the folder is shared with another machine), it is those a day old.

    Args:
        folder: Where to look; not below.
        pattern: Of the names, as :mod:`fnmatch` has it.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
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
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's, or no process number
        pass
    return False


def read_text(path: str | os.PathLike, error: type[LitesegError] = ConfigError) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        error: What to raise.

    Raises:
        LitesegError: Of the type ``error``, if the file is not UTF-8; the message says where.
        OSError: If it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        before = content[: wrong.start]
        line, column = before.count(b"\n") + 1, wrong.start - before.rfind(b"\n")
        raise error(
            f"{path} is not UTF-8: byte 0x{content[wrong.start]:02x} at line {line}, column "
            f"{column}; save as UTF-8"
        ) from None


def read_yaml(
    path: str | os.PathLike, loader: type[yaml.SafeLoader | yaml.FullLoader] = yaml.SafeLoader
) -> Any:
    """Read a YAML file within bounds: a small one may otherwise take hours, or all memory.

    Args:
        path: The file.
        loader: PyYAML's loader to read it with.

    Raises:
        ConfigError: If the file is not UTF-8, not YAML, or exceeds ``MOST_YAML_BYTES``,
            ``MOST_YAML_NODES`` (with aliases and merges expanded), ``MOST_YAML_CHARACTERS`` in one
            value or ``MOST_YAML_LEVELS``.
        OSError: If it cannot be read.
    """
    size = os.path.getsize(path)
    if size > MOST_YAML_BYTES:
        raise ConfigError(f"{path} has {size} bytes; a YAML file here has up to {MOST_YAML_BYTES}")
    text = read_text(path)
    bounded = type("BoundedLoader", (_Bounded, loader), {})
    try:
        return yaml.load(text, bounded)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path} is no valid YAML: {error}") from error


MOST_YAML_BYTES = 1 << 20
MOST_YAML_NODES = 50_000
MOST_YAML_CHARACTERS = 10_000
MOST_YAML_LEVELS = 100


class _Bounded:
    """Bounds a loader of PyYAML, before it makes values of what is written."""

    _level = _written = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        self._level += 1
        self._written += 1
        event = self.peek_event()
        if self._level > MOST_YAML_LEVELS:
            self._refuse(f"more than {MOST_YAML_LEVELS} levels", event.start_mark)
        if self._written > MOST_YAML_NODES:
            self._refuse(f"more than {MOST_YAML_NODES} values", event.start_mark)
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and len(node.value) > MOST_YAML_CHARACTERS:
            self._refuse(f"a value of {len(node.value)} characters", node.start_mark)
        self._level -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        root = super().get_single_node()
        sizes: dict[int, int] = {}
        if root is not None and self._expanded(root, sizes) > MOST_YAML_NODES:
            self._refuse(
                f"aliases (*name) that expand to more than {MOST_YAML_NODES} values",
                root.start_mark,
            )
        return root

    def _expanded(self, node: yaml.Node, sizes: dict[int, int]) -> int:
        """Count the values that a node stands for, each alias as all that it names."""
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = -1  # until it is counted
            parts = node.value
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in parts for part in pair]
            sizes[id(node)] = 1 + sum(self._expanded(part, sizes) for part in parts)
        elif sizes[id(node)] < 0:
            self._refuse("an alias inside of what it names", node.start_mark)
        return sizes[id(node)]

    def _refuse(self, what: str, mark: yaml.Mark) -> None:
        raise yaml.composer.ComposerError(None, None, f"it has {what}", mark)


def per_second(count: float, seconds: float) -> float:
    """Return a rate; of a time that is too short for the clock, the one that a microsecond makes.

    Args:
        count: Of things done.
        seconds: That they took.
    """
    return count / max(seconds, 1e-6)


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``LITESEG_CACHE``, or the user's."""
    chosen = os.environ.get("LITESEG_CACHE")
    if chosen:
        return Path(chosen)
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    return Path(os.environ.get(variable) or Path.home() / ".cache", "liteseg")
