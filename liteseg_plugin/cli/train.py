"""Train a model; takes the flags of PaddleSeg's tools/train.py and a few more."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

from liteseg_plugin.cli import _devices, _network
from liteseg_plugin.cli.flags.train import add_arguments

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> None:
    """Train, alone in the folder of the run."""
    from liteseg_plugin.training import lock, run

    _devices.connect(args.device)
    folder = Path(args.save_dir)
    with lock.run_folder(folder, args.resume_model) as args.resume_model, run.logged(folder):
        _train(args)


def _train(args: argparse.Namespace) -> None:
    overrides = {name: getattr(args, name) for name in ("learning_rate", "batch_size", "iters")}
    builder = _network.build(args, **overrides)
    device = _devices.use_device(args.device)

    from paddleseg.utils import logger, utils

    from liteseg_plugin.datasets.classes import describe_classes
    from liteseg_plugin.evaluation.model_card import write_card_of_run
    from liteseg_plugin.inference.network import class_name
    from liteseg_plugin.system.device import kind_of
    from liteseg_plugin.training import changes, processes
    from liteseg_plugin.training.run import RunRecord, Start, TrainedRun
    from liteseg_plugin.training.settings import Settings
    from liteseg_plugin.training.signals import Interrupted
    from liteseg_plugin.training.trainer import train

    utils.set_seed(args.seed)
    _network.show(builder, args)
    utils.set_cv2_num_threads(args.num_workers)
    model = utils.convert_sync_batchnorm(builder.model, kind_of(device))
    logger.info(f"Model: {class_name(model)}")
    config, train_dataset = builder.config, builder.train_dataset
    args.iters, args.batch_size = config.iters, config.batch_size
    args.to_static_training = args.to_static_training or config.to_static_training
    settings = Settings(**{f.name: getattr(args, f.name) for f in dataclasses.fields(Settings)})
    val_dataset = builder.val_dataset if args.do_eval else None
    record = RunRecord.of(
        config.dic,
        {**dataclasses.asdict(settings), "repeats": args.repeats, "do_eval": args.do_eval},
        [train_dataset, *filter(None, [val_dataset])],
        Start.now(args.resume_model, device),
    )
    lists = {"train_dataset's list": record.train_list, "val_dataset's list": record.val_list}
    changes.check_same_on_hosts(record.config, record.settings, lists)
    folder, allowed = Path(args.save_dir), args.allow_changes
    changes.begin(folder, args.resume_model, record, allow_changes=allowed)
    train_dataset.file_list *= args.repeats
    parts = (model, builder.optimizer, builder.loss, train_dataset, settings, val_dataset)
    names = []
    if val_dataset is not None:
        classes = describe_classes(config.val_dataset_cfg, val_dataset.num_classes)
        names = [entry.name for entry in classes]
    try:
        train(*parts, config.test_config, names)
    except Interrupted as interruption:
        resume = ["--resume_model", str(interruption.checkpoint)]
        command = f"liteseg {shlex.join([*sys.argv[1:], *resume])}"
        if processes.count() > 1:
            command = f"the same launch and {shlex.join(resume)}"
        logger.info(f"Interrupted; resume with: {command}")
        raise
    if processes.is_main():
        trained = TrainedRun.read(args.save_dir)
        if trained.weights.suffix == ".safetensors" and trained.miou is not None:
            logger.info(f"Model card: {write_card_of_run(trained)}")
        logger.info(trained.next_step())
