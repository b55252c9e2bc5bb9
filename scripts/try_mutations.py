"""Damage weights and an export in many ways, load each in a child process, and print a table.

    python scripts/try_mutations.py --model_path WEIGHTS --exported FOLDER [--number 1000]

One to three places of one file are changed: bits and bytes, what is inserted, removed, zeroed or
cut. Damage must be refused, or change nothing: the same arrays, the same label map of one picture.
The exit code is 1 if it is not so. With ``--without_checksums`` the files have no checksums, and
the table tells what the readers and the runtimes make of damage by themselves.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from liteseg_plugin import Predictor
from liteseg_plugin.errors import LitesegError
from liteseg_plugin.exported import DEPLOY_FILE, ExportedModel
from liteseg_plugin.system.checksums import SUMS, sums_of, write_sums
from liteseg_plugin.weights import read_state_dict

OUTCOMES = ("equal", "refused", "another result", "another error", "process ended", "no end")
SECONDS = 120
MOST_BYTES = 16 << 30
_WEIGHTS = "model.pdparams"


def main(argv: Sequence[str] | None = None) -> int:
    """Try all, print Markdown, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_path", type=Path, help="weights to damage")
    parser.add_argument("--exported", type=Path, help="exported folder to damage")
    parser.add_argument("--runtimes", nargs="*", default=["paddle", "onnxruntime", "openvino"])
    parser.add_argument("--number", type=int, default=1000, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without_checksums", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        kinds: dict[str, tuple[Path, Sequence[str], Callable[[Path], Any]]] = {}
        checked = not args.without_checksums
        if args.model_path:
            folder = Path(work, "weights")
            folder.mkdir()
            shutil.copy(args.model_path, folder / _WEIGHTS)
            if checked:
                write_sums(folder, sums_of([folder / _WEIGHTS]))
            kinds["weights"] = folder, [*[_WEIGHTS] * 9, *[SUMS] * checked], _arrays
        for runtime in args.runtimes if args.exported else ():
            folder = Path(work, runtime)
            names = _copy_export(args.exported, folder, runtime, checked)
            kinds[runtime] = folder, names, lambda path, name=runtime: _labels(path, name)
        print(f"| Damaged | Files | {' | '.join(OUTCOMES)} |")
        print("|-|-|" + "-|" * len(OUTCOMES))
        failed = False
        for name, (folder, files, load) in kinds.items():
            counts = try_all(folder, files, load, args.number, args.seed)
            print(f"| {name} | {args.number} | {' | '.join(str(counts[o]) for o in OUTCOMES)} |")
            failed = failed or any(counts[outcome] for outcome in OUTCOMES[2:])
    return 1 if failed and checked else 0


def try_all(
    folder: Path, files: Sequence[str], load: Callable[[Path], Any], number: int, seed: int
) -> Counter[str]:
    """Damage one of the files, load the folder in a child process, repair it; so many times.

    Args:
        folder: Holds the files.
        files: Names of those that are damaged; those that come twice twice as often.
        load: Gives a value of the folder that can be compared, or raises.
        number: How many times.
        seed: Of the random numbers.

    Returns:
        How often each of ``OUTCOMES`` was seen.
    """
    rng = random.Random(seed)
    expected_in_child = folder.with_suffix(".npz")
    if _in_child(lambda: _save(expected_in_child, load(folder))):
        raise SystemExit(f"{folder.name} cannot be loaded before it is damaged")
    with np.load(expected_in_child) as archive:
        expected = dict(archive)
    counts: Counter[str] = Counter()
    for _ in range(number):
        path = folder / rng.choice(files)
        content = path.read_bytes()
        changed = content
        while changed == content:
            changed = mutate(content, rng)
        path.write_bytes(changed)
        counts[OUTCOMES[_in_child(lambda: _outcome(folder, load, expected))]] += 1
        path.write_bytes(content)
    return counts


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return the content with one to three changes."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        # Half of the places are in the first kilobytes, where formats have their structure.
        place = rng.randrange(max(1, min(len(changed), rng.choice((4096, len(content) + 1)))))
        length = rng.choice((1, 2, 4, 8, 64))
        kind = rng.choice(("bit", "bytes", "insert", "remove", "zero", "cut"))
        if kind == "bit" and changed:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == "bytes":
            changed[place : place + length] = rng.randbytes(length)
        elif kind == "insert":
            changed[place:place] = rng.randbytes(length)
        elif kind == "remove":
            del changed[place : place + length]
        elif kind == "zero":
            changed[place : place + length] = bytes(min(length, len(changed) - place))
        elif kind == "cut":
            del changed[place:]
    return bytes(changed)


def _in_child(act: Callable[[], int | None]) -> int:
    """Return what a child process returned: 0, or another index of ``OUTCOMES``."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = OUTCOMES.index("another error")
        try:
            signal.alarm(SECONDS)
            resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 1)
            os.dup2(nothing, 2)
            code = act() or 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        late = os.WTERMSIG(status) == signal.SIGALRM
        return OUTCOMES.index("no end" if late else "process ended")
    code = os.WEXITSTATUS(status)
    return code if code < len(OUTCOMES) else OUTCOMES.index("process ended")


def _outcome(folder: Path, load: Callable[[Path], Any], expected: dict[str, np.ndarray]) -> int:
    try:
        value = load(folder)
    except LitesegError:
        return OUTCOMES.index("refused")
    except Exception:
        return OUTCOMES.index("another error")
    same = value.keys() == expected.keys() and all(
        value[key].dtype == expected[key].dtype
        and value[key].shape == expected[key].shape
        and value[key].tobytes() == expected[key].tobytes()
        for key in expected
    )
    return OUTCOMES.index("equal" if same else "another result")


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, **arrays)


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    return read_state_dict(folder / _WEIGHTS)


def _labels(folder: Path, runtime: str) -> dict[str, np.ndarray]:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype("uint8")
    return {"labels": Predictor(folder, runtime=runtime, device="cpu", threads=1)(image)}


def _copy_export(source: Path, folder: Path, runtime: str, checked: bool) -> list[str]:
    """Copy an export; return the names of the files that a runtime reads."""
    exported = ExportedModel.read(source)
    model, params, onnx = exported.model, exported.params, exported.onnx
    shutil.copytree(source, folder)
    if not checked:
        content = yaml.safe_load((folder / DEPLOY_FILE).read_text(encoding="utf-8"))
        content["liteseg"]["sha256"] = {}
        (folder / DEPLOY_FILE).write_text(yaml.safe_dump(content), encoding="utf-8")
    files = (model, params) if runtime == "paddle" else (onnx,)
    return [DEPLOY_FILE, *(path.name for path in files if path is not None)]


if __name__ == "__main__":
    sys.exit(main())
