"""Time PaddleSeg's evaluation and the plugin's evaluation of an export, in turns.

    python scripts/benchmark_evaluation.py --config CONFIG --model_path WEIGHTS \
        --exported FOLDER --runtime openvino

Each side is a process. One runs PaddleSeg's class and ``evaluate`` without the plugin, repaired
only where they crash on this Paddle. The other runs the export and computes all metrics of
``liteseg val --report``. The frames of val_dataset are divided into rounds, and the
sides take turns. Each side loads its model and runs it once before; the start is not timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time


def main() -> None:
    """Run both sides in turns, and print seconds, mIoU and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--model_path", required=True)
    parser.add_argument("--exported", required=True)
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        serve(SIDES[args.side](args), args.rounds)
        return
    sides = {
        name: subprocess.Popen(
            [sys.executable, *sys.argv, "--side", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in SIDES
    }
    for side in sides.values():
        answer(side)  # it is ready
    seconds, cpu_seconds = (dict.fromkeys(sides, 0.0) for _ in range(2))
    for number in range(args.rounds):
        for name, side in sides.items():
            print(number, file=side.stdin, flush=True)
            result = answer(side)
            seconds[name] += result["seconds"]
            cpu_seconds[name] += result["cpu_seconds"]
            print(
                f"round {number}: {name:10}{result['seconds']:8.2f} s for {result['images']} "
                f"frames, mIoU {result['miou']:.6f}",
                flush=True,
            )
    for side in sides.values():
        side.stdin.close()
        side.wait()
    for what, spent in (("elapsed", seconds), ("of CPU", cpu_seconds)):
        theirs, ours = spent.values()
        print(f"seconds {what}: paddleseg {theirs:.2f}, plugin {ours:.2f}: {theirs / ours:.1f}x")


def answer(side: subprocess.Popen) -> dict:
    """Return the next line of JSON that a side prints; Paddle prints other lines."""
    for line in side.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise SystemExit("a side failed; its error is above")


def serve(evaluate_frames: tuple, rounds: int) -> None:
    """Evaluate the frames of each round that is asked for."""
    dataset, run = evaluate_frames
    frames = dataset.file_list
    dataset.file_list = frames[:2]
    run()
    print("{}", flush=True)
    for line in sys.stdin:
        dataset.file_list = frames[int(line) :: rounds]
        started, cpu_started = time.perf_counter(), time.process_time()
        miou = float(run())
        result = {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu_started,
            "images": len(dataset.file_list),
            "miou": miou,
        }
        print(json.dumps(result), flush=True)


def paddleseg(args: argparse.Namespace) -> tuple:
    """Set up PaddleSeg as it is installed, without the plugin."""
    import zlib  # noqa: F401 - before Paddle 2.6.2, whose own zlib crashes Python

    import paddle

    concat = paddle.concat

    def concat_or_stack(tensors: list, *args: object, **kw: object) -> paddle.Tensor:
        """The repair: PaddleSeg 2.8.0's calculate_area joins 0-D tensors."""
        return paddle.stack(tensors) if tensors[0].ndim == 0 else concat(tensors, *args, **kw)

    paddle.concat = concat_or_stack
    from paddleseg.core import evaluate
    from paddleseg.cvlibs import Config, SegBuilder

    builder = SegBuilder(Config(args.config, opts=["model.backbone.pretrained=None"]))
    model, dataset = builder.model, builder.val_dataset
    if type(model).__module__ != "paddleseg.models.pp_liteseg":
        raise SystemExit(f"{type(model)} is not PaddleSeg's own; liteseg autoload disable")
    model.set_state_dict(paddle.load(args.model_path))
    settings = {**builder.config.test_config, "print_detail": False}
    return dataset, lambda: evaluate(model, dataset, **settings)[0]


def plugin(args: argparse.Namespace) -> tuple:
    """Set up the evaluation of the export."""
    import liteseg_plugin

    liteseg_plugin.activate()
    from paddleseg.cvlibs import Config, SegBuilder

    from liteseg_plugin.evaluation.evaluate import evaluate, exported
    from liteseg_plugin.exported import ExportedModel

    dataset = SegBuilder(Config(args.config)).val_dataset
    evaluated = exported(ExportedModel.read(args.exported), dataset, runtime=args.runtime)
    return evaluated.dataset, lambda: evaluate(evaluated).miou


SIDES = {"paddleseg": paddleseg, "plugin": plugin}

if __name__ == "__main__":
    main()
