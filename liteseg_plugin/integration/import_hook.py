"""Run an action once a module has been imported.

This is what lets the package register its components without importing Paddle itself, and what
the autoload line in site-packages rests on; so it imports nothing that Python has not loaded at
its start.
"""

from __future__ import annotations

import sys

# PaddleSeg loads scikit-learn, and with it pandas and SciPy's statistics, for --auc_roc alone. That
# takes more than half of the time in which PaddleSeg is imported.
_DEFERRED = {"paddleseg": ("sklearn", "sklearn.metrics")}

# The names of typing and importlib.machinery would cost every interpreter start milliseconds.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
else:
    ModuleType = type(sys)


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
            deferred = _defer(_DEFERRED.get(name, ()))
            try:
                execute(module)
            finally:
                _drop(deferred)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._action()

        spec.loader.exec_module = execute_then_act  # type: ignore[method-assign]
        return spec


def _find(finder: object, name: str, target: ModuleType | None) -> ModuleSpec | None:
    find_spec = getattr(finder, "find_spec", None)
    return find_spec(name, None, target) if find_spec else None


class Deferred(ModuleType):
    """Stands in for a module until something is asked of it, which imports the module."""

    def __getattr__(self, attribute: str) -> object:
        """Import the module, and ask it."""
        from importlib import import_module

        name = self.__name__
        _drop([module for module in sys.modules.values() if isinstance(module, Deferred)])
        return getattr(import_module(name), attribute)


def _defer(names: tuple[str, ...]) -> list[ModuleType]:
    """Let ``import`` give stand-ins for a package and its modules; none if it is loaded.

    Args:
        names: The package, then modules of it.
    """
    if not names or names[0] in sys.modules:
        return []
    package, *modules = (Deferred(name) for name in names)
    for module in modules:
        setattr(package, module.__name__.rpartition(".")[2], module)
    sys.modules.update({module.__name__: module for module in (package, *modules)})
    return [package, *modules]


def _drop(deferred: list[ModuleType]) -> None:
    """Let ``import`` give the modules themselves again."""
    for module in deferred:
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]
