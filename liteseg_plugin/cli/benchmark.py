"""Time the export of a config, and PaddleSeg's own export of the same weights beside it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from liteseg_plugin.cli import _common
from liteseg_plugin.export.onnx import DEFAULT_OPSET

if TYPE_CHECKING:
    from paddle import nn
    from paddleseg.cvlibs import SegBuilder


# Keys of the plugin's that are about training; PaddleSeg's class does not know them.
_OF_TRAINING = ("backbone_init", "frozen")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags; the common ones are those of infer_onnx_trt.py."""
    add = parser.add_argument
    add("--config", help="path of the config file (.yml)")
    add("--opts", nargs="+", metavar="KEY=VALUE", help="override values of the config")
    add("--model_path", help="trained weights (default: random ones)")
    add("--exported", metavar="FOLDER", help="time this export instead of a new one")
    add("--onnx_model_path", help="time this ONNX file instead of a new export")
    add("--width", type=int, default=1024)
    add("--height", type=int, default=512)
    add("--batch_size", type=int, default=1)
    add("--warmup", type=int, default=5, help="rounds that do not count")
    add("--repeats", type=int, default=30, help="rounds that count")
    add("--runtime", nargs="+", choices=_common.RUNTIMES, help="default: all that are installed")
    add("--device", default="cpu", choices=("cpu", "gpu"))
    _common.add_precision(parser)
    add("--cpu_threads", type=int, help="default: all that the process may use")
    add(
        "--timed",
        default="call",
        choices=("engine", "call", "file"),
        help="engine alone, its call with copies, or from image file to labels (default: call)",
    )
    add("--against", choices=("paddleseg",), help="what to time alternately, in float32")
    add("--enable_profile", action="store_true", help="also: ONNX Runtime's time by operator")
    add("--print_model", action="store_true", help="also: print the ONNX graph")
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> dict:
    """Export, time, and tell."""
    from liteseg_plugin.errors import LitesegError

    given = [args.exported, args.onnx_model_path]
    if all(given) or not (any(given) or args.config):
        raise LitesegError("give --config, --exported or --onnx_model_path")
    if not args.config and (args.against or args.model_path):
        raise LitesegError("--against and --model_path need --config")

    # Speed does not depend on the values: without weights, none are downloaded.
    builder = _common.build(args, downloads=False) if args.config else None
    from liteseg_plugin.integration.registry import repair

    repair()

    import tempfile
    from pathlib import Path

    from liteseg_plugin.evaluation import benchmark
    from liteseg_plugin.exported import ExportedModel
    from liteseg_plugin.runtimes import catalog
    from liteseg_plugin.system.parallel import usable_cpus
    from liteseg_plugin.system.progress import progress_bar

    shape = [args.batch_size, 3, args.height, args.width]
    wanted = args.runtime or [
        name
        for name in catalog.installed(args.device, args.precision)
        if not (args.onnx_model_path and name == "paddle")
    ]
    in_paddle = {"paddle", "paddle_tensorrt"} & set(wanted)
    if args.onnx_model_path and in_paddle:
        raise LitesegError("--onnx_model_path: Paddle does not read ONNX; take another --runtime")
    needs_onnx = in_paddle != set(wanted) or args.enable_profile or args.print_model
    threads = args.cpu_threads or usable_cpus()
    with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
        network = None
        if builder is not None:
            network = _network(builder, args.model_path)
        if args.onnx_model_path:
            export = benchmark.OnnxFile(Path(args.onnx_model_path))
        else:
            export = ExportedModel(args.exported or _export(network, ours, shape, needs_onnx))
        exports = {"liteseg_plugin": export}
        if args.against:
            other = _build_stock(builder)
            other.set_state_dict(network.state_dict())
            benchmark.export_as_paddleseg(other, theirs, shape, needs_onnx)
            exports["paddleseg"] = ExportedModel(theirs)
        reports = [
            benchmark.benchmark(
                exports,
                runtime,
                shape,
                device=args.device,
                threads=threads,
                precision=args.precision,
                timed=args.timed,
                warmup=args.warmup,
                repeats=args.repeats,
                progress=progress_bar,
            )
            for runtime in wanted
        ]
        document = {"reports": reports}
        _print(reports)
        if args.enable_profile or args.print_model:
            path = export.onnx_int8 if args.precision == "int8" else export.onnx
            if args.enable_profile:
                document["profile"] = benchmark.time_by_operator(path, shape, threads)
                print("\nONNX Runtime on the CPU, ms by operator:")
                for operator, milliseconds in document["profile"].items():
                    print(f"  {operator:24}{milliseconds:8.2f}")
            if args.print_model:
                import onnx

                print(onnx.printer.to_text(onnx.load(str(path)).graph))
    return document


def _network(builder: SegBuilder, weights: str | None) -> nn.Layer:
    return _common.load_network(builder, weights) if weights else builder.model


def _export(network: nn.Layer, folder: str, input_shape: list[int], with_onnx: bool) -> str:
    from liteseg_plugin.export import writer

    writer.export_model(
        network,
        folder,
        transforms=[{"type": "Normalize"}],
        input_shape=input_shape,
        onnx_opset=DEFAULT_OPSET if with_onnx else None,
    )
    return folder


def _build_stock(builder: SegBuilder) -> nn.Layer:
    """Build PaddleSeg's own class from the same config."""
    from paddleseg.cvlibs import manager
    from paddleseg.models.pp_liteseg import PPLiteSeg

    from liteseg_plugin.integration.registry import register

    known = {k: v for k, v in builder.config.model_cfg.items() if k not in _OF_TRAINING}
    manager.MODELS.components_dict["PPLiteSeg"] = PPLiteSeg
    try:
        return builder.build_component(known)
    finally:
        register()


def _print(reports: list[dict]) -> None:
    for report in reports:
        shape = "x".join(map(str, report["input_shape"]))
        print(
            f"\n{report['runtime']} {report['version']}, {report['device']}, "
            f"{report['threads']} threads, {shape}; "
            f"{report['timed']}; {report['repeats']} rounds after {report['warmup']}"
        )
        for name, result in report["results"].items():
            print(
                f"  {name:16}{result['precision']}  min {result['min_ms']:7.1f}  "
                f"median {result['median_ms']:7.1f}  p95 {result['p95_ms']:7.1f} ms   "
                f"{result['agreement']:.4%} of labels agree"
                + (f"   ({result['note']})" if result["note"] else "")
            )
        if "ratio" in report:
            print(f"  paddleseg takes {report['ratio']:.2f} times as long (median over rounds)")
