"""Evaluate on the config's val_dataset; takes the flags of PaddleSeg's tools/val.py and more."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _devices, _network
from liteseg_plugin.cli.flags import windows
from liteseg_plugin.cli.flags.model import choose_model
from liteseg_plugin.cli.flags.val import add_arguments, refuse_what_does_not_go_together
from liteseg_plugin.errors import LitesegError

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> dict:
    """Evaluate, and return the numbers."""
    refuse_what_does_not_go_together(args)
    _devices.connect(args.device)
    choose_model(args)
    builder = _network.build(args)

    from paddleseg.utils import logger

    from liteseg_plugin.datasets.classes import describe_classes
    from liteseg_plugin.evaluation import evaluate
    from liteseg_plugin.exported import ExportedModel
    from liteseg_plugin.runtimes.choice import choose
    from liteseg_plugin.system.progress import progress_bar
    from liteseg_plugin.training import processes
    from liteseg_plugin.training.run import DataList

    if args.auc_roc and processes.count() > 1:
        raise LitesegError("--auc_roc needs all logits in one process; evaluate without a launcher")
    writes = bool(args.report) and processes.is_main()
    if writes:
        from liteseg_plugin.evaluation import report  # loads matplotlib

        report.check_folder(args.report)
    dataset = builder.val_dataset
    export = ExportedModel.read(args.exported) if args.exported else None
    weights = export.model if export else args.model_path
    lists = {"val_dataset's list": DataList.of(dataset)}
    _devices.check_same_on_hosts(args, builder, weights, lists)
    classes = describe_classes(builder.config.val_dataset_cfg, dataset.num_classes)
    if export:
        choice = choose(export, args.runtime, args.device, args.precision)
        for line in choice.text.splitlines():
            logger.info(line)
        evaluated = evaluate.exported(
            export,
            dataset,
            runtime=choice.runtime,
            device=args.device,
            threads=args.cpu_threads,
            precision=args.precision,
            classes=classes,
            tiling=windows.tiling(args),
        )
    else:
        _devices.use_device(args.device)
        _network.show(builder, args)
        model = _network.load_network(builder, args.model_path)
        test_config = windows.augmentation(args, "aug_eval", builder.config.test_config)
        if not args.report:
            if args.auc_roc:
                test_config["auc_roc"] = True
            return evaluate.as_paddleseg(model, dataset, test_config, args.num_workers, classes)
        evaluated = evaluate.trained(model, dataset, test_config, classes)
    evaluation = evaluate.evaluate(
        evaluated,
        model=args.exported or args.model_path,
        config=args.config,
        threads=max(2, args.num_workers),
        progress=progress_bar,
    )
    logger.info(evaluation.log_line())
    print(evaluation.text())
    if writes:
        page = report.write(
            args.report,
            evaluation,
            evaluated,
            worst=args.worst,
            progress=lambda images: progress_bar(images, desc="report", unit="image"),
        )
        logger.info(f"Report: {page}")
    return evaluation.to_json()
