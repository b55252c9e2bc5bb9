"""Pages that open from disk: one file, no network, no script."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from liteseg_plugin.system.files import atomic_write, require_html

_environment = Environment(
    loader=PackageLoader("liteseg_plugin.visualization"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """Render a template, a file in ``templates/``; the values of its variables are escaped."""
    return _environment.get_template(template).render(values)


def write_page(path: str | os.PathLike, template: str, **values: Any) -> Path:
    """Render a template, as :func:`render` does, to a file, and return its path.

    Its folder is created if missing.

    Raises:
        ValueError: If the file's name does not end in ``.html``.
        OSError: If it cannot be written.
    """
    require_html(path)
    page = render(template, **values)
    # File names may contain bytes that are not text.
    atomic_write(path, page.encode("utf-8", errors="replace"))
    return Path(path)


def data_uri(image: bytes, kind: str) -> str:
    """Return the bytes of an image file, of kind ``png`` or ``jpeg``, as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def percent(value: float | None) -> str:
    """Format a share in %; a dash if there is none."""
    return "-" if value is None else f"{value * 100:.2f}"


def signed_percent(value: float | None) -> str:
    """Write a difference of two shares, in points."""
    return "-" if value is None else f"{points(value):+.2f}"


def points(difference: float) -> float:
    """Return a difference of two shares in points, rounded as it is shown; never ``-0.0``."""
    return round(difference * 100, 2) or 0.0


_environment.filters.update(percent=percent, signed_percent=signed_percent)
