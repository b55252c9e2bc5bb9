"""Time the export of a config, and PaddleSeg's own export of the same weights beside it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from liteseg_plugin.cli import _common
from liteseg_plugin.deploy.onnx import DEFAULT_OPSET

if TYPE_CHECKING:
    from paddle import nn
    from paddleseg.cvlibs import SegBuilder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    _common.add_config(parser)
    parser.add_argument("--model_path", help="trained weights (default: random ones)")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=5, help="rounds that do not count")
    parser.add_argument("--repeats", type=int, default=30, help="rounds that count")
    parser.add_argument(
        "--runtime",
        nargs="+",
        choices=_common.RUNTIMES,
        help="default: all that are installed",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--cpu_threads", type=int, help="default: all that the process may use")
    parser.add_argument("--against", choices=("paddleseg",), help="what to time alternately")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> dict:
    """Export, time, and tell."""
    builder = _common.build(args)
    # Speed does not depend on the values: without weights, none are downloaded.
    from liteseg_plugin import compat

    compat.skip_backbone_download()

    import tempfile

    from paddleseg.utils import utils
    from tqdm import tqdm

    from liteseg_plugin.deploy import benchmark, export, runtimes
    from liteseg_plugin.deploy.predictor import usable_cpus

    model = builder.model
    if args.model_path:
        utils.load_entire_model(model, args.model_path)
    shape = [args.batch_size, 3, args.height, args.width]
    wanted = args.runtime or runtimes.installed()
    needs_onnx = set(wanted) != {"paddle"}
    reports = []
    with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
        export.export_model(
            model,
            ours,
            transforms=[],
            input_shape=shape,
            onnx_opset=DEFAULT_OPSET if needs_onnx else None,
        )
        folders = {"liteseg_plugin": ours}
        if args.against:
            other = _build_stock(builder)
            other.set_state_dict(model.state_dict())
            benchmark.export_as_paddleseg(other, theirs, shape, needs_onnx)
            folders["paddleseg"] = theirs
        for runtime in wanted:
            report = benchmark.benchmark(
                folders,
                runtime,
                shape,
                device=args.device,
                threads=args.cpu_threads or usable_cpus(),
                warmup=args.warmup,
                repeats=args.repeats,
                progress=tqdm,
            )
            reports.append(report)
    _print(reports)
    return {"reports": reports}


def _build_stock(builder: SegBuilder) -> nn.Layer:
    """Build PaddleSeg's own class from the same config."""
    from paddleseg.cvlibs import manager
    from paddleseg.models.pp_liteseg import PPLiteSeg

    from liteseg_plugin.plugin import register

    manager.MODELS.components_dict["PPLiteSeg"] = PPLiteSeg
    try:
        return builder.build_component(builder.config.model_cfg)
    finally:
        register()


def _print(reports: list[dict]) -> None:
    for report in reports:
        shape = "x".join(map(str, report["input_shape"]))
        print(
            f"\n{report['runtime']} {report['version']}, {report['device']}, "
            f"{report['threads']} threads, {report['precision']}, {shape}; "
            f"{report['timed']}; {report['repeats']} rounds after {report['warmup']}"
        )
        for name, result in report["results"].items():
            print(
                f"  {name:16}min {result['min_ms']:7.1f}  median {result['median_ms']:7.1f}  "
                f"p95 {result['p95_ms']:7.1f} ms   {result['agreement']:.4%} of labels agree"
                + (f"   ({result['note']})" if result["note"] else "")
            )
        if "ratio" in report:
            print(f"  paddleseg takes {report['ratio']:.2f} times as long (median over rounds)")
