"""Training curves from ``metrics.csv``, logs or VisualDL records."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from liteseg_plugin.errors import DataError, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAIN = re.compile(rb"\[TRAIN\] epoch: \d+, iter: (\d+)/(\d+), loss: (\S+?), lr: (\S+?),")
_EVAL = re.compile(rb"\[EVAL\] #Images: \d+,? mIoU: ([\d.naif]+)")
_BEST = re.compile(
    rb"\[EVAL\] The model with the best validation mIoU \(([\d.]+)\) was saved at iter (\d+)"
)
_CURVES = {"loss": "Train/loss", "lr": "Train/lr", "miou": "Evaluate/mIoU"}
"""The curves, and the tags that PaddleSeg gives them in VisualDL's records."""
_METRICS = "metrics.csv"

Points = list[tuple[int, Optional[float]]]
"""Iteration and value, which is None for NaN."""


@dataclass(frozen=True)
class Run:
    """The curves of one run.

    Attributes:
        name: The path that was given.
        files: The files that were read.
        loss: Of the training, since the point before.
        lr: Learning rate.
        miou: Of the evaluations, 0 to 1.
    """

    name: str
    files: list[str]
    loss: Points
    lr: Points
    miou: Points

    def points(self, curve: str) -> Points:
        """Return the points of ``loss``, ``lr`` or ``miou``."""
        return {"loss": self.loss, "lr": self.lr, "miou": self.miou}[curve]

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return how the run ended, as one line for the terminal."""
        parts = [printable(self.name)]
        if losses := [(value, at) for at, value in self.loss if value is not None]:
            parts.append(f"loss {losses[-1][0]:.4f} at iteration {losses[-1][1]}")
        if mious := [(value, at) for at, value in self.miou if value is not None]:
            best, at = max(mious)
            parts.append(f"best mIoU {best:.2%} at iteration {at}, last {mious[-1][0]:.2%}")
        return "; ".join(parts)


def read(path: str | os.PathLike) -> Run:
    """Read the curves of one run.

    Of a folder are read, in this order: its ``metrics.csv``, which ``liteseg train`` writes, its
    ``workerlog.0`` (or ``log/workerlog.0``), its ``*.log`` and ``*.txt``, or VisualDL's records in
    it. Logs that are not of a training, such as those of ``liteseg val``, are left out. Where a run
    was resumed from before its end, the later lines replace the earlier.

    Args:
        path: ``metrics.csv``, a log, a file of VisualDL's records, or a folder.

    Raises:
        DataError: If there is no such file, or none of a training.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"log or folder not found: {path}")
    for files in _candidates(path):
        read = {file: _read_file(file) for file in files}
        used = {file: curves for file, curves in read.items() if any(curves.values())}
        if used:
            joined: dict[str, Points] = {name: [] for name in _CURVES}
            for curves in used.values():
                for name, points in curves.items():
                    _append(joined[name], points)
            return Run(str(path), [str(file) for file in used], **joined)
    raise DataError(
        f"no line of PaddleSeg's training in {path}: neither '[TRAIN] epoch: ..., iter: ...', nor "
        "metrics.csv of `liteseg train`, nor records of --use_vdl. Give the --save_dir of a "
        "training, or a file that holds its output"
    )


def draw(runs: Sequence[Run]) -> Callable[[Figure], None]:
    """Return a function that draws loss, learning rate and mIoU of runs."""
    labels = {"loss": "loss", "lr": "learning rate", "miou": "mIoU, %"}
    names = _short_names([run.name for run in runs])

    def figure_of(figure: Figure) -> None:
        shown = [name for name in _CURVES if any(run.points(name) for run in runs)]
        figure.set_size_inches(7, 0.6 + 2.2 * len(shown) + 0.2 * len(runs))
        rows = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
        for axes, curve in zip(rows, shown):
            for number, run in enumerate(runs):
                points = run.points(curve)
                iterations = [iteration for iteration, _ in points]
                factor = 100 if curve == "miou" else 1
                values = [math.nan if v is None else v * factor for _, v in points]
                # A marker for each evaluation: between them nothing was measured.
                marker = "o" if curve == "miou" or len(values) == 1 else None
                axes.plot(iterations, values, color=f"C{number}", marker=marker, ms=4, lw=1.4)
            axes.set_ylabel(labels[curve])
        rows[-1].set_xlabel("iteration")
        lines = [rows[0].plot([], [], color=f"C{number}")[0] for number in range(len(runs))]
        figure.legend(lines, names, loc="outside upper left", ncols=1)

    return figure_of


