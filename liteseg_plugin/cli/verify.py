"""Compare an exported model with the trained network, in every installed runtime."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli import _network
from liteseg_plugin.cli.flags import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add = parser.add_argument
    add("exported", metavar="EXPORTED", help="folder of the export, or the deploy.yaml in it")
    shared.add_config(parser)
    shared.add_weights(parser)
    runtimes = "runtimes to compare (default: all installed)"
    add("--runtime", nargs="+", choices=shared.RUNTIMES, help=runtimes)
    shared.add_precision(parser)
    add("--images", type=int, help="number of images of val_dataset to use (default: all)")
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> dict:
    """Verify; the exit code is 1 if a runtime disagrees with the network."""
    builder = _network.build(args)

    from liteseg_plugin.datasets.image_compose import compose
    from liteseg_plugin.datasets.image_format import ImageFormat
    from liteseg_plugin.evaluation.verify import verify
    from liteseg_plugin.system.checksums import file_sha256
    from liteseg_plugin.system.progress import progress_bar
    from liteseg_plugin.weights import local_path

    dataset, config = builder.val_dataset, builder.config
    image_format = ImageFormat.of_config(config.val_dataset_cfg, config.model_cfg)
    weights = local_path(args.model_path)
    model = _network.load_network(builder, weights)
    verification = verify(
        model,
        args.exported,
        progress_bar(dataset.file_list[: args.images], unit="image"),
        compose(builder.val_transforms, image_format),
        num_classes=dataset.num_classes,
        ignore_index=dataset.ignore_index,
        test_config=config.test_config,
        weights_sha256=file_sha256(weights),
        runtimes=args.runtime,
        precision=args.precision,
    )
    print(verification.text())
    return verification.to_json()
