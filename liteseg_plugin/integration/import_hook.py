"""Run an action once a module has been imported.

This is what lets the package register its components without importing Paddle itself, and what
the autoload line in site-packages rests on; so it imports nothing that Python has not loaded at
its start.
"""

from __future__ import annotations

import sys

# The names of typing and importlib.machinery would cost every interpreter start milliseconds.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def when_imported(name: str, action: Callable[[], None]) -> None:
    """Call ``action`` after the top-level module ``name`` was imported, or now if it was.

    An exception of the action reaches whoever imports the module.
    """
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        action()
        return
    sys.meta_path.insert(0, _AfterImport(name, action))


class _AfterImport:
    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self._name = name
        self._action = action
        self._searching = False

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name or self._searching:
            return None
        self._searching = True
        try:
            spec = next(filter(None, (_find(f, name, target) for f in sys.meta_path)), None)
        finally:
            self._searching = False
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_then_act(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._action()

        spec.loader.exec_module = execute_then_act  # type: ignore[method-assign]
        return spec


def _find(finder: object, name: str, target: ModuleType | None) -> ModuleSpec | None:
    find_spec = getattr(finder, "find_spec", None)
    return find_spec(name, None, target) if find_spec else None
