"""Print the speed table of docs/deploy.md: one ``liteseg benchmark --against paddleseg`` per row.

    python scripts/speed_table.py [--quantized EXPORTED --config YML] [--runtime ...] [--repeats N]

EXPORTED is an export with an INT8 model from ``liteseg quantize``, and YML is its config. Both add
the INT8 rows. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

CONFIGS = {
    "T": "configs/pp_liteseg/pp_liteseg_stdc1_cityscapes_1024x512_scale1.0_160k.yml",
    "B": "configs/pp_liteseg/pp_liteseg_stdc2_cityscapes_1024x512_scale1.0_160k.yml",
}
SIZES_WH = [(1024, 512), (1536, 768), (960, 720)]


def main() -> None:
    """Run the benchmarks and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quantized", metavar="EXPORTED")
    parser.add_argument("--config", help="config of the quantised export")
    parser.add_argument("--runtime", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--model", nargs="+", default=["T", "B"], choices=CONFIGS)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    print("| Model | Size | Runtime | Precision | PaddleSeg, fp32, ms | This plugin, ms | Ratio |")
    print("|-|-|-|-|-|-|-|")
    for model in args.model:
        for size_wh in SIZES_WH:
            row(model, size_wh, args, ["--config", CONFIGS[model]])
    if args.quantized:
        source = ["--config", args.config, "--exported", args.quantized, "--precision", "int8"]
        for size_wh in SIZES_WH:
            row("T", size_wh, args, source)


def row(model: str, size_wh: tuple[int, int], args: argparse.Namespace, source: list[str]) -> None:
    """Print one row per runtime."""
    width, height = map(str, size_wh)
    command = [sys.executable, "-m", "liteseg_plugin", "benchmark", *source]
    command += ["--against", "paddleseg", "--runtime", *args.runtime, "--json"]
    command += ["--width", width, "--height", height, "--repeats", str(args.repeats)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    for report in json.loads(done.stdout)["reports"]:
        ours, stock = (report["results"][name] for name in ("liteseg_plugin", "paddleseg"))
        print(
            f"|{model}|{width}x{height}|{report['runtime']} {report['version']}|"
            f"{ours['precision']}|{stock['median_ms']:.1f}|{ours['median_ms']:.1f}|"
            f"{report['ratio']:.2f}|",
            flush=True,
        )


if __name__ == "__main__":
    main()
