"""The floors of the package: no room imports from a floor above it, or in a circle."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import liteseg_plugin

PACKAGE = Path(liteseg_plugin.__file__).parent
FLOORS = (
    {"errors", "system"},
    {"models", "losses", "metrics"},
    {"datasets", "weights", "exported"},
    {"training", "visualization"},
    {"integration"},
    {"runtimes"},
    {"inference"},
    {"export", "serving"},
    {"evaluation", "doctor"},
    {"cli"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# They name rooms to load them later: the public names, and what starts the plugin with Python.
ENTRY_POINTS = {"__init__", "__main__", "autoload"}


def room_of(module: str) -> str:
    """Return the package or module right below ``liteseg_plugin``."""
    return [*module.split("."), "__init__"][1]


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """Return what is imported from, for relative imports too."""
    if not node.level:
        return node.module or ""
    parents = module.split(".") if is_package else module.split(".")[:-1]
    parents = parents[: len(parents) + 1 - node.level]
    return ".".join([*parents, *([node.module] if node.module else [])])


def imported_rooms(source: str, module: str, is_package: bool) -> set[str]:
    """Return the rooms that a module imports: at its top, in functions, and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module, is_package)
            # `from liteseg_plugin import models` imports a room; `activate`, a public name.
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {room_of(name) for name in names if name.split(".")[0] == "liteseg_plugin"}
    public = set(liteseg_plugin._ATTRIBUTES) | {"__version__"}
    return {room_of(liteseg_plugin._ATTRIBUTES.get(r, "")) if r in public else r for r in found}


@pytest.fixture(scope="module")
def imports():
    """The rooms that each room imports, with the files that do so."""
    edges = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        room = room_of(module)
        for target in imported_rooms(path.read_text(encoding="utf-8"), module, is_package) - {room}:
            edges[room, target].add(str(path.relative_to(PACKAGE)))
    return edges


def test_no_room_imports_from_a_floor_above(imports):
    assert {
        (room, target): files
        for (room, target), files in imports.items()
        if room not in ENTRY_POINTS and FLOOR[room] < FLOOR.get(target, -1)
    } == {}


def test_no_two_rooms_import_each_other(imports):
    ends = {
        frozenset((room, target)): sorted(imports[room, target] | imports[target, room])
        for room, target in list(imports)
        if (target, room) in imports and not {room, target} & ENTRY_POINTS
    }
    assert ends == {}


def test_every_room_has_a_floor():
    rooms = {path.stem for path in PACKAGE.glob("*.py")}
    rooms |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == FLOOR.keys() | ENTRY_POINTS


def test_few_modules_stand_outside_packages():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(modules) <= 6, sorted(modules)


@pytest.mark.parametrize(
    "source",
    [
        "import liteseg_plugin.cli",
        "from liteseg_plugin.cli import main",
        "from liteseg_plugin import cli",
        "from .. import cli",
        "from ..cli.val import run",
        "def f():\n    import liteseg_plugin.cli.val as val",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from liteseg_plugin.cli import x",
    ],
)
def test_every_way_to_import_is_seen(source):
    assert imported_rooms(source, "liteseg_plugin.models.sppm", False) == {"cli"}
