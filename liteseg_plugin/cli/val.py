"""Evaluate trained weights on the config's val_dataset; the flags are those of tools/val.py."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    _common.add_config(parser)
    _common.add_weights(parser)
    _common.add_device(parser)
    parser.add_argument("--num_workers", type=int, default=0)
    _common.add_augmentation(parser, "--aug_eval")
    parser.add_argument("--auc_roc", action="store_true", help="also compute the area under ROC")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> dict:
    """Evaluate, and return the numbers."""
    builder = _common.build(args)

    from paddleseg.core import evaluate
    from paddleseg.utils import logger, utils

    _common.show(builder, args.device)
    model = builder.model
    utils.load_entire_model(model, args.model_path)
    logger.info(f"Loaded {args.model_path} into {_common.class_name(model)}")
    dataset = builder.val_dataset
    test_config = _common.augmentation(args, "aug_eval", builder.config.test_config)
    if args.auc_roc:
        test_config["auc_roc"] = True
    miou, accuracy, class_iou, class_precision, kappa = evaluate(
        model, dataset, num_workers=args.num_workers, **test_config
    )
    return {
        "images": len(dataset),
        "miou": float(miou),
        "accuracy": float(accuracy),
        "kappa": float(kappa),
        "class_iou": [float(value) for value in class_iou],
        "class_precision": [float(value) for value in class_precision],
        "test_config": test_config,
        "model": _common.class_name(model),
    }
