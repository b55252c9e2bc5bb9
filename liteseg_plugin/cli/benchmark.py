"""Time a model in every runtime, also against PaddleSeg's own export of the same weights."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _network
from liteseg_plugin.cli.flags.benchmark import add_arguments
from liteseg_plugin.errors import LitesegError

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> dict:
    """Export, time, and print."""
    given = [args.exported, args.onnx_model_path]
    if all(given) or not (any(given) or args.config):
        raise LitesegError("give --config, --exported or --onnx_model_path")
    if not args.config and (args.against or args.model_path):
        raise LitesegError("--against and --model_path need --config")

    # Speed does not depend on the values, so no weights are downloaded.
    builder = _network.build(args, downloads=False) if args.config else None
    from liteseg_plugin.integration.registry import repair

    repair()

    from liteseg_plugin.evaluation import benchmark
    from liteseg_plugin.evaluation.benchmark_exports import exports_to_time
    from liteseg_plugin.evaluation.operator_profile import profile_text, time_by_operator
    from liteseg_plugin.exported import ExportedModel
    from liteseg_plugin.system.parallel import usable_cpus
    from liteseg_plugin.system.progress import progress_bar

    exported = ExportedModel.read(args.exported) if args.exported else None
    channels = benchmark.channels_of(builder, exported)
    asked = (args.batch_size, channels, args.height, args.width)
    shape = benchmark.choose_shape(asked, exported)
    threads = args.cpu_threads or usable_cpus()
    conditions = benchmark.Conditions(
        shape, args.device, threads, args.precision, args.timed, args.warmup, args.repeats
    )
    only_onnx = bool(args.onnx_model_path)
    runtimes = benchmark.choose_runtimes(
        args.runtime,
        args.device,
        args.precision,
        exported=exported,
        only_onnx=only_onnx,
    )
    network = None
    if builder is not None:
        weights = args.model_path
        network = _network.load_network(builder, weights) if weights else builder.model
    with exports_to_time(
        network,
        shape,
        exported=exported,
        onnx_file=args.onnx_model_path,
        with_onnx=benchmark.need_onnx(runtimes) or args.enable_profile or args.print_model,
        with_ncnn="ncnn" in runtimes,
        against=builder if args.against else None,
    ) as exports:
        results = []
        for runtime in runtimes:
            result = benchmark.benchmark(exports, runtime, conditions, progress=progress_bar)
            print(f"\n{result.text()}")
            results.append(result.to_json())
        document: dict = {"reports": results}
        export = exports["liteseg_plugin"]
        path = export.onnx_int8 if args.precision == "int8" else export.onnx
        if path is None and (args.enable_profile or args.print_model):
            raise LitesegError(f"{args.exported} has no ONNX file to profile or print")
        if path and args.enable_profile:
            document["profile"] = time_by_operator(path, shape, threads)
            print(f"\n{profile_text(document['profile'])}")
        if path and args.print_model:
            import onnx

            print(onnx.printer.to_text(onnx.load(str(path)).graph))
    return document
