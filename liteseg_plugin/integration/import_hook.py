"""Run an action once a module has been imported.

This is what lets the package register its components without importing Paddle itself, and what
the autoload line in site-packages rests on; so it imports nothing that Python has not loaded at
its start.
"""

from __future__ import annotations

import sys

# What Paddle and PaddleSeg load, each for a few of its functions, with the functions that they take
# from it by name. All of it is more than half of the time in which PaddleSeg is imported.
_DEFERRED: dict[str, dict[str, tuple[str, ...]]] = {
    "paddle": {
        "httpx": (),  # to download
        "paddle.utils.cpp_extension": (),  # to compile operators, with setuptools
        "paddle.utils.cpp_extension.extension_utils": (),
    },
    "paddleseg": {
        "requests": (),  # to download
        "sklearn": (),  # for --auc_roc, with pandas
        "sklearn.metrics": (),
        "scipy.ndimage": ("distance_transform_edt", "shift"),  # for losses of other models
        "scipy.optimize": ("linear_sum_assignment",),
    },
}

# The names of typing and importlib.machinery would cost every interpreter start milliseconds.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
else:
    ModuleType = type(sys)


def when_imported(name: str, action: Callable[[], None] = lambda: None) -> None:
    """Call ``action`` after the top-level module ``name`` was imported, or now if it was.

    An exception of the action reaches whoever imports the module. What the module rarely needs is
    not loaded with it.
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
            import gc

            deferred = _defer(_DEFERRED.get(name, {}))
            # Nothing to collect: a million objects that stay, which are searched again and again.
            collects = gc.isenabled()
            gc.disable()
            try:
                execute(module)
            finally:
                _drop(deferred)
                if collects:
                    gc.enable()
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._action()

        spec.loader.exec_module = execute_then_act  # type: ignore[method-assign]
        return spec


def _find(finder: object, name: str, target: ModuleType | None) -> ModuleSpec | None:
    find_spec = getattr(finder, "find_spec", None)
    return find_spec(name, None, target) if find_spec else None


class Deferred(ModuleType):
    """Stands in for a module until something is asked of it, which imports the module.

    Args:
        name: Of the module.
        functions: Those that may be taken from it, and import it when they are called.
    """

    def __init__(self, name: str, functions: tuple[str, ...]) -> None:
        super().__init__(name)
        self._functions = functions

    def __getattr__(self, attribute: str) -> object:
        """Ask the module."""
        if attribute == "__path__" and self._functions:  # as `from package import function` does
            return _search_path(self.__name__)
        if attribute in self._functions:

            def call(*args: object, **kwargs: object) -> object:
                return getattr(self._load(), attribute)(*args, **kwargs)

            return call
        return getattr(self._load(), attribute)

    def _load(self) -> ModuleType:
        from importlib import import_module

        _drop([module for module in sys.modules.values() if isinstance(module, Deferred)])
        return import_module(self.__name__)


def _search_path(name: str) -> object:
    """Return the ``__path__`` that a package in a package would have."""
    from importlib import import_module
    from importlib.machinery import PathFinder

    parent = import_module(name.rpartition(".")[0])
    spec = PathFinder.find_spec(name, parent.__path__)
    if spec is None or spec.submodule_search_locations is None:
        raise AttributeError("__path__")
    return spec.submodule_search_locations


def _defer(modules: dict[str, tuple[str, ...]]) -> list[ModuleType]:
    """Let ``import`` give stand-ins for modules whose package is not loaded.

    Args:
        modules: Functions by module; a package stands before what is in it.
    """
    deferred: dict[str, ModuleType] = {}
    for name, functions in modules.items():
        parent, _, last = name.rpartition(".")
        if name in sys.modules or (parent in modules and parent not in deferred):
            continue
        deferred[name] = Deferred(name, functions)
        if parent in deferred:
            setattr(deferred[parent], last, deferred[name])
    sys.modules.update(deferred)
    return [*deferred.values()]


def _drop(deferred: list[ModuleType]) -> None:
    """Let ``import`` give the modules themselves again."""
    for module in deferred:
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]
