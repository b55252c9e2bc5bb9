"""Make, convert, check or split data sets."""

from __future__ import annotations

import argparse

from liteseg_plugin.errors import LitesegError, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)

    toy = kinds.add_parser("toy", help="draw a small street-scene data set in CamVid's layout")
    toy.add_argument("dest", metavar="DEST", help="folder to make")
    toy.add_argument("--train", type=int, default=160, help="images to train on")
    toy.add_argument("--val", type=int, default=32, help="images to evaluate on")
    toy.add_argument("--test", type=int, default=16, help="images to test on")
    toy.add_argument("--size", nargs=2, type=int, default=(256, 192), metavar=("W", "H"))
    toy.add_argument("--seed", type=int, default=2022)
    toy.set_defaults(make=_toy)

    camvid = kinds.add_parser("camvid", help="CamVid, original or SegNet's, to PaddleSeg's layout")
    camvid.add_argument("source", metavar="SOURCE", help="the distribution, unpacked")
    camvid.add_argument("dest", metavar="DEST", help="folder to make")
    camvid.add_argument(
        "--size", nargs=2, type=int, metavar=("W", "H"), help="default: as in the source"
    )
    camvid.add_argument(
        "--void_unknown", action="store_true", help="make colours that are no class void"
    )
    camvid.set_defaults(make=_camvid)

    cityscapes = kinds.add_parser("cityscapes", help="labelTrainIds and lists for Cityscapes")
    cityscapes.add_argument("source", metavar="SOURCE", help="holds leftImg8bit and gtFine")
    cityscapes.add_argument("--overwrite", action="store_true", help="make all labels anew")
    cityscapes.set_defaults(make=_cityscapes)

    check = kinds.add_parser("check", help="look for what would spoil a training")
    check.add_argument("data", metavar="DATA", nargs="?", help="a folder with lists")
    check.add_argument("--config", help="check the data sets of a config instead")
    check.add_argument("--opts", nargs="+", metavar="KEY=VALUE", help="override its values")
    check.add_argument("--separator", default=" ", help="of image and label in the lists")
    check.add_argument("--num_classes", type=int, help="default: the lines of labels.txt")
    check.add_argument("--ignore_index", type=int, default=255)
    check.add_argument("--batch_size", type=int, help="for the suggested min_kept")
    check.add_argument("--html", metavar="FILE", help="write a page with overlays")
    check.add_argument("--samples", type=int, default=24, help="overlays in the page")
    check.set_defaults(make=_check)

    split = kinds.add_parser("split", help="write the lists of your own images and labels")
    split.add_argument("root", metavar="FOLDER", help="holds the folders of images and labels")
    split.add_argument("--images", default="images", help="folder of the images in FOLDER")
    split.add_argument("--labels", default="annot", help="folder of the labels in FOLDER")
    split.add_argument(
        "--ratio", nargs=3, type=float, default=(0.8, 0.1, 0.1), metavar=("TRAIN", "VAL", "TEST")
    )
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--label_suffix", default="", help="_mask, if a.jpg has a_mask.png")
    split.add_argument(
        "--keep_sequences", action="store_true", help="keep the frames of a video in one split"
    )
    split.add_argument("--separator", default=" ", help="of image and label in the lists")
    split.add_argument("--overwrite", action="store_true", help="replace lists that are there")
    split.set_defaults(make=_split)

    for kind in (camvid, cityscapes, check):
        kind.add_argument("--workers", type=int, help="threads; default: one a processor")
    for kind in (camvid, cityscapes, check, split):
        kind.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> dict | None:
    """Do it, and return what was done."""
    return args.make(args)


def _toy(args: argparse.Namespace) -> None:
    from liteseg_plugin.datasets import toy_street

    folder = toy_street.generate(
        args.dest,
        train=args.train,
        val=args.val,
        test=args.test,
        resolution_wh=tuple(args.size),
        seed=args.seed,
    )
    print(f"toy street scenes: {folder}")


def _camvid(args: argparse.Namespace) -> dict:
    from liteseg_plugin.datasets import camvid

    made = camvid.convert(
        args.source,
        args.dest,
        resolution_wh=args.size and tuple(args.size),
        void_unknown=args.void_unknown,
        workers=args.workers,
    )
    for name, published in made["published"].items():
        print(f"{name}: {made[name]} of {published} frames")
    if made["left_out"]:
        print(
            f"{len(made['left_out'])} frames are in no split and were left out: "
            f"{', '.join(map(printable, made['left_out'][:5]))}"
        )
    return made


def _cityscapes(args: argparse.Namespace) -> dict:
    from liteseg_plugin.datasets import cityscapes

    made = cityscapes.prepare(args.source, overwrite=args.overwrite, workers=args.workers)
    print(f"train {made['train']}, val {made['val']}, test {made['test']} images")
    print(f"{made['made']} labels made, {made['kept']} kept; lists: {', '.join(made['lists'])}")
    return made


def _check(args: argparse.Namespace) -> dict:
    if (args.data is None) == (args.config is None):
        raise LitesegError("give a folder to check, or --config")
    from liteseg_plugin.datasets import check

    if args.config:
        from liteseg_plugin.cli import _common

        data = check.from_config(_common.build(args))
    else:
        data = check.from_folder(
            args.data,
            separator=args.separator,
            num_classes=args.num_classes,
            ignore_index=args.ignore_index,
            batch_size=args.batch_size,
        )
    report = check.check(data, samples=args.samples, workers=args.workers)
    print(check.summary(report))
    if args.html:
        from liteseg_plugin.visualization.check_page import write_page

        print(f"page: {write_page(report, args.html)}")
    return report


def _split(args: argparse.Namespace) -> dict:
    from liteseg_plugin.datasets.split import split_folder

    made = split_folder(
        args.root,
        images=args.images,
        labels=args.labels,
        ratio=args.ratio,
        seed=args.seed,
        label_suffix=args.label_suffix,
        keep_sequences=args.keep_sequences,
        separator=args.separator,
        overwrite=args.overwrite,
    )
    print(f"{made['root']}: train {made['train']}, val {made['val']}, test {made['test']} pairs")
    for what, names in (("label", "without_label"), ("image", "without_image")):
        if made[names]:
            print(
                f"left out, no {what}: {len(made[names])} files, e.g. {printable(made[names][0])}"
            )
    return made
