"""Modules that PaddleSeg's import leaves for later, with packages of Python in place of SciPy's."""

from __future__ import annotations

import json.decoder  # noqa: F401
import sys

import pytest

from liteseg_plugin.integration import import_hook


@pytest.fixture
def defer(monkeypatch):
    """Return a function that puts stand-ins in place of modules, loaded ones too."""

    def defer(modules):
        starts = tuple(f"{name}." for name in modules)
        for name in [name for name in sys.modules if f"{name}.".startswith(starts)]:
            monkeypatch.delitem(sys.modules, name)
        return import_hook._defer(modules)

    return defer


def stand_ins():
    return [m.__name__ for m in sys.modules.values() if isinstance(m, import_hook.Deferred)]


def test_function_of_a_package_loads_it_when_called(defer):
    deferred = defer({"xml.dom": ("registerDOMImplementation",)})
    from xml.dom import registerDOMImplementation

    assert stand_ins() == ["xml.dom"]
    import_hook._drop(deferred)
    assert "xml.dom" not in sys.modules
    registerDOMImplementation("mine", lambda: None)
    import xml.dom

    assert "mine" in xml.dom.domreg.registered


def test_others_who_import_meanwhile_get_the_modules(defer):
    defer({"xml.dom": ("registerDOMImplementation",), "wsgiref": (), "wsgiref.util": ()})
    import xml.dom.minidom

    assert xml.dom.minidom.parseString("<a/>").documentElement.tagName == "a"
    from xml.dom import HierarchyRequestErr

    assert issubclass(HierarchyRequestErr, Exception)
    assert stand_ins() == []


def test_package_without_functions_is_loaded_by_any_question(defer):
    defer({"wsgiref": (), "wsgiref.util": ()})
    import wsgiref.util as util

    assert stand_ins() == ["wsgiref", "wsgiref.util"]
    from wsgiref import headers

    assert headers.Headers().items() == []
    assert util.guess_scheme({}) == "http"
    assert stand_ins() == []


def test_module_that_is_loaded_stays():
    assert import_hook._defer({"json": (), "json.decoder": ()}) == []
