"""Answer requests with exported models, over HTTP and gRPC (Open Inference Protocol, KServe v2)."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    text = "folders of exports; the name of a folder is that of its model"
    add("exported", metavar="EXPORTED", nargs="+", help=text)
    add("--http_port", type=int, default=8000, help="port of HTTP; 0 takes a free one")
    add("--grpc_port", type=int, default=8001, help="port of gRPC; 0 takes a free one")
    text = "address to listen on; 0.0.0.0 opens the server to the network"
    add("--server_name", default="127.0.0.1", help=text)
    text = "file of a token that clients must send (default: $LITESEG_TOKEN, or none)"
    add("--token_file", metavar="FILE", help=text)
    shared.add_runtime(parser)
    shared.add_device(parser)
    shared.add_precision(parser)
    text = "CPU threads, which the engines of a model share (default: all available)"
    add("--cpu_threads", type=int, help=text)
    text = "engines of each model, which run side by side; several are faster on many cores"
    add("--engines", type=int, default=1, help=text)
    text = "most images of one size that run together"
    add("--max_batch_size", type=int, default=4, help=text)
    text = "milliseconds that a request waits for others of its size while an engine is free"
    add("--max_batch_delay", type=float, default=0.0, help=text)
    text = "requests that the server holds at a time; it refuses further ones by status 503"
    add("--max_requests", type=int, default=32, help=text)
    add("--max_body_mb", type=int, default=64, help="megabytes of a request")
    text = "seconds that a request may take to arrive, and again to be answered"
    add("--request_timeout", type=float, default=30.0, help=text)


def run(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from liteseg_plugin.integration.registry import repair

    repair()
    from liteseg_plugin.errors import printable
    from liteseg_plugin.runtimes.choice import choose
    from liteseg_plugin.serving import server
    from liteseg_plugin.system.parallel import usable_cpus

    server.require_packages()
    from liteseg_plugin.serving.model import ServedModel
    from liteseg_plugin.serving.service import Limits, Service

    token = server.read_token(args.token_file)
    exports = server.read_exports(args.exported)
    choices = [choose(exported, args.runtime, args.device, args.precision) for exported in exports]
    print("\n".join(dict.fromkeys(choice.text for choice in choices)), flush=True)
    threads = max(1, (args.cpu_threads or usable_cpus()) // args.engines)
    models = [
        ServedModel(exported, choice.runtime, args.device, threads, args.precision, args.engines)
        for exported, choice in zip(exports, choices)
    ]
    limits = Limits(
        body=args.max_body_mb << 20,
        requests=args.max_requests,
        seconds=args.request_timeout,
        batch_size=args.max_batch_size,
        batch_delay_s=args.max_batch_delay / 1000,
    )
    service = Service(models, args.engines, limits, token)
    running = server.Server(service, args.server_name, args.http_port, args.grpc_port)

    def announce() -> None:
        pairs = zip(models, choices)
        names = ", ".join(f"{printable(model.name)} ({choice.runtime})" for model, choice in pairs)
        host = args.server_name
        where = "this machine only" if server.is_loopback(host) else "all that reach this address"
        guard = "with the token" if token else "without a token"
        print(f"Models: {names}; {args.precision}")
        print(f"HTTP port {running.http_port} and gRPC port {running.grpc_port} of {host}")
        print(f"Open to {where}, {guard}. Ctrl-C or SIGTERM ends.", flush=True)

    running.run(announce)
