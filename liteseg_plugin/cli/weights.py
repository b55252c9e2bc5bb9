"""List, describe, download, check or convert weights; `--model_path` takes their names."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg_plugin.cli.flags.parser import add_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    known = "a name of `liteseg weights list`"
    for name, act, help_text, argument in (
        ("list", _list, "print the released weights", None),
        ("info", _info, "print all that is known of released weights", known),
        ("fetch", _fetch, "download weights, and print the path of the file", f"{known}, or a URL"),
        ("check", _check, "read weights, and print what they hold", f"a file, a URL, or {known}"),
        (
            "convert",
            _convert,
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
        sub.set_defaults(act=act)


def run(args: argparse.Namespace) -> dict | None:
    """List, describe, download, check or convert."""
    return args.act(args)


def _list(args: argparse.Namespace) -> dict:
    from liteseg_plugin.weights import BACKBONES, PSSL, RELEASED

    records = (*RELEASED, *PSSL, *BACKBONES)
    width = max(len(record.name) for record in records)
    for record in records:
        others = "pre-trained" if record.classes else "backbone"
        miou = f"mIoU {record.miou:.2f} %" if record.miou else others
        print(f"{record.name:{width}}  {record.model:12}  {record.dataset:14}  {miou}")
    return {"weights": [record.to_json() for record in records]}


def _info(args: argparse.Namespace) -> dict:
    from liteseg_plugin.weights import get_record

    return _printed(get_record(args.weights).to_json())


def _fetch(args: argparse.Namespace) -> dict:
    from liteseg_plugin.weights import fetch, find_weights

    path = fetch(find_weights(args.weights), offline=args.offline or None)
    print(path)
    return {"path": str(path)}


def _check(args: argparse.Namespace) -> dict:
    from liteseg_plugin.weights import find_weights
    from liteseg_plugin.weights.summary import summarize

    summary = summarize(find_weights(args.weights))
    if args.config:
        from liteseg_plugin.cli import _network

        args.opts, args.model_path = None, args.weights
        _network.load_network(_network.build(args), args.weights)
    return _printed(summary.to_json())


def _convert(args: argparse.Namespace) -> dict:
    from pathlib import Path

    from liteseg_plugin.evaluation.model_card import card_path, write_card
    from liteseg_plugin.evaluation.result import Evaluation
    from liteseg_plugin.weights import find_record, find_weights
    from liteseg_plugin.weights.converting import convert

    evaluation = Evaluation.read(args.report) if args.report else None
    weights = find_weights(args.weights)
    card_path(Path(args.dest))  # before the work
    conversion = convert(weights, args.dest)
    card = write_card(Path(args.dest), find_record(args.weights), evaluation)
    return _printed({**conversion.to_json(), "card": str(card)})


def _printed(facts: dict[str, Any]) -> dict[str, Any]:
    for key, value in facts.items():
        print(f"{key + ':':16} {'not known' if value is None else value}")
    return facts
