"""Write a model for deployment; takes the flags of PaddleSeg's tools/export.py and more."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _network
from liteseg_plugin.cli.flags import shared
from liteseg_plugin.export.onnx import DEFAULT_OPSET


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    shared.add_model(parser)
    parser.add_argument(
        "--save_dir", default="./output/inference_model", help="folder of the export"
    )
    parser.add_argument(
        "--input_shape",
        nargs=4,
        type=int,
        metavar=("N", "C", "H", "W"),
        help="fixed shape of the input (default: any size)",
    )
    parser.add_argument(
        "--format",
        default="paddle",
        choices=("paddle", "onnx", "ncnn", "triton", "ovms"),
        help="onnx and ncnn write files of that format beside the Paddle model (ncnn needs "
        "--input_shape 1 3 H W); triton and ovms (OpenVINO Model Server) write ONNX, and make "
        "--save_dir a model of that server, in the folder around it",
    )
    parser.add_argument(
        "--opset_version", type=int, default=DEFAULT_OPSET, help="operator set of the ONNX file"
    )
    parser.add_argument(
        "--graph",
        default="matrices",
        choices=("matrices", "plain"),
        help="plain: without matrix products in the ONNX file, for engines of small boards and "
        "their converters; needs --input_shape",
    )
    parser.add_argument(
        "--output_op",
        default="argmax",
        choices=("argmax", "confidence", "softmax", "none"),
        help="what the model gives: labels, labels and their probabilities, probabilities of all "
        "classes, or logits",
    )


def run(args: argparse.Namespace) -> None:
    """Export."""
    _network.choose_model(args)
    builder = _network.build(args)

    from paddleseg.utils import logger

    from liteseg_plugin.datasets.classes import describe_classes
    from liteseg_plugin.datasets.image_format import ImageFormat
    from liteseg_plugin.evaluation.verify import spot_check
    from liteseg_plugin.export import repository, writer
    from liteseg_plugin.inference.network import evaluation_scale
    from liteseg_plugin.system.checksums import file_sha256
    from liteseg_plugin.weights import local_path

    _network.show(builder, args)
    if args.format in repository.SERVERS:
        repository.require_name(args.save_dir)
    config = builder.config
    weights = local_path(args.model_path)
    model = _network.load_network(builder, weights)
    deploy_file = writer.export_model(
        model,
        args.save_dir,
        transforms=config.val_dataset_cfg.get("transforms", []),
        image_format=ImageFormat.of_config(config.val_dataset_cfg, config.model_cfg),
        output_op=args.output_op,
        input_shape=args.input_shape,
        scale=evaluation_scale(config.test_config),
        classes=describe_classes(config.val_dataset_cfg, config.model_cfg["num_classes"]),
        onnx_opset=None if args.format in ("paddle", "ncnn") else args.opset_version,
        ncnn=args.format == "ncnn",
        plain=args.graph == "plain",
        provenance={
            "config": args.config,
            "weights": args.model_path,
            "weights_sha256": file_sha256(weights),
        },
    )
    logger.info(f"Exported {_network.class_name(model)}: {deploy_file}")
    checked = spot_check(model, args.save_dir, config.test_config)
    for name, agreement in checked.agreement.items():
        logger.info(f"{name}: {agreement:.4%} of labels equal the trained network's, on noise")
    if args.format in repository.SERVERS:
        logger.info(f"For {args.format}: {repository.write_model(args.save_dir, args.format)}")
