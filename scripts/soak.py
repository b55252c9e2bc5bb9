"""Use ``Predictor`` and ``liteseg demo`` from several clients, with good and bad files.

python scripts/soak.py EXPORT --minutes 60 2> soak.log

A good file must give the result of its first time, and a bad one the error for users; anything
else is wrong, and the exit code is 1. Prints JSON: counts, memory and its drift. Needs the extra
``demo`` and Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import requests

from liteseg_plugin import Predictor
from liteseg_plugin.errors import DataError
from liteseg_plugin.integration.registry import repair

SIZES_WH = ((96, 64), (160, 120), (97, 131))
SAMPLE_SECONDS = 5
TIMEOUT = 120


class RefusedError(Exception):
    """The demo showed its error for users."""


def write_inputs(folder: Path) -> dict[Path, bool]:
    """Write files, and return whether each is good."""
    rng = np.random.default_rng(0)
    inputs = {}
    for number, (width, height) in enumerate(SIZES_WH):
        for suffix in (".png", ".jpg"):
            path = folder / f"good{number}{suffix}"
            noise = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            cv2.imwrite(str(path), cv2.resize(noise, (width, height)))
            inputs[path] = True
    jpeg = (folder / "good0.jpg").read_bytes()
    png = (folder / "good0.png").read_bytes()
    bad = {
        "empty.png": b"",
        "text.jpg": b"no picture\n" * 99,
        "truncated.jpg": jpeg[:-200],
        "truncated.png": png[:300],
        "huge.png": png[:16] + (1 << 20).to_bytes(4, "big") * 2 + png[24:],
        "noise.png": png[:40] + rng.bytes(2000),
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
        inputs[folder / name] = False
    return inputs


class Demo:
    """A process of ``liteseg demo``, and what its page's scripts ask it."""

    def __init__(self, export: str, folder: Path) -> None:
        command = [sys.executable, "-m", "liteseg_plugin", "demo", export, "--cpu_threads", "1"]
        self.log = folder / "demo.log"
        self.process = subprocess.Popen(
            [*command, "--device", "cpu"],
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder), "no_proxy": "*", "PYTHONUNBUFFERED": "1"},
        )
        while not (found := re.search(r"http://[\d.:]+", self.log.read_text())):
            if self.process.poll() is not None:
                raise SystemExit(f"the demo ended: {self.log.read_text()[-2000:]}")
            time.sleep(0.2)
        self._api = f"{found[0]}/gradio_api"

    def segment(self, path: Path) -> str:
        """Upload a picture, and return the checksum of its overlay.

        Raises:
            RefusedError: If the page shows an error.
        """
        files = {"files": (path.name, path.read_bytes())}
        uploaded = requests.post(f"{self._api}/upload", files=files, timeout=TIMEOUT).json()[0]
        session = uuid.uuid4().hex
        file = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}
        event = {"data": [file, "paddle"], "fn_index": 1, "session_hash": session}
        requests.post(f"{self._api}/queue/join", json=event, timeout=TIMEOUT).raise_for_status()
        with requests.get(
            f"{self._api}/queue/data", {"session_hash": session}, stream=True, timeout=TIMEOUT
        ) as stream:
            answers = (json.loads(line[5:]) for line in stream.iter_lines() if line)
            answer = next(each for each in answers if each["msg"] == "process_completed")
        if not answer["success"]:
            if not (answer["output"].get("error") or "").startswith(("cannot read", path.name)):
                raise ValueError(answer)
            raise RefusedError
        overlay = answer["output"]["data"][0]["path"]
        shown = requests.get(f"{self._api}/file={overlay}", timeout=TIMEOUT)
        shown.raise_for_status()
        return hashlib.sha256(shown.content).hexdigest()


