"""Load `liteseg serve` by `hey` (apt install hey), and compare with the engine alone.

    python scripts/serve_load.py EXPORTED --image street.png --minutes 10

Rounds of the engine alone and of the server alternate, so that other programs disturb both. In a
round of the server several clients send tensors, and one sends bad requests. At the end:
throughput, latency, answers by status, and the server's memory after the first and the last rounds.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import requests

from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.integration.registry import repair

ENGINE = "liteseg_engine_seconds_total.*"
ANSWERED = 'liteseg_requests_total.*status="200".*'


def main() -> None:
    """Run the rounds, and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exported")
    parser.add_argument("--image", required=True)
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--round_s", type=int, default=20)
    args = parser.parse_args()
    repair()
    predictor = Predictor(args.exported, args.runtime, "cpu", args.threads)
    x = predictor.preprocess(cv2.imread(args.image))
    header = {
        "inputs": [
            {
                "name": "x",
                "shape": x.shape,
                "datatype": "FP32",
                "parameters": {"binary_data_size": x.nbytes},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "body")
        body.write_bytes(text + x.tobytes())
        server, url = start(args)
        try:
            rounds(args, predictor, x, server.pid, url, body, len(text))
        finally:
            server.send_signal(signal.SIGTERM)
            print("exit code of the server after SIGTERM:", server.wait(60))


def start(args: argparse.Namespace) -> tuple[subprocess.Popen, str]:
    """Start the server; return it and its address."""
    command = [sys.executable, "-m", "liteseg_plugin", "serve", args.exported]
    command += ["--runtime", args.runtime, "--device", "cpu", "--cpu_threads", str(args.threads)]
    command += ["--http_port", "0", "--grpc_port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = ""
    while "ends." not in said:
        line = server.stdout.readline()
        if not line:
            raise SystemExit(f"the server ended: {said}")
        said += line
    return server, f"http://127.0.0.1:{re.search('HTTP port ([0-9]+)', said)[1]}"


def rounds(args, predictor, x, pid: int, url: str, body: Path, header_bytes: int) -> None:
    """Alternate rounds of the engine and of the server."""
    name = Path(args.exported).resolve().name
    target = f"{url}/v2/models/{name}/infer"
    alone, served, busy, memory, latencies, statuses = [], [], [], [], [], {}
    end, lost = time.monotonic() + args.minutes * 60, 0.0
    while time.monotonic() < end:
        started, count = time.monotonic(), 0
        while time.monotonic() - started < args.round_s:
            predictor.run(x)
            count += 1
        alone.append(count / (time.monotonic() - started))
        before, answered, done = metric(url, ENGINE), metric(url, ANSWERED), threading.Event()
        disturbing = threading.Thread(target=disturb, args=(target, done, statuses))
        disturbing.start()
        load = subprocess.run(
            [
                *("hey", "-z", f"{args.round_s}s", "-c", str(args.clients), "-t", "60"),
                *("-o", "csv", "-m", "POST", "-T", "application/octet-stream", "-D", str(body)),
                *("-H", f"Inference-Header-Content-Length: {header_bytes}", target),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        done.set()
        disturbing.join()
        rows = [line.split(",") for line in load.stdout.splitlines()[1:]]
        for row in rows:
            key = f"tensor {row[6]}"
            statuses[key] = statuses.get(key, 0) + 1
        took = max(float(row[7]) + float(row[0]) for row in rows)
        served.append(len(rows) / took)
        busy.append((metric(url, ENGINE) - before) / took)
        lost += metric(url, ANSWERED) - answered - len(rows)
        latencies += [float(row[0]) for row in rows]
        memory.append(resident_mb(pid))
        print(
            f"alone {alone[-1]:.2f}/s, served {served[-1]:.2f}/s, engine busy {busy[-1]:.1%}, "
            f"{memory[-1]:.0f} MB",
            flush=True,
        )
    cuts = statistics.quantiles(latencies, n=100)
    print("served / alone, median of the rounds:", statistics.median(map(ratio, served, alone)))
    print("engine busy, median:", statistics.median(busy))
    print("latency in ms, p50 p95 p99:", *(round(cuts[n - 1] * 1000) for n in (50, 95, 99)))
    print("answers by status:", dict(sorted(statuses.items())))
    print("answers of the server that no client has:", round(lost))
    print("memory in MB, first and last rounds:", *map(round, (*memory[:3], *memory[-3:])))


def ratio(a: float, b: float) -> float:
    """Divide."""
    return a / b


def disturb(target: str, done: threading.Event, statuses: dict[str, int]) -> None:
    """Send bad requests, ten a second at most."""
    bad = ({"data": b"{"}, {"data": bytes(100_000)}, {"json": {"inputs": []}})
    image = target.replace("/infer", "/segment")
    while not done.wait(0.1):
        for path, options in (*((target, one) for one in bad), (image, {"data": b"\x89PNG\r\n"})):
            key = f"bad {requests.post(path, timeout=60, **options).status_code}"
            statuses[key] = statuses.get(key, 0) + 1


def metric(url: str, pattern: str) -> float:
    """Return a metric of the server; 0 before it is counted."""
    text = requests.get(f"{url}/metrics", timeout=60).text
    found = re.search(rf"^{pattern} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def resident_mb(pid: int) -> float:
    """Return the memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


if __name__ == "__main__":
    main()
