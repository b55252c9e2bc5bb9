"""The base class of runtimes, and what they share."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import numpy as np

from liteseg_plugin.errors import ExportError, last_line
from liteseg_plugin.system.device import Devices

if TYPE_CHECKING:
    from paddle import inference

    from liteseg_plugin.exported import ModelFiles

_Session = TypeVar("_Session")

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What an engine computes in; ``int8`` takes the files that ``liteseg quantize`` adds."""


class Runtime(ABC):
    """An engine that holds one model.

    :meth:`run` may be called from several threads, which take turns. An engine does not survive a
    fork, because its threads stay in the parent process.

    Attributes:
        precisions: What it computes in, by device.
        input_shape: (N, 3, H, W) that the model takes, with None for any size.
        name: The name that ``--runtime`` takes.
        device: A key of ``precisions``, on which it computes.
    """

    name = ""
    device = "cpu"
    precisions: ClassVar[dict[str, tuple[str, ...]]]
    input_shape: tuple[int | None, ...]
    _turn: threading.Lock
    _process: int

    def __new__(cls, *args: Any, **kwargs: Any) -> Runtime:  # noqa: D102
        runtime = super().__new__(cls)
        runtime._turn, runtime._process = threading.Lock(), os.getpid()
        return runtime

    @abstractmethod
    def __init__(
        self, files: ModelFiles, device: str, threads: int, precision: str = "fp32"
    ) -> None:
        """Load the model.

        Args:
            files: The model.
            device: A key of ``precisions``.
            threads: CPU threads.
            precision: One of ``precisions`` of that device.

        Raises:
            ExportError: If the engine is not installed or cannot load the model.
        """

    @classmethod
    @abstractmethod
    def devices(cls) -> Devices:
        """Return the devices of this machine that the engine can use.

        Raises:
            ExportError: If the engine is not installed.
        """

    @abstractmethod
    def feed(self, batch: np.ndarray) -> None:
        """Pass images (N, 3, H, W) to the engine."""

    @abstractmethod
    def compute(self) -> None:
        """Run the model on the input, and wait for the result."""

    @abstractmethod
    def fetch(self) -> np.ndarray:
        """Return a copy of the output."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Map images (N, 3, H, W) to labels (N, H, W) or scores (N, C, H, W).

        Raises:
            ExportError: If this process is a fork of the one that loaded the model.
        """
        return self.run_timed(batch)[0]

    def run_timed(self, batch: np.ndarray) -> tuple[np.ndarray, float]:
        """Do as :meth:`run`; return also the seconds that it took, without waiting for a turn."""
        self._refuse_fork()
        with self._turn:
            started = time.perf_counter()
            self.feed(batch)
            self.compute()
            output = self.fetch()
            return output, time.perf_counter() - started

    def _refuse_fork(self) -> None:
        # Before anything waits: another thread of the parent process may have held the lock at the
        # fork, and no thread of it lives here.
        if os.getpid() != self._process:
            raise ExportError(
                f"this engine was loaded in process {self._process} and cannot run in its fork "
                f"{os.getpid()}: create the Predictor in each worker process, or use the spawn "
                'start method (multiprocessing.get_context("spawn"))'
            )


class PaddleRuntime(Runtime):
    """An engine of Paddle Inference; subclasses put it into ``_engine`` when they are fed.

    One thread runs it, whichever calls: Paddle keeps memory for each thread that ran a model, as
    long as the thread lives (about 100 MB for three sizes).
    """

    _engine: inference.Predictor
    _thread: ThreadPoolExecutor

    def __new__(cls, *args: Any, **kwargs: Any) -> PaddleRuntime:  # noqa: D102
        runtime = cast("PaddleRuntime", super().__new__(cls))
        runtime._thread = ThreadPoolExecutor(1, "paddle")  # started by the first run
        return runtime

    def run_timed(self, batch: np.ndarray) -> tuple[np.ndarray, float]:  # noqa: D102
        self._refuse_fork()
        return self._thread.submit(super().run_timed, batch).result()

    def compute(self) -> None:  # noqa: D102 - the interface's
        self._engine.run()

    def fetch(self) -> np.ndarray:  # noqa: D102
        return self._engine.get_output_handle(self._engine.get_output_names()[0]).copy_to_cpu()


def feed_paddle(engine: inference.Predictor, batch: np.ndarray) -> None:
    """Pass images (N, 3, H, W) to an engine of Paddle Inference."""
    handle = engine.get_input_handle(engine.get_input_names()[0])
    handle.reshape(batch.shape)
    handle.copy_from_cpu(batch)


