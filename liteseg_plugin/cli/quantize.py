"""Add INT8 models to an export, calibrated on images."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    add("exported", metavar="EXPORTED", help="folder of an export with ONNX or ncnn files")
    add("--image_path", required=True, help="calibration images: a folder or a list file")
    add("--separator", help="separator of image and label in a list file (default: white space)")
    add("--num_images", type=int, default=32, help="number of images to take, spread evenly")
    add(
        "--tolerance",
        type=float,
        default=0.005,
        help="share of labels that a layer may change and still be quantised",
    )
    add("--verbose", action="store_true", help="list all layers that stay in float32")
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> dict:
    """Quantise, and print how many layers stay in float32, and why."""
    from liteseg_plugin.integration.registry import repair

    repair()

    from liteseg_plugin.export.quantize import quantize
    from liteseg_plugin.inference.images import find_images
    from liteseg_plugin.system.progress import progress_bar

    images = [image.path for image in find_images(args.image_path, args.separator)]
    images = images[:: max(1, len(images) // args.num_images)][: args.num_images]
    reports = quantize(
        args.exported,
        images,
        tolerance=args.tolerance,
        progress=lambda layers: progress_bar(layers, unit="layer"),
    )
    print("\n".join(report.text(verbose=args.verbose) for report in reports))
    return {"reports": [report.to_json() for report in reports]}
