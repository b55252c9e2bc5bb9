"""Records of what the plugin replaces of PaddleSeg, Paddle and Python."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from paddleseg.utils import utils


class Entry(NamedTuple):
    """One replacement.

    Attributes:
        name: Its name in ``liteseg doctor`` and in the documentation.
        replaces: What is replaced, by dotted names.
        symptom: What a user sees without the replacement.
        repair_text: What it does.
        reference: Where the symptom was reported or measured.
        is_broken: Probes the stock code and tells whether the symptom shows here.
        repair: Makes the replacement; does no harm where nothing is broken.
        always: Whether to repair without probing first, because the probe is slow, or the repair
            is better than the original even where that works.
        scripts_only: Whether only PaddleSeg's unmodified scripts need it. The plugin's commands
            call functions of the plugin instead.
    """

    name: str
    replaces: str
    symptom: str
    repair_text: str
    reference: str
    is_broken: Callable[[], bool]
    repair: Callable[[], None]
    always: bool = False
    scripts_only: bool = False


def for_scripts(
    name: str, replaces: str, symptom: str, repair_text: str, repair: Callable[[], None]
) -> Entry:
    """Return a replacement that only PaddleSeg's unmodified scripts need, of every version."""
    reference = "paddleseg 2.8.0 and develop"
    return Entry(
        *(name, replaces, symptom, repair_text, reference, lambda: True, repair),
        always=True,
        scripts_only=True,
    )


def wrapped(original: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls ``wrapper`` with the original before the arguments."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    return call


def wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Replace a function of a class or module; see :func:`wrapped`."""
    setattr(owner, name, wrapped(getattr(owner, name), wrapper))


def wrap_in_utils(name: str, wrapper: Callable[..., Any]) -> None:
    """Replace a function of ``paddleseg.utils.utils``, which the package above re-exports."""
    function = wrapped(getattr(utils, name), wrapper)
    package = sys.modules["paddleseg.utils"]
    if getattr(package, name, None) is getattr(utils, name):
        setattr(package, name, function)
    setattr(utils, name, function)
