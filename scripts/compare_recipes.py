"""Train configs at equal cost with several seeds each, and print their results in one table.

    python scripts/compare_recipes.py RELEASED.yml NEW.yml --seeds 1 2

Each run is a distributed launch of ``liteseg train`` on the CPU and a ``liteseg val`` of its last
checkpoint. It leaves a record, NAME_seedN.json, with the whole config, the losses of the log, and
the evaluation. A run with a record is not repeated. An interrupted run is resumed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from liteseg_plugin.datasets.classes import read_names
from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.visualization import curves

LITESEG = str(Path(sys.executable).with_name("liteseg"))


def main() -> None:
    """Do the missing runs, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", type=Path, nargs="+", metavar="YML")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save_dir", type=Path, default=Path("output/recipes"))
    parser.add_argument("--records", type=Path, default=Path("docs/recipes"))
    args = parser.parse_args()
    args.records.mkdir(parents=True, exist_ok=True)
    recipes = {}
    for config in args.configs:
        for seed in args.seeds:
            path = args.records / f"{config.stem}_seed{seed}.json"
            if not path.is_file():
                atomic_write(path, json.dumps(run(config, seed, args), indent=1).encode())
            record = json.loads(path.read_text(encoding="utf-8"))
            recipes.setdefault(config.stem, []).append(record)
    print(table(recipes))


def run(config: Path, seed: int, args: argparse.Namespace) -> dict:
    """Train and evaluate once.

    Returns:
        The record: ``config``, ``seed``, ``processes``, ``loss`` as [iteration, value],
        ``evaluation`` as of ``liteseg val --json``, and ``class_names``.
    """
    import liteseg_plugin

    liteseg_plugin.activate()
    from paddleseg.cvlibs import Config

    folder = args.save_dir / f"{config.stem}_seed{seed}"
    described = Config(str(config)).dic
    common = ("--config", str(config), "--device", "cpu")
    launch = ("-m", "paddle.distributed.launch", "--nproc_per_node", str(args.processes))
    subprocess.run(
        [
            *(sys.executable, *launch, "--log_dir", str(folder / "log")),
            *(LITESEG, "train", *common, "--save_dir", str(folder)),
            *("--seed", str(seed), "--save_interval", "100", "--keep_checkpoint_max", "1"),
            *("--resume_model", "auto"),
        ],
        check=True,
        stdout=sys.stderr,
    )
    weights = folder / f"iter_{described['iters']}" / "model.pdparams"
    command = [sys.executable, "-m", "liteseg_plugin", "val", *common, "--json"]
    command += ["--model_path", str(weights)]
    evaluated = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {
        "config": described,
        "seed": seed,
        "processes": args.processes,
        "loss": curves.read(folder).loss,
        "evaluation": json.loads(evaluated.stdout),
        "class_names": read_names(described["val_dataset"]["dataset_root"]),
    }


def table(recipes: dict[str, list[dict]]) -> str:
    """Format IoUs in percent: one column per recipe; mIoU of each seed, then means per class."""

    def row(name: str, values: list[float]) -> str:
        return f"| {name} | " + " | ".join(f"{100 * value:.1f}" for value in values) + " |"

    names, first = list(recipes), next(iter(recipes.values()))
    lines = ["| | " + " | ".join(names) + " |", "|-|" + "-|" * len(names)]
    for i, record in enumerate(first):
        mious = [records[i]["evaluation"]["miou"] for records in recipes.values()]
        lines.append(row(f"mIoU, seed {record['seed']}", mious))
    of_class = [
        np.mean([record["evaluation"]["class_iou"] for record in records], axis=0)
        for records in recipes.values()
    ]
    lines.append(row("mIoU, mean", [iou.mean() for iou in of_class]))
    for name, ious in zip(first[0]["class_names"], zip(*of_class)):
        lines.append(row(name, list(ious)))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
