"""Compute what training on 1 to 64 GPUs costs on paper; print the tables, draw the figure.

    python scripts/scaling_figure.py [--measured JSON] [--save PNG]

The formulae and the numbers that go in are in docs/scaling.md ("On paper").
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "docs/images"
COUNTS = (1, 2, 4, 8, 16, 32, 64)
GPUS_PER_HOST = 8
TOTAL_BATCH, LARGEST_BATCH = 16, 4


@dataclass(frozen=True)
class Model:
    """What one network costs.

    Attributes:
        parameters: Trainable ones, each of which has a gradient of 4 bytes.
        forward_gmac: Multiply-adds of one image of 1024x512 in training, in 1e9.
        batch_norms: Layers that SyncBatchNorm synchronises, forward and backward.
        overlapped: Share of backward that still runs when Paddle exchanges the gradients: that of
            the layers that hold the first MiB of parameters, which it exchanges by themselves.
    """

    parameters: int
    forward_gmac: float
    batch_norms: int
    overlapped: float


@dataclass(frozen=True)
class Network:
    """How GPUs are connected.

    Attributes:
        bandwidth: Bytes a second in each direction.
        latency: Seconds of one message.
    """

    bandwidth: float
    latency: float


MODELS = {"T": Model(8_141_600, 11.54, 48, 0.25), "B": Model(12_366_464, 19.38, 72, 0.15)}
INSIDE = Network(10e9, 10e-6)  # PCIe 4.0 x16, what NCCL reaches of it
BETWEEN = {"10 Gbit/s": Network(1.1e9, 30e-6), "100 Gbit/s": Network(11e9, 15e-6)}


def all_reduce(size: float, count: int, network: Network) -> float:
    """Return the seconds of a ring all-reduce.

    Args:
        size: Bytes of each process.
        count: Processes.
        network: Its slowest link.
    """
    rounds = 2 * (count - 1)
    return rounds * (size / count / network.bandwidth + network.latency)


def step(model: Model, count: int, batch: float, flops: float, between: Network) -> float:
    """Return the seconds of an optimiser step.

    Args:
        model: The network.
        count: GPUs.
        batch: Images of each.
        flops: That one GPU reaches in training.
        between: What connects hosts.
    """
    network = INSIDE if count <= GPUS_PER_HOST else between
    compute = 3 * 2 * model.forward_gmac * 1e9 * batch / flops
    exchange = all_reduce(4 * model.parameters, count, network)
    exposed = max(exchange - 2 / 3 * compute * model.overlapped, 0)
    messages = 2 * model.batch_norms * (count - 1) ** 0.5 * network.latency if count > 1 else 0
    return compute + exposed + messages


def main() -> None:
    """Print Markdown tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, default=IMAGES / "scaling.json")
    parser.add_argument("--save", type=Path, default=IMAGES / "scaling.png")
    parser.add_argument("--tflops", type=float, default=5.5, help="that a GPU reaches in training")
    args = parser.parse_args()
    flops = args.tflops * 1e12
    for name in MODELS:
        table(name, flops)
    draw(json.loads(args.measured.read_text()), flops, args.save)


def rates(name: str, flops: float, between: Network, *, keeps_batch: bool) -> list[float]:
    """Return images a second for each number of GPUs, with the recipe's batch or four a GPU."""
    values = []
    for count in COUNTS:
        batch = TOTAL_BATCH / count if keeps_batch else LARGEST_BATCH
        seconds = step(MODELS[name], count, batch, flops, between)
        values.append(batch * count / seconds if batch >= 1 else float("nan"))
    return values


def table(name: str, flops: float) -> None:
    """Print what each number of GPUs costs."""
    model = MODELS[name]
    print(f"\nPP-LiteSeg-{name}: {4 * model.parameters / 1e6:.1f} MB of gradients\n")
    print("| GPUs | MB sent by each, a step | recipe's batch: images/s | efficiency |", end="")
    print(" 4 a GPU, 10 Gbit/s: images/s | efficiency | 100 Gbit/s: images/s | efficiency |")
    print("|-|-|-|-|-|-|-|-|")
    columns = [rates(name, flops, BETWEEN["100 Gbit/s"], keeps_batch=True)]
    columns += [rates(name, flops, network, keeps_batch=False) for network in BETWEEN.values()]
    for place, count in enumerate(COUNTS):
        sent = 2 * (count - 1) / count * 4 * model.parameters / 1e6
        cells = [str(count), f"{sent:.0f}"]
        for column in columns:
            rate = column[place]
            known = rate == rate
            share = rate / count / column[0]
            cells += [f"{rate:.0f}", f"{share:.0%}"] if known else ["-", "-"]
        print(f"| {' | '.join(cells)} |")


def draw(measured: list[dict], flops: float, path: Path) -> None:
    """Draw images a second on paper, and the measured points beside the formula for them."""
    import matplotlib.pyplot as plt

    figure, (paper, cpu) = plt.subplots(1, 2, figsize=(9, 3.6), dpi=90)
    ideal = rates("T", flops, INSIDE, keeps_batch=False)[0]
    paper.plot(COUNTS, [ideal * n for n in COUNTS], "--", color="grey", label="ideal")
    for name in MODELS:
        for label, network in BETWEEN.items():
            values = rates(name, flops, network, keeps_batch=False)
            paper.plot(COUNTS, values, "o-", markersize=3, label=f"{name}, 4 a GPU, {label}")
        values = rates(name, flops, BETWEEN["100 Gbit/s"], keeps_batch=True)
        paper.plot(COUNTS, values, "s-", markersize=3, label=f"{name}, 16 in all")
    paper.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="images/s, 1024x512")
    paper.set_xticks(COUNTS, map(str, COUNTS))
    paper.set_title(f"On paper, {flops / 1e12:g} TFLOP/s a GPU", fontsize=9)
    paper.legend(fontsize=6)

    # By processor time, which other programs on the machine change little.
    counts = [point["processes"] for point in measured]
    alone = measured[0]["cpu_s"]
    formula = [alone / (alone + point["exchange_cpu_s"]) for point in measured]
    cpu.plot(counts, formula, "--", label="compute + exchange of T's gradients")
    cpu.plot(counts, [alone / point["cpu_s"] for point in measured], "o", label="measured")
    cpu.set(xlabel="processes", ylabel="efficiency, by processor time", ylim=(0, 1.05))
    cpu.set_xticks(counts)
    cpu.set_title("CPU, gloo, 4 images of 128x64 a step", fontsize=9)
    cpu.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