def _candidates(path: Path) -> list[list[Path]]:
    """Return the files that may hold a run, in the order in which they are tried."""
    if path.is_file():
        return [[path]]
    alone = [path / _METRICS, path / "workerlog.0", path / "log" / "workerlog.0"]
    texts = sorted([*path.glob("*.log"), *path.glob("*.txt")], key=_time)
    records = sorted(path.glob("vdlrecords*"), key=_time)
    texts = [file for file in texts if file not in records]
    return [*([file] for file in alone if file.is_file()), texts, records]


def _time(path: Path) -> tuple[float, str]:
    return path.stat().st_mtime, path.name


def _read_file(path: Path) -> dict[str, Points]:
    try:
        if path.suffix == ".csv":
            return _read_metrics(path)
        return _read_records(path) if "vdlrecords" in path.name else _read_log(path)
    except (csv.Error, ValueError) as error:  # such as a number of thousands of digits
        raise DataError(f"cannot read {path}: {error}") from error


def _read_metrics(path: Path) -> dict[str, Points]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        if missing := {"iteration", *_CURVES} - {*(reader.fieldnames or ())}:
            raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        rows = [row for row in reader if (row["iteration"] or "").isdecimal()]
    return {
        name: [(int(row["iteration"]), _number(row[name])) for row in rows if row[name]]
        for name in _CURVES
    }


def _read_log(path: Path) -> dict[str, Points]:
    curves: dict[str, Points] = {name: [] for name in _CURVES}
    at = 0
    with path.open("rb") as file:
        for line in file:
            if found := _TRAIN.search(line):
                before, at = at, int(found[1])
                if at <= before:  # resumed
                    curves["miou"] = [point for point in curves["miou"] if point[0] < at]
                _append(curves["loss"], [(at, _number(found[3]))])
                _append(curves["lr"], [(at, _number(found[4]))])
            elif found := _EVAL.search(line):
                # At the last line of training before it; the line of the best model knows better.
                # A second one there is of the averaged weights (--use_ema).
                if at not in [iteration for iteration, _ in curves["miou"][-1:]]:
                    _append(curves["miou"], [(at, _number(found[1]))])
            elif (found := _BEST.search(line)) and curves["miou"]:
                if curves["miou"][-1][1] == float(found[1]):
                    curves["miou"][-1] = (int(found[2]), curves["miou"][-1][1])
    # An evaluation before all training is not of this run: `liteseg val` logs the same line.
    curves["miou"] = [point for point in curves["miou"] if point[0]]
    return curves


def _read_records(path: Path) -> dict[str, Points]:
    from visualdl import LogReader

    try:
        reader = LogReader(file_path=str(path))
        tags = reader.get_tags().get("scalar", [])
        return {
            name: [(point.id, _number(point.value)) for point in reader.get_data("scalar", tag)]
            for name, tag in _CURVES.items()
            if tag in tags
        }
    except Exception as error:  # any exception that a broken record causes in VisualDL
        raise DataError(f"cannot read VisualDL's records {path}: {error}") from error


def _append(points: Points, more: Points) -> None:
    """Add points; those already there from the first new iteration on are replaced."""
    for iteration, value in more:
        while points and points[-1][0] >= iteration:
            points.pop()
        points.append((iteration, value))


def _number(value: bytes | str | float) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _short_names(names: Sequence[str]) -> list[str]:
    """Leave out the folders that all names share, and keep matplotlib from hiding `_name`."""
    if len(names) > 1 and len(set(names)) == len(names):
        shared = os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name in names])
        names = [os.path.relpath(name, shared) for name in names]
    return [f" {name}" if name.startswith("_") else name for name in names]
