"""List, describe, download, check or convert weights; `--model_path` takes their names."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg_plugin.cli.flags.weights import add_arguments

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> dict | None:
    """List, describe, download, check or convert."""
    actions = {"list": _list, "info": _info, "fetch": _fetch, "check": _check, "convert": _convert}
    return actions[args.action](args)


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
    return _printed(summary)


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
