"""Open a local page that segments pictures with an exported model."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    add("exported", metavar="EXPORTED", help="folder of the export, or the deploy.yaml in it")
    shared.add_runtime(parser)
    shared.add_device(parser)
    add("--cpu_threads", type=int, help="CPU threads (default: all available)")
    address = "address to listen on; 0.0.0.0 opens the page to the network"
    add("--server_name", default="127.0.0.1", help=address)
    add("--server_port", type=int, help="port to listen on (default: the first free one from 7860)")


def run(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    import tempfile
    from pathlib import Path

    from liteseg_plugin.integration.registry import repair

    repair()
    from liteseg_plugin.exported import ExportedModel
    from liteseg_plugin.runtimes.choice import choose
    from liteseg_plugin.serving.demo import Model
    from liteseg_plugin.serving.page import serve

    exported = ExportedModel.read(args.exported)
    choice = choose(exported, args.runtime, args.device)
    print(choice.text, flush=True)
    model = Model(exported, args.device, args.cpu_threads, choice.runtime)
    with tempfile.TemporaryDirectory(prefix="liteseg_demo_") as folder:
        serve(model, Path(folder), args.server_name, args.server_port)
