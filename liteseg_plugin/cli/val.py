"""Evaluate on the config's val_dataset; takes the flags of PaddleSeg's tools/val.py and more."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _devices, _network, _windows
from liteseg_plugin.cli.flags import shared
from liteseg_plugin.errors import LitesegError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    shared.add_model(parser)
    parser.add_argument("--exported", metavar="FOLDER", help="evaluate an exported model instead")
    shared.add_device(parser)
    parser.add_argument(
        "--num_workers",
        type=int,
        default=0,
        help="processes that load images (with --exported or --report: threads, at least 2)",
    )
    _windows.add_augmentation(parser, "--aug_eval")
    _windows.add_tiles(parser)
    parser.add_argument(
        "--auc_roc", action="store_true", help="also compute the area under the ROC curve"
    )
    shared.add_runtime(parser)
    shared.add_precision(parser)
    threads = "CPU threads of --exported (default: all available)"
    parser.add_argument("--cpu_threads", type=int, help=threads)
    parser.add_argument(
        "--report", metavar="DIR", help="folder of a report: metrics.json, figures, index.html"
    )
    parser.add_argument(
        "--worst", type=int, default=10, help="number of images to draw in the report"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> dict:
    """Evaluate, and return the numbers."""
    _refuse_what_does_not_go_together(args)
    _devices.connect(args.device)
    _network.choose_model(args)
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
            tiling=_windows.tiling(args),
        )
    else:
        _devices.use_device(args.device)
        _network.show(builder, args)
        model = _network.load_network(builder, args.model_path)
        test_config = _windows.augmentation(args, "aug_eval", builder.config.test_config)
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


def _refuse_what_does_not_go_together(args: argparse.Namespace) -> None:
    if args.exported and args.model_path:
        raise LitesegError("give --exported or --model_path, not both")
    if args.auc_roc and (args.exported or args.report):
        raise LitesegError("--auc_roc does not work with --exported or --report; remove it")
    if args.exported and (args.aug_eval or args.is_slide):
        raise LitesegError(
            "an exported model infers once, at the scale it was exported with; for --aug_eval and "
            "--is_slide give the trained weights (--model_path), for a sliding window --tile W H"
        )
    chosen = args.runtime != "auto" or args.precision != "fp32"
    if not args.exported and (chosen or args.cpu_threads):
        raise LitesegError("--runtime, --precision and --cpu_threads need --exported")
