"""Read and write files: many at a time, whole or not at all, and YAML within bounds."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from liteseg_plugin.errors import ConfigError, LitesegError


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
        bar = tqdm(total=len(items), desc=description, unit="file", disable=not progress)
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


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Write a file under another name and rename it: what has the name is complete.

    Args:
        path: The file; its folder is made if need be.
        content: What it shall hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


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
