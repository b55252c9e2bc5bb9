"""List, show or copy the configs that come with the plugin; `--config` takes their names."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags.parser import add_command
from liteseg_plugin.cli.flags.shared import add_opts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    names = "print the names of the configs that come with the plugin"
    listing = add_command(actions, "list", names)
    listing.add_argument("--json", action="store_true", help="print them as JSON, with their files")
    listing.set_defaults(act=_list)
    kinds = {
        "show": (_show, "print a config, its _base_ files merged into it"),
        "copy": (_copy, "write a config into a file, its _base_ files merged into it"),
    }
    for name, (act, text) in kinds.items():
        sub = add_command(actions, name, text)
        of_list = "a name that `liteseg config list` prints, or a path"
        sub.add_argument("config", metavar="CONFIG", help=of_list)
        if name == "copy":
            sub.add_argument("dest", metavar="FILE", help="the file to write (.yml)")
            sub.add_argument("--overwrite", action="store_true", help="replace an existing file")
        add_opts(sub)
        sub.set_defaults(act=act)


def run(args: argparse.Namespace) -> dict | None:
    """List, show or copy."""
    return args.act(args)


def _list(args: argparse.Namespace) -> dict:
    from liteseg_plugin.integration.config_files import config_files

    found = {name: str(path) for name, path in config_files().items()}
    print("\n".join(found))
    return {"configs": found}


def _show(args: argparse.Namespace) -> None:
    print(_merged(args), end="")


def _copy(args: argparse.Namespace) -> None:
    from liteseg_plugin.errors import printable
    from liteseg_plugin.integration.config_files import new_config
    from liteseg_plugin.system.files import atomic_write

    dest = new_config(args.dest, overwrite=args.overwrite)
    atomic_write(dest, _merged(args).encode())
    print(f"{printable(dest)}: change it, then give it to --config")


def _merged(args: argparse.Namespace) -> str:
    from liteseg_plugin.integration.config import merged
    from liteseg_plugin.integration.registry import repair

    repair()
    return merged(args.config, args.opts)
