"""What `--help` and `--version` print."""

from __future__ import annotations

import argparse
import platform
from typing import Any


class HelpWithDefaults(argparse.HelpFormatter):
    """Shows the default of a flag that has one, unless its help states it in words."""

    def add_argument(self, action: argparse.Action) -> None:
        """Make room for the names of subcommands, which are indented once more."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        numbers: dict[Any, str] = {int: "N", float: "X"}
        return numbers.get(action.type) or super()._get_default_metavar_for_optional(action)

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        unset = default in (None, "", [], (), argparse.SUPPRESS) or default is False
        if unset or not action.option_strings or "default: " in text:
            return text
        words = default if isinstance(default, (list, tuple)) else [default]
        shown = " ".join(map(str, words))
        return f"{text} (default: {shown if shown.strip() else repr(shown)})"


class ShowVersions(argparse.Action):
    """Print the versions that matter in a report of an error, and end; Paddle is not loaded."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "nargs": 0})

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print, and end."""
        from liteseg_plugin import __version__
        from liteseg_plugin.system.versions import installed_versions

        versions = {
            "liteseg_plugin": __version__,
            **installed_versions("paddlepaddle", "paddlepaddle-gpu", "paddleseg"),
            "python": platform.python_version(),
        }
        print(*(f"{name} {version}" for name, version in versions.items()), sep="\n")
        parser.exit()