class SessionCache(Generic[_Session]):
    """What an engine prepared for shapes of batches; the one used longest ago makes room.

    Args:
        size: How many are held at a time.
        close: Lets go of one.
    """

    def __init__(
        self, size: int, close: Callable[[_Session], object] = lambda session: None
    ) -> None:
        self._size, self._close = size, close
        self._held: dict[tuple[int, ...] | None, _Session] = {}  # the last used is the last

    def get(self, shape: tuple[int, ...] | None, create: Callable[[], _Session]) -> _Session:
        """Return the session for a shape; ``create`` prepares it where none is held."""
        if shape in self._held:
            session = self._held.pop(shape)
        else:
            if len(self._held) == self._size:
                self._close(self._held.pop(next(iter(self._held))))
            session = create()
        self._held[shape] = session
        return session

    def clear(self) -> None:
        """Let go of all, whatever one of them raises."""
        while self._held:
            with contextlib.suppress(Exception):
                self._close(self._held.popitem()[1])


def paddle_files(files: ModelFiles) -> tuple[Path, Path]:
    """Return the Paddle model and its weights.

    Raises:
        ExportError: If it is an ONNX file by itself.
    """
    if files.params is None:
        raise ExportError(f"Paddle does not read ONNX files ({files.model}): use another --runtime")
    return files.model, files.params


def onnx_file(files: ModelFiles, precision: str) -> Path:
    """Return the ONNX file of a model for a precision.

    Raises:
        ExportError: If it has none, or one that keeps weights in other files.
    """
    if files.onnx is None:
        raise ExportError(f"{files.model.parent} has no ONNX file; export with --format onnx")
    path = quantized_file(files, files.onnx_int8) if precision == "int8" else files.onnx
    refuse_external_data(path)
    return path


def quantized_file(files: ModelFiles, path: Path | None) -> Path:
    """Return an INT8 file of a model.

    Raises:
        ExportError: If it is None.
    """
    if path is None:
        folder = files.model.parent
        raise ExportError(f"{folder} has no INT8 model; create it with liteseg quantize {folder}")
    return path


def refuse_external_data(path: Path) -> None:
    """Refuse an ONNX file that names other files, which no checksum covers, as its weights.

    Args:
        path: The ONNX file; whether it is one at all is for the engine to say.

    Raises:
        ExportError: If it does, or may do so and the package ``onnx`` is missing.
    """
    with path.open("rb") as file:
        if not os.path.getsize(path):
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"location") < 0:  # the key beside every such name
                return
    onnx = engine_package("onnx", "onnx")
    with loading("onnx", path):
        model = onnx.load(str(path), load_external_data=False)
    if _has_external_data(model):
        raise ExportError(
            f"{path} keeps weights in other files, which may be any; store them in the ONNX file: "
            "onnx.save(onnx.load(PATH), NEW_PATH)"
        )


def _has_external_data(message: Any) -> bool:
    if message.DESCRIPTOR.name == "TensorProto":
        return bool(message.external_data)
    return any(
        _has_external_data(value)
        for field, found in message.ListFields()
        if field.message_type is not None
        for value in (found if hasattr(found, "__len__") else [found])
    )


def on_first_gpu(devices: Devices) -> Devices:
    """Return Paddle's devices without the GPUs after the first, which no engine uses."""
    first = tuple(name for name in devices.present if name in ("gpu:0", "cpu"))
    hidden = "an exported model runs on the first GPU; CUDA_VISIBLE_DEVICES says which that is"
    missing = devices.missing or (hidden if len(first) < len(devices.present) else "")
    return replace(devices, present=first, missing=missing)


def engine_package(package: str, extra: str) -> Any:
    """Import the package of an engine.

    Args:
        package: Its name.
        extra: The extra of this plugin that installs it.

    Raises:
        ExportError: If it is not installed.
    """
    try:
        return import_module(package)
    except ImportError:
        way_out = f"pip install 'liteseg_plugin[{extra}]'"
        raise ExportError(f"{package} is not installed: {way_out}") from None


@contextlib.contextmanager
def loading(engine: str, path: Path) -> Iterator[None]:
    """Raise what an engine raises while it loads a model as an error that names both.

    Raises:
        ExportError: If anything is raised.
    """
    try:
        yield
    except Exception as error:
        raise ExportError(f"{engine} cannot load {path}: {last_line(error)}") from error


def written_shape(shape: Sequence[int | None]) -> str:
    """Write an input shape, with ? for any size."""
    return "x".join("?" if n is None else str(n) for n in shape)
