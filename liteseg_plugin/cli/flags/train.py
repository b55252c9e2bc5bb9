"""The flags of train."""

from __future__ import annotations

import argparse

from liteseg_plugin.cli.flags import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    shared.add_config(parser)
    shared.add_device(parser)
    add, switch = parser.add_argument, "store_true"
    add("--save_dir", default="./output", help="folder of the checkpoints")
    add("--num_workers", type=int, default=0, help="worker processes of the data loader")
    add("--do_eval", action=switch, help="evaluate at every save, and keep the best model")
    add("--use_vdl", action=switch, help="write VisualDL logs into --save_dir")
    add("--use_ema", action=switch, help="keep an exponential moving average of the weights")
    resume = "continue from a checkpoint (iter_N), or from the newest checkpoint of a run's folder"
    add("--resume_model", help=f"{resume}; auto: from the newest in --save_dir, if there is one")
    changed = "resume even if settings differ from the run's"
    add("--allow_changes", action=switch, help=changed)
    add("--iters", type=int, help="number of iterations (default: the config's)")
    add("--batch_size", type=int, help="images per process (default: the config's)")
    add("--learning_rate", type=float, help="learning rate (default: the config's)")
    add("--save_interval", type=int, default=1000, help="iterations between checkpoints")
    add("--log_iters", type=int, default=10, help="iterations between log lines")
    add(
        "--keep_checkpoint_max",
        type=int,
        default=5,
        help="number of checkpoints to keep; 0 keeps all",
    )
    add("--early_stop_intervals", type=int, help="stop after N saves without a better mIoU")
    add("--seed", type=int, help="seed of random numbers (default: another in each run)")
    add(
        "--precision",
        default="fp32",
        choices=("fp32", "fp16", "bf16"),
        help="fp16 and bf16 train in mixed precision",
    )
    add(
        "--amp_level",
        default="O1",
        choices=("O1", "O2"),
        help="level of mixed precision; O2 also converts the weights",
    )
    accumulate = "batches that make up an iteration, to train with a batch that exceeds the memory"
    add("--gradient_accumulation_steps", type=int, default=1, help=accumulate)
    add("--profiler_options", help="of Paddle's profiler, such as batch_range=[50,60]")
    add(
        "--save_format",
        default="pdparams",
        choices=("pdparams", "safetensors"),
        help="format of the weights in checkpoints and best models",
    )
    add("--repeats", type=int, default=1, help="number of times that an epoch uses each image")
    add("--to_static_training", action=switch, help="train the network as a static graph")
    add("--data_format", default="NCHW", choices=("NCHW",), help="order of the dimensions")
