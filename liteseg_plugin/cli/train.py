"""Train with a config, on PaddleSeg's own loop; the flags are those of its tools/train.py."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    _common.add_config(parser)
    _common.add_device(parser)
    add, flag = parser.add_argument, {"action": "store_true"}
    add("--save_dir", default="./output", help="where checkpoints go (default: ./output)")
    add("--num_workers", type=int, default=0, help="worker processes of the data loader")
    add("--do_eval", **flag, help="evaluate at every save, and keep the best model")
    add("--use_vdl", **flag, help="write VisualDL logs into --save_dir")
    add("--use_ema", **flag, help="keep an exponential moving average of the weights")
    add("--resume_model", help="checkpoint folder (iter_N) to go on from")
    add("--iters", type=int, help="number of iterations")
    add("--batch_size", type=int, help="images of one process")
    add("--learning_rate", type=float)
    add("--save_interval", type=int, default=1000, help="iterations between checkpoints")
    add("--log_iters", type=int, default=10, help="iterations between log lines")
    add("--keep_checkpoint_max", type=int, default=5)
    add("--early_stop_intervals", type=int, help="stop after so many saves without a gain")
    add("--seed", type=int)
    add("--precision", default="fp32", choices=("fp32", "fp16"))
    add("--amp_level", default="O1", choices=("O1", "O2"))
    add("--profiler_options")
    add("--repeats", type=int, default=1, help="pass over each image so often in an epoch")
    add("--to_static_training", **flag)
    add("--data_format", default="NCHW", choices=("NCHW",))


def run(args: argparse.Namespace) -> None:
    """Train."""
    overrides = {name: getattr(args, name) for name in ("learning_rate", "batch_size", "iters")}
    builder = _common.build(args, **overrides)

    from paddleseg.core import train
    from paddleseg.utils import logger, utils

    utils.set_seed(args.seed)
    _common.show(builder, args.device)
    utils.set_cv2_num_threads(args.num_workers)
    config = builder.config
    model = utils.convert_sync_batchnorm(builder.model, args.device)
    logger.info(f"Model: {_common.class_name(model)}")
    train_dataset = builder.train_dataset
    train_dataset.file_list *= args.repeats
    options = {
        name: getattr(args, name)
        for name in (
            "resume_model",
            "save_interval",
            "log_iters",
            "num_workers",
            "use_vdl",
            "use_ema",
            "keep_checkpoint_max",
            "precision",
            "amp_level",
            "profiler_options",
            "early_stop_intervals",
        )
    }
    train(
        model,
        train_dataset,
        val_dataset=builder.val_dataset if args.do_eval else None,
        optimizer=builder.optimizer,
        save_dir=args.save_dir,
        iters=config.iters,
        batch_size=config.batch_size,
        losses=builder.loss,
        test_config=config.test_config,
        to_static_training=args.to_static_training or config.to_static_training,
        **_common.known_arguments(train, **options),
    )
