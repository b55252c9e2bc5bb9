"""What a run keeps in its folder: the whole config, how it was started, and its log.

``config.yml`` is the config with its bases, ``--opts`` and flags merged; ``run.json`` is a
:class:`RunRecord`; ``train.log`` is what training printed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO, cast

import yaml
from paddleseg.utils import logger
from paddleseg.utils.utils import NoAliasDumper

from liteseg_plugin import __version__
from liteseg_plugin.errors import ConfigError, TrainingError, WeightsError, printable_lines
from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.system.versions import installed_versions
from liteseg_plugin.training import checkpoint, processes

CONFIG = "config.yml"
RECORD = "run.json"
LOG = "train.log"
_HEADER = "# The config of this run, written by liteseg train; see run.json for its command line.\n"
# What the config, the folder or the command line say already.
_ELSEWHERE = ("iters", "batch_size", "save_dir", "resume_model")
_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "paddleseg", "numpy", "opencv-python")


@dataclass(frozen=True)
class DataList:
    """The list of a data set.

    Attributes:
        images: How many it has.
        sha256: Of its pairs of paths, relative to the data set's folder; so that folder may move.
    """

    images: int
    sha256: str

    @classmethod
    def of(cls, dataset: Any) -> DataList:
        """Return the list of one of PaddleSeg's data sets."""
        root = os.path.abspath(getattr(dataset, "dataset_root", os.curdir))
        pairs = getattr(dataset, "file_list", ())
        names = ([os.path.relpath(path, root) for path in pair if path] for pair in pairs)
        return cls(len(dataset), _sha256(names))

    @classmethod
    def of_names(cls, names: Sequence[str]) -> DataList:
        """Return the list of images without labels, by their names."""
        return cls(len(names), _sha256([name] for name in names))

    def __str__(self) -> str:
        """Return how a message writes it."""
        return f"{self.images} images, SHA-256 {self.sha256[:8]}"


@dataclass(frozen=True)
class Start:
    """One start of a run: the first one, or a resume.

    Attributes:
        time: Date and time in UTC, as ISO 8601 writes it.
        iteration: Where it continued; 0 at the beginning.
        command: The command line.
        folder: The working folder, which relative paths of the config refer to.
        device: What it computed on.
        versions: Of Python and packages.
    """

    time: str
    iteration: int
    command: str
    folder: str
    device: str
    versions: Mapping[str, str]

    @classmethod
    def now(cls, resumed: Path | None, device: str) -> Start:
        """Return the start of this process, at the beginning or from a checkpoint."""
        return cls(
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            0 if resumed is None else checkpoint.iteration_of(resumed),
            command_line(),
            os.getcwd(),
            device,
            versions(),
        )


@dataclass(frozen=True)
class RunRecord:
    """How a run was trained.

    Attributes:
        config: PaddleSeg's config, merged.
        settings: Flags of training by name, beyond the config.
        processes: How many trained together.
        train_list: The list of the training set.
        val_list: The list of the validation set; None without evaluation.
        starts: Its starts, the first one first.
    """

    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    processes: int
    train_list: DataList
    val_list: DataList | None = None
    starts: Sequence[Start] = field(default_factory=tuple)

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        flags: Mapping[str, Any],
        datasets: Sequence[Any],
        start: Start,
    ) -> RunRecord:
        """Return the record of the training that this process is about to start.

        ``datasets`` are those to train on, and to evaluate on if there is evaluation.
        """
        settings = {name: value for name, value in flags.items() if name not in _ELSEWHERE}
        lists = [DataList.of(dataset) for dataset in datasets]
        val_list = lists[1] if len(lists) > 1 else None
        return cls(config, settings, processes.count(), lists[0], val_list, (start,))

    @classmethod
    def read(cls, folder: Path) -> RunRecord | None:
        """Return the record in a run's folder; None if it has none.

        Raises:
            WeightsError: If the record cannot be read.
        """
        path = folder / RECORD
        if not path.is_file():
            return None
        content = checkpoint.read_json(path)
        try:
            val_list = content["val_list"]
            return cls(
                config=content["config"],
                settings=content["settings"],
                processes=content["processes"],
                train_list=DataList(**content["train_list"]),
                val_list=None if val_list is None else DataList(**val_list),
                starts=tuple(Start(**start) for start in content["starts"]),
            )
        except (KeyError, TypeError) as error:
            raise WeightsError(
                f"{path} is not the record of a run ({error!r}); remove it to go on without"
            ) from error

    def write(self, folder: Path, before: RunRecord | None = None) -> None:
        """Write the record and the config, which people may edit, into a run's folder.

        ``before`` is the record of the run that this one continues; its starts stay.
        """
        path = folder / CONFIG
        if path.is_file() and not path.read_text("utf-8", "replace").startswith(_HEADER):
            other = path.with_name(f"{CONFIG}.old")
            logger.warning(f"{path} was not written by liteseg train: renamed to {other.name}")
            os.replace(path, other)
        starts = (*(before.starts if before else ()), *self.starts)
        document = json.dumps(asdict(replace(self, starts=starts)), indent=1, default=str)
        atomic_write(folder / RECORD, f"{document}\n".encode())
        text = yaml.dump(
            dict(self.config), Dumper=NoAliasDumper, sort_keys=False, allow_unicode=True
        )
        atomic_write(path, (_HEADER + text).encode())


