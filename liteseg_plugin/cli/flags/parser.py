"""The parser of every command: defaults in its help, its own usage in its errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from liteseg_plugin.cli.flags.help import HelpWithDefaults
from liteseg_plugin.system.text import did_you_mean


class Parser(argparse.ArgumentParser):
    """A parser whose help shows defaults, and whose subcommands report their own errors."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", HelpWithDefaults)
        super().__init__(**settings)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse unknown arguments here: argparse does so in the outermost parser."""
        self._words = [*(sys.argv[1:] if args is None else args)]
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return parsed, unknown

    def _refuse(self, unknown: list[str]) -> NoReturn:
        hint = did_you_mean(unknown[0], self._option_string_actions)
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint and f'; {hint}'}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        before = dict(zip(self._words[1:], self._words)).get(value, "")
        if not action.option_strings and before.startswith("--"):
            if before not in self._option_string_actions:  # so that its value seems positional
                self._refuse([before, value])
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = did_you_mean(str(value), map(str, action.choices or ()))
            error.message += hint and f"; {hint}"
            raise


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every command; their defaults are those of the outermost parser."""
    add = parser.add_argument
    text = "show the traceback of an error"
    add("--debug", action="store_true", default=argparse.SUPPRESS, help=text)
    text = "refuse images of more pixels (default: 178,956,970)"
    add("--max_pixels", type=int, metavar="N", default=argparse.SUPPRESS, help=text)


def add_command(
    commands: argparse._SubParsersAction, name: str, help_text: str, description: str = ""
) -> argparse.ArgumentParser:
    """Add a command, or an action of one, with the flags of every command.

    ``help_text`` says what it does in the list of the commands, and without a ``description`` in
    its own help, too.
    """
    sentence = f"{help_text[0].upper()}{help_text[1:]}."
    parser = commands.add_parser(name, help=help_text, description=description or sentence)
    add_common(parser)
    return parser
