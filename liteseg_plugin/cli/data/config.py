"""Write a config for your own images, made from what `liteseg data check` measures."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from liteseg_plugin.cli import _devices, _network
from liteseg_plugin.cli.flags import images, shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add = parser.add_argument
    add("data", metavar="FOLDER", help="folder of a data set with lists")
    add("--save", metavar="FILE", required=True, help="the config to write (.yml)")
    add("--overwrite", action="store_true", help="replace an existing file")
    budget = parser.add_mutually_exclusive_group()
    iters = "number of iterations (default: 40 passes over the images)"
    budget.add_argument("--iters", type=int, help=iters)
    minutes = "as many iterations as take X minutes here, by timing a few"
    budget.add_argument("--minutes", type=float, help=minutes)
    backbone = "STDC1 for PP-LiteSeg-T, STDC2 for -B"
    add("--backbone", default="STDC1", choices=("STDC1", "STDC2"), help=backbone)
    add("--weights", metavar="FILE", help="weights of PP-LiteSeg to start from (default: random)")
    crop = "size of the crops in pixels (default: 2/3 of the usual image)"
    add("--crop", nargs=2, type=int, metavar=("W", "H"), help=crop)
    add("--batch_size", type=int, help="images of a batch (default: 8, or fewer if they are large)")
    add("--separator", default=" ", help="what separates image and label in a list")
    add("--num_classes", type=int, help="number of classes (default: the lines of labels.txt)")
    add("--ignore_index", type=int, default=255, help="label of ignored pixels")
    images.add_channels(parser)
    shared.add_device(parser)
    add("--workers", type=int, help="threads (default: one per processor)")
    add("--json", action="store_true", help="print the choices as JSON")


def run(args: argparse.Namespace) -> dict:
    """Check, choose, and write."""
    from liteseg_plugin.datasets import check, configuring
    from liteseg_plugin.errors import printable
    from liteseg_plugin.integration.config_files import new_config
    from liteseg_plugin.system.files import atomic_write

    path = new_config(args.save, overwrite=args.overwrite)
    data = check.from_folder(
        args.data,
        separator=args.separator,
        num_classes=args.num_classes,
        ignore_index=args.ignore_index,
        channels=args.channels,
    )
    report = check.check(data, samples=0, workers=args.workers)
    choices: dict[str, Any] = {
        "backbone": args.backbone,
        "weights": args.weights,
        "crop_wh": args.crop and tuple(args.crop),
        "batch_size": args.batch_size,
        "iters": args.iters,
    }
    plan = configuring.plan(report, data, **choices)
    if args.minutes:
        seconds = _seconds(plan.text(), args.device)
        plan = plan.within(args.minutes, seconds)
    atomic_write(path, plan.text().encode())
    for finding in report.warnings[:5]:
        print(f"warning: {printable(finding.message)}")
    print(plan.summary())
    command = f"liteseg train --config {shlex.quote(str(path))} --do_eval"
    print(f"{printable(path)}: {printable(command)}")
    return {"config": str(path), **plan.to_json()}


def _seconds(text: str, device: str) -> float:
    """Return the seconds of an iteration with a config."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yml")
        file.write_text(text, encoding="utf-8")
        builder = _network.build(argparse.Namespace(config=str(file), opts=None), downloads=False)
        _devices.use_device(device)

        from liteseg_plugin.training.pace import seconds_per_iteration

        return seconds_per_iteration(builder)
