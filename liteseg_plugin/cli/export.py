"""Write a model for deployment; takes the flags of PaddleSeg's tools/export.py and more."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _network
from liteseg_plugin.cli.flags.export import add_arguments
from liteseg_plugin.cli.flags.model import choose_model

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> None:
    """Export."""
    choose_model(args)
    builder = _network.build(args)

    from paddleseg.utils import logger

    from liteseg_plugin.datasets.classes import describe_classes
    from liteseg_plugin.datasets.image_format import ImageFormat
    from liteseg_plugin.evaluation.verify import spot_check
    from liteseg_plugin.export import repository, writer
    from liteseg_plugin.inference.network import class_name, evaluation_scale
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
    logger.info(f"Exported {class_name(model)}: {deploy_file}")
    checked = spot_check(model, args.save_dir, config.test_config)
    for name, agreement in checked.agreement.items():
        logger.info(f"{name}: {agreement:.4%} of labels equal the trained network's, on noise")
    if args.format in repository.SERVERS:
        logger.info(f"For {args.format}: {repository.write_model(args.save_dir, args.format)}")
