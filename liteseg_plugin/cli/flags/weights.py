"""The flags of weights."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags.parser import add_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    known = "a name of `liteseg weights list`"
    for name, help_text, argument in (
        ("list", "print the released weights", None),
        ("info", "print all that is known of released weights", known),
        ("fetch", "download weights, and print the path of the file", f"{known}, or a URL"),
        ("check", "read weights, and print what they hold", f"a file, a URL, or {known}"),
        (
            "convert",
            "write weights as safetensors or .pdparams",
            f"a file (.pdparams, .safetensors, or PyTorch's .pth), or {known}",
        ),
    ):
        sub = add_command(actions, name, help_text)
        if argument:
            sub.add_argument("weights", metavar="WEIGHTS", help=argument)
        if name == "fetch":
            sub.add_argument("--offline", action="store_true", help="use what is in the cache")
        if name == "check":
            sub.add_argument("--config", help="config whose network must take them")
        if name == "convert":
            sub.add_argument("dest", metavar="FILE", help="ends in .safetensors or .pdparams")
            sub.add_argument("--report", help="folder of val --report, for the model card")
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