class Clients:
    """Threads that ask for files at random, and count the answers."""

    def __init__(self, segment: Callable[[Path], str], inputs: dict[Path, bool]) -> None:
        self._segment, self._inputs = segment, inputs
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.milliseconds: list[float] = []
        self._first: dict[Path, str] = {}
        self._lock = threading.Lock()

    def start(self, number: int, until: float) -> list[threading.Thread]:
        """Start some clients, which end at a time of ``time.monotonic``."""
        threads = [threading.Thread(target=self._run, args=(n, until)) for n in range(number)]
        for thread in threads:
            thread.start()
        return threads

    def _run(self, seed: int, until: float) -> None:
        chosen = random.Random(seed)
        while time.monotonic() < until:
            path = chosen.choice([*self._inputs])
            started = time.perf_counter()
            try:
                answer = self._segment(path)
                with self._lock:
                    expected = self._inputs[path] and self._first.setdefault(path, answer)
                outcome = "served" if answer == expected else f"{path.name}: another result"
            except (DataError, RefusedError):
                outcome = f"{path.name}: refused" if self._inputs[path] else "refused"
            except Exception as error:  # whatever it is, it is counted
                outcome = f"{path.name}: {error!r}"
            with self._lock:
                if outcome not in ("served", "refused"):
                    self.wrong.append(outcome)
                    outcome = "wrong"
                self.counts[outcome] += 1
                self.milliseconds.append(1000 * (time.perf_counter() - started))

    def found(self) -> dict:
        """Return the counts and times."""
        half = len(self.milliseconds) // 2
        first, last = self.milliseconds[:half], self.milliseconds[half:]
        return {
            **{name: self.counts[name] for name in ("served", "refused", "wrong")},
            "wrong_first": self.wrong[:5],
            "median_ms_first_half": round(float(np.median(first or [0])), 1),
            "median_ms_last_half": round(float(np.median(last or [0])), 1),
        }


class Memory:
    """Samples of a process: resident megabytes, open files and threads."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc", str(pid))
        self.samples: list[tuple[float, float, int, int]] = []

    def sample(self) -> None:
        """Take one."""
        values = dict(
            line.split(":", 1) for line in (self._folder / "status").read_text().splitlines()
        )
        files = len([*(self._folder / "fd").iterdir()])
        megabytes = int(values["VmRSS"].split()[0]) / 1024
        self.samples.append((time.monotonic(), megabytes, files, int(values["Threads"])))

    def found(self) -> dict:
        """Return peak, drift in the second half, and the ends of the samples."""
        later = self.samples[len(self.samples) // 2 :]
        times, megabytes = np.array([sample[:2] for sample in later]).T
        slope = np.polyfit(times - times[0], megabytes, 1)[0] if len(later) > 2 else 0.0
        first, last = self.samples[len(self.samples) // 10], self.samples[-1]
        return {
            "peak_mb": round(max(sample[1] for sample in self.samples), 1),
            "mb_after_a_tenth": round(first[1], 1),
            "mb_at_the_end": round(last[1], 1),
            "drift_mb_per_hour": round(3600 * float(slope), 1),
            "files": [first[2], last[2]],
            "threads": [first[3], last[3]],
        }


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", help="folder of an export")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=3, help="of each of the two")
    args = parser.parse_args()
    repair()
    with tempfile.TemporaryDirectory() as scratch:
        uploads, pictures = Path(scratch, "demo"), Path(scratch, "pictures")
        for folder in (uploads, pictures):
            folder.mkdir()
        inputs = write_inputs(pictures)
        predictor = Predictor(args.export, "paddle", "cpu", 1)
        demo = Demo(args.export, uploads)
        try:
            started = time.monotonic()
            until = started + 60 * args.minutes
            both = {
                "predictor": (
                    Clients(lambda path: hashlib.sha256(predictor(path)).hexdigest(), inputs),
                    Memory(os.getpid()),
                ),
                "demo": (Clients(demo.segment, inputs), Memory(demo.process.pid)),
            }
            threads = [t for each, _ in both.values() for t in each.start(args.clients, until)]
            while any(thread.is_alive() for thread in threads):
                for _, memory in both.values():
                    memory.sample()
                time.sleep(SAMPLE_SECONDS)
            stored = 0
            for path in uploads.rglob("*"):
                with contextlib.suppress(FileNotFoundError):  # the demo deletes old files
                    stored += path.stat().st_size if path.is_file() else 0
            seconds = time.monotonic() - started
        finally:
            demo.process.terminate()
            demo.process.wait()
        found = {name: {**each.found(), **memory.found()} for name, (each, memory) in both.items()}
        said = demo.log.read_text()
        found["demo"]["log_errors"] = said.count("Traceback")
        if "Traceback" in said:
            print(said, file=sys.stderr)
        found["demo"]["megabytes_on_disk"] = round(stored / 1e6, 1)
    print(
        json.dumps({"minutes": round(seconds / 60, 1), "clients": args.clients, **found}, indent=2)
    )
    return any(each["wrong"] for each in (found["predictor"], found["demo"]))


if __name__ == "__main__":
    sys.exit(main())
