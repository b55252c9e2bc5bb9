"""Text of users: files, read within bounds, and names that are nearly right."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from liteseg_plugin.errors import ConfigError, LitesegError

MOST_YAML_BYTES = 1 << 20
MOST_YAML_NODES = 50_000
MOST_YAML_CHARACTERS = 10_000
MOST_YAML_LEVELS = 100


def read_text(path: str | os.PathLike, error: type[LitesegError] = ConfigError) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

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


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return a question that names what is alike, or nothing.

    ``cutoff`` is the least likeness, 0 to 1, as :mod:`difflib` measures it.
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f"did you mean {' or '.join(close)}?" if close else ""


def read_yaml(path: str | os.PathLike) -> Any:
    """Read a YAML file within bounds: even a small file can take hours or all memory.

    It builds plain values only; a tag for an object of Python is an error.

    Raises:
        ConfigError: If the file is not UTF-8, not YAML, or exceeds ``MOST_YAML_BYTES``,
            ``MOST_YAML_NODES`` (with aliases and merges expanded), ``MOST_YAML_CHARACTERS`` in one
            value or ``MOST_YAML_LEVELS``.
        OSError: If it cannot be read.
    """
    size = os.path.getsize(path)
    if not os.path.isfile(path):  # a device has no size, and no end
        raise ConfigError(f"{path} is not a file")
    if size > MOST_YAML_BYTES:
        raise ConfigError(f"{path} has {size} bytes; a YAML file here has up to {MOST_YAML_BYTES}")
    text = read_text(path)
    try:
        return yaml.load(text, _Bounded)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error


class _Bounded(yaml.SafeLoader):
    """Bounds PyYAML's loader before it builds values."""

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
        """Count the values of a node, with aliases expanded."""
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = -1  # until it is counted
            parts = node.value
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in parts for part in pair]
            sizes[id(node)] = 1 + sum(self._expanded(part, sizes) for part in parts)
        elif sizes[id(node)] < 0:
            self._refuse("an alias inside its own anchor", node.start_mark)
        return sizes[id(node)]

    def _refuse(self, what: str, mark: yaml.Mark) -> None:
        raise yaml.composer.ComposerError(None, None, f"it has {what}", mark)
