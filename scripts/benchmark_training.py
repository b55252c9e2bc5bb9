"""Train with PaddleSeg's code and with the plugin's, in turns; compare times and results.

    python scripts/benchmark_training.py --data FOLDER --variant T --crop 480 360 --batch_size 4

Each turn runs in its own process, or in ``--processes`` of them: first PaddleSeg's network, OHEM
and loop without the plugin, repaired only where they crash on this Paddle (see ``repair``), then
the plugin's. Both run the first ``--steps`` optimiser steps of the released CamVid recipe, with
``--crop`` and ``--batch_size``. They start from the same weights and seed, and so see the same
batches.

The script prints the median step (data loading included, first step excluded), images per second,
peak memory, and the largest difference of losses and weights in any process. Of the batch-norm
statistics only those of the first process count: it saves them, and all processes load them when
they resume.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

CONFIGS = Path(__file__).parents[1] / "configs" / "pp_liteseg"
VARIANTS = {"T": "pp_liteseg_stdc1_camvid_960x720_10k", "B": "pp_liteseg_stdc2_camvid_960x720_10k"}


def main() -> None:
    """Run both sides in turns, compare their results, and print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with a train.txt")
    parser.add_argument("--variant", choices=VARIANTS, default="T")
    parser.add_argument("--crop", type=int, nargs=2, default=(160, 128), metavar=("W", "H"))
    parser.add_argument("--batch_size", type=int, default=2, help="images per process")
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="also repeat the second half of each side from its checkpoint, and compare",
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help="also run PaddleSeg's side with the last bit of one weight changed",
    )
    parser.add_argument(
        "--same_mkl",
        action="store_true",
        help="on AMD, let PaddleSeg's side use the plugin's path of MKL: same rounding and speed",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        run_side(args)
        return
    names = [name for name in SIDES if name != "control" or args.control]
    results: dict[str, list[dict]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "config.yml").write_text(yaml.safe_dump(config(args)), encoding="utf-8")
        for _ in range(args.rounds):
            for name in names:
                results[name].append(start(args, name, folder))
                if not args.json:
                    print(describe(name, results[name][-1]), flush=True)
        apart = {name: compare(folder, name, args.processes) for name in names[1:]}
    seconds = {name: np.median([run["step_seconds"] for run in results[name]]) for name in names}
    ratio = seconds["paddleseg"] / seconds["plugin"]
    if args.json:
        sides = {name: runs[-1] for name, runs in results.items()}
        print(json.dumps({"apart": apart, "step_ratio": ratio, "sides": sides}))
        return
    print(f"step: {ratio:.2f}x as fast")
    for name, runs in results.items():
        if args.resume:
            again = runs[-1]["resumed_apart"]
            print(f"{name}: losses of the second half, resumed, {again:.1e} from the first time's")
    for name, far in apart.items():
        print(
            f"{name} and paddleseg, apart after {args.steps} steps: losses {far['losses']:.1e} "
            f"(relative), weights {far['weights']:.1e} (they moved by {far['moved']:.1e})"
        )


def config(args: argparse.Namespace) -> dict:
    """Return the released recipe with this crop and batch size."""
    width, height = args.crop
    transforms = yaml.safe_load((CONFIGS.parent / "_base_" / "pp_liteseg_camvid.yml").open())
    transforms = transforms["train_dataset"]["transforms"]
    next(t for t in transforms if t["type"] == "RandomPaddingCrop")["crop_size"] = [width, height]
    root = args.data.resolve()
    return {
        "_base_": str(CONFIGS / f"{VARIANTS[args.variant]}.yml"),
        "batch_size": args.batch_size,
        "train_dataset": {
            "dataset_root": str(root),
            "train_path": str(root / "train.txt"),
            "num_classes": args.classes,
            "transforms": transforms,
        },
        "model": {"num_classes": args.classes, "backbone": {"pretrained": None}},
        "loss": {
            "types": [
                {
                    "type": "OhemCrossEntropyLoss",
                    "min_kept": args.batch_size * width * height // 16,
                    "ignore_index": 255,
                }
            ]
        },
    }


def start(args: argparse.Namespace, side: str, folder: Path) -> dict:
    """Run a side in its own processes, and return the record of the first."""
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(args.processes)]
    launch += ["--log_dir", str(folder / "log")]
    environment = {**os.environ, "LITESEG_AUTOLOAD": "0"}
    if args.same_mkl:
        from liteseg_plugin.integration.compat import mkl_path

        if mkl_path():
            environment.setdefault("MKL_DEBUG_CPU_TYPE", mkl_path())
    result = folder / f"{side}.json"
    result.unlink(missing_ok=True)
    ended = subprocess.run(
        [
            *(sys.executable, *(launch if args.processes > 1 else [])),
            *(__file__, *sys.argv[1:], "--side", side, "--folder", str(folder)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    if ended.returncode != 0 or not result.is_file():
        logs = [path.read_text() for path in sorted((folder / "log").glob("workerlog.*"))]
        raise SystemExit("\n".join([ended.stdout, *logs])[-5000:])
    return json.loads(result.read_text())


def describe(name: str, result: dict) -> str:
    """Describe the record of a side."""
    return (
        f"{name:10}{result['step_seconds']:8.3f} s a step{result['images_per_second']:8.2f} images "
        f"a second{result['peak_mb']:8.0f} MB at the peak, {result['start_mb']:.0f} before"
    )


def compare(folder: Path, side: str, processes: int) -> dict[str, float]:
    """Return the largest differences between a side and PaddleSeg's, in any process.

    Those of losses are relative, those of weights absolute.
    """
    losses, weights, moved = [], [], []
    for rank in range(processes):
        theirs, other = (np.load(folder / f"{name}.{rank}.npz") for name in ("paddleseg", side))
        losses.append(np.abs(other["losses"] / theirs["losses"] - 1).max())
        for name in filter(lambda name: name.startswith("last/"), other.files):
            if rank > 0 and name.endswith(("._mean", "._variance")):
                continue  # used and saved are the first process's; on resuming all get those
            weights.append(np.abs(other[name] - theirs[name]).max())
            moved.append(np.abs(theirs[name] - theirs[name.replace("last/", "first/")]).max())
    return {
        name: float(max(values))
        for name, values in (("losses", losses), ("weights", weights), ("moved", moved))
    }


# --- in the processes of a side -----------------------------------------------------------------


def run_side(args: argparse.Namespace) -> None:
    """Train; record losses, times, memory and weights."""
    train = SIDES[args.side]()
    import paddle
    from paddleseg.cvlibs import Config, SegBuilder
    from paddleseg.utils import utils

    paddle.set_device("cpu")
    noted = note_steps()

    def fresh() -> tuple[SegBuilder, dict]:
        # Names as in a fresh process: PaddleSeg's optimiser checkpoint refers to them.
        paddle.utils.unique_name.switch()
        builder = SegBuilder(Config(str(args.folder / "config.yml")))
        weights = draw(builder.model)
        if args.side == "control":
            filters = weights["backbone.features.0.conv.weight"]
            filters.flat[0] = np.nextafter(filters.flat[0], np.float32(1))
        builder.model.set_state_dict(weights)
        utils.set_seed(1)
        return builder, weights

    builder, first = fresh()
    origin = "liteseg_plugin.models" if args.side == "plugin" else "paddleseg.models"
    if not type(builder.model).__module__.startswith(origin):
        raise SystemExit(f"{type(builder.model)} is not of {origin}; liteseg autoload disable")
    start_mb = peak_mb()
    common = {"iters": args.steps, "batch_size": args.batch_size, "num_workers": args.num_workers}
    half = args.steps // 2 if args.resume else args.steps
    train(builder, save_dir=str(args.folder / args.side), save_interval=half, **common)
    times, losses, trained = list(noted["times"]), list(noted["losses"]), builder.model
    resumed_apart = None
    if args.resume:
        builder, _ = fresh()
        noted["losses"].clear()
        checkpoint = args.folder / args.side / f"iter_{half}"
        train(
            builder,
            save_dir=str(args.folder / f"{args.side}_resumed"),
            resume_model=checkpoint,
            **common,
        )
        resumed_apart = max(map(abs, np.subtract(noted["losses"], losses[half:])))
        if args.side == "plugin":
            losses[half:], trained = noted["losses"], builder.model
    state = {f"first/{name}": value for name, value in first.items()}
    for name, value in trained.state_dict().items():
        if name in first:  # counting operations, PaddleSeg's loop adds some at the end
            state[f"last/{name}"] = value.numpy()
    rank = paddle.distributed.get_rank()
    np.savez(args.folder / f"{args.side}.{rank}.npz", losses=losses, **state)
    if rank != 0:
        return
    seconds = float(np.median(np.diff(times)[1:]))
    result = {
        "step_seconds": seconds,
        "images_per_second": args.batch_size * args.processes / seconds,
        "peak_mb": peak_mb(),
        "start_mb": start_mb,
        "losses": losses,
        "resumed_apart": resumed_apart,
    }
    (args.folder / f"{args.side}.json").write_text(json.dumps(result))


def paddleseg():  # noqa: D103
    import zlib  # noqa: F401 - before Paddle 2.6.2, whose own zlib crashes Python

    repair()
    from paddleseg.core import train

    def run(builder: object, **settings: object) -> None:
        train(
            builder.model,
            builder.train_dataset,
            optimizer=builder.optimizer,
            losses=builder.loss,
            log_iters=1,
            **settings,
        )

    return run


def plugin():  # noqa: D103
    import liteseg_plugin

    liteseg_plugin.activate()
    from liteseg_plugin.training.settings import Settings
    from liteseg_plugin.training.trainer import train

    def run(builder: object, **settings: object) -> None:
        parts = (builder.model, builder.optimizer, builder.loss, builder.train_dataset)
        train(*parts, Settings(log_iters=1, **settings))

    return run


def repair() -> None:
    """Repair PaddleSeg 2.8.0 where it crashes on Paddle 3, without changing its numbers."""
    from importlib import import_module

    import paddle

    loop = import_module("paddleseg.core.train")
    computation, add = loop.loss_computation, paddle.Tensor.__add__

    def add_of_types(a: paddle.Tensor, b: object) -> paddle.Tensor:
        """OHEM adds an int64 mask to float32 probabilities: TypeError."""
        if isinstance(b, paddle.Tensor) and b.dtype == paddle.int64 and a.is_floating_point():
            b = b.astype(a.dtype)
        return add(a, b)

    def losses_of_one_dimension(*args: object, **kw: object) -> list[paddle.Tensor]:
        """The loop's log reads ``loss[0]`` of a 0-D loss: IndexError."""
        return [loss.reshape([1]) for loss in computation(*args, **kw)]

    paddle.Tensor.__add__ = add_of_types
    loop.loss_computation = losses_of_one_dimension


def note_steps() -> dict[str, list]:
    """Record the time and the sum of the losses of each step; both loops call this function."""
    from importlib import import_module

    loop = import_module("paddleseg.core.train")
    computation = loop.loss_computation
    noted: dict[str, list] = {"times": [], "losses": []}

    def loss_computation(*args: object, **kw: object) -> list:
        noted["times"].append(time.perf_counter())
        parts = computation(*args, **kw)
        noted["losses"].append(float(sum(parts)))
        return parts

    loop.loss_computation = loss_computation
    return noted


def draw(model: object) -> dict[str, np.ndarray]:
    """Draw the initial weights: He-normal, and small ones for the logits.

    The backbone's own are N(0, 0.001): logits near 0, and everything agrees.
    """
    rng = np.random.default_rng(1)
    drawn = {}
    for name, tensor in sorted(model.state_dict().items()):
        shape = tuple(tensor.shape)
        if len(shape) == 4:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
            if "conv_out" in name and "seg_heads" in name:
                value *= 0.1
        elif name.endswith(("weight", "_variance", "_scale")):
            value = np.ones(shape)
        else:
            value = np.zeros(shape)
        drawn[name] = value.astype(tensor.numpy().dtype)
    return drawn


def peak_mb() -> float:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


SIDES = {"paddleseg": paddleseg, "plugin": plugin, "control": paddleseg}

if __name__ == "__main__":
    main()