@dataclass(frozen=True)
class TrainedRun:
    """What ``--run`` stands for: the config of a run, and its weights.

    Attributes:
        folder: The folder of the run.
        config: Path of its config.
        weights: Path of its best weights, else of those of its newest checkpoint.
        miou: mIoU of the best weights, 0 to 1; None if they were not evaluated.
        iteration: When these weights were saved.
    """

    folder: Path
    config: Path
    weights: Path
    miou: float | None
    iteration: int

    @classmethod
    def read(cls, folder: str | os.PathLike) -> TrainedRun:
        """Find config and weights in the folder of a run.

        Raises:
            ConfigError: If it is not the folder of a run, or holds no config.
            WeightsError: If it holds no weights.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ConfigError(f"--run {folder}: there is no such folder")
        config = folder / CONFIG
        if not config.is_file():
            if (folder.parent / CONFIG).is_file():
                raise ConfigError(f"--run {folder} is inside a run; give --run {folder.parent}")
            raise ConfigError(
                f"--run {folder} has no {CONFIG}, which liteseg train writes; give --config and "
                "--model_path"
            )
        best = checkpoint.find_weights(folder / "best_model")
        if best.is_file():
            miou, iteration = checkpoint.read_best(best.parent)
            return cls(folder, config, best, miou if miou >= 0 else None, iteration)
        for saved in reversed(checkpoint.list_checkpoints(folder)):
            weights, iteration = checkpoint.find_weights(saved), checkpoint.iteration_of(saved)
            return cls(folder, config, weights, None, iteration)
        raise WeightsError(
            f"--run {folder} has no weights: neither best_model nor a checkpoint (iter_N). Train "
            "until the first checkpoint (--save_interval)"
        )

    def next_step(self) -> str:
        """Return what training made, and the command that comes next."""
        folder, exported = map(shlex.quote, (str(self.folder), str(self.folder / "exported")))
        if self.miou is None:
            return f"Trained: {self}. Next: liteseg val --run {folder}"
        return f"Best model: {self}. Next: liteseg export --run {folder} --save_dir {exported}"

    def __str__(self) -> str:
        """Return which weights are used."""
        if self.iteration < 0:  # PaddleSeg's loop records neither
            return f"{self.weights} (mIoU and iteration unknown)"
        of = "not evaluated" if self.miou is None else f"best mIoU {self.miou:.4f}"
        return f"{self.weights} ({of}, iteration {self.iteration})"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on, by name."""
    return {
        "python": platform.python_version(),
        "liteseg_plugin": __version__,
        **installed_versions(*_PACKAGES),
    }


def command_line() -> str:
    """Return the command line of this process."""
    program = Path(sys.argv[0])
    name = "liteseg" if program.name in ("liteseg", "__main__.py") else str(program)
    return shlex.join([name, *sys.argv[1:]])


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Append what the main process prints, and the error that ends it, to the log of a run."""
    if not processes.is_main():
        yield
        return
    try:
        file = (folder / LOG).open("a", encoding="utf-8", errors="replace")
    except OSError as error:
        raise TrainingError(f"cannot write {folder / LOG}: {error}") from error
    copy = _Copied(sys.stdout, file)
    copy.note(f"$ {command_line()}\n")
    try:
        with contextlib.redirect_stdout(cast(TextIO, copy)):
            yield
    except Exception as error:
        copy.note(f"error: {printable_lines(error)}\n")
        raise
    finally:
        with contextlib.suppress(OSError):  # closing writes what is left
            file.close()


def _sha256(rows: Iterable[Sequence[str]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


class _Copied:
    """A stream that also writes into a file, as long as that can be written."""

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream, self._file = stream, file
        self._works = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self.note(text)
        return self._stream.write(text)

    def note(self, text: str) -> None:
        """Write into the file alone."""
        if not self._works:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            self._works = False
            self._stream.write(f"Cannot write {self._file.name} ({error}): going on without it\n")
