"""Pages that open from disk: one file, no network, no script."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_environment = Environment(
    loader=PackageLoader("liteseg_plugin.visualization"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """Render a template of this package; values are escaped.

    Args:
        template: Name of a file in ``templates/``.
        values: Values of its variables.
    """
    return _environment.get_template(template).render(values)


def data_uri(image: bytes, kind: str) -> str:
    """Return an image as a data URI.

    Args:
        image: The bytes of the file.
        kind: ``png`` or ``jpeg``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def percent(value: float | None) -> str:
    """Format a share in %; a dash if there is none."""
    return "-" if value is None else f"{value * 100:.2f}"


def signed_percent(value: float | None) -> str:
    """Write a difference of two shares, in points."""
    return "-" if value is None else f"{value * 100:+.2f}"


_environment.filters.update(percent=percent, signed_percent=signed_percent)
