"""Python code in a process of its own."""

from __future__ import annotations

import os
import sys

# With -c, Python looks for modules in the current folder first, where a user's numpy.py may lie.
_WITHOUT_CURRENT_FOLDER = "import sys; sys.path[:] = filter(None, sys.path)\n"


def python_command(code: str, *arguments: str | os.PathLike) -> list[str]:
    """Return the command that runs code with these ``sys.argv[1:]``, without warnings."""
    command = [sys.executable, "-W", "ignore", "-c", _WITHOUT_CURRENT_FOLDER + code]
    return [*command, *map(str, arguments)]
