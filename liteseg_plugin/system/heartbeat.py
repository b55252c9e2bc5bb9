"""Signs of life of a process that ``liteseg launch`` started, for the launch to watch.

``heartbeat.N`` says which process it is; the time of its last change, when it last made progress.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER, SUPERVISOR = "LITESEG_HEARTBEATS", "LITESEG_SUPERVISOR"
"""Variables of the environment: where the files go, and the process that watches them."""

_TICK_SECONDS = 1
_POLL_SECONDS = 1
_END_SECONDS = 60
_STAGES = ("connected", "stepped")


@dataclass(frozen=True)
class Heartbeat:
    """A process, as it describes itself.

    Attributes:
        host: Name of its host.
        pid: Its number there.
        peers: ``IP:PORT`` of all processes that run together.
        connected: Whether it met the processes that run with it.
        stepped: Whether it has trained a step; the first one compiles.
    """

    host: str
    pid: int
    peers: tuple[str, ...]
    connected: bool = False
    stepped: bool = False

    @classmethod
    def read(cls, path: Path) -> Heartbeat | None:
        """Return what a process wrote; None if it could not, or has not done so yet."""
        try:
            first, *stages = path.read_text(encoding="utf-8").splitlines()
            content = json.loads(first)
            reached = {name: name in stages for name in _STAGES}
            return cls(content["host"], content["pid"], tuple(content["peers"]), **reached)
        except (OSError, ValueError, KeyError):
            return None


class _State:
    path: Path | None = None
    last = 0.0
    stages: frozenset[str] = frozenset()


def path_of(folder: Path, local_rank: int | str) -> Path:
    """Return the path of the heartbeat of a process of this host."""
    return folder / f"heartbeat.{local_rank}"


def begin() -> None:
    """Show signs of life from now on, if ``liteseg launch`` started this process.

    SIGUSR1 prints the stack, and the end of the launch ends the process.
    """
    folder, supervisor = os.environ.pop(FOLDER, None), os.environ.pop(SUPERVISOR, None)
    if folder is None or supervisor is None:
        return
    faulthandler.register(signal.SIGUSR1)
    _State.path = path_of(Path(folder), os.environ.get("PADDLE_LOCAL_RANK", "0"))
    _State.last = time.monotonic()
    peers = tuple(os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(","))
    content = {"host": socket.gethostname(), "pid": os.getpid(), "peers": peers}
    with contextlib.suppress(OSError):  # a full disk: then nobody watches
        _State.path.write_text(f"{json.dumps(content)}\n", encoding="utf-8")
    threading.Thread(target=_follow, args=(os.getppid(), int(supervisor)), daemon=True).start()


def tick() -> None:
    """Tell that there was progress; also in worker processes of a data loader."""
    now = time.monotonic()
    if _State.path is not None and now >= _State.last + _TICK_SECONDS:
        _State.last = now
        with contextlib.suppress(OSError):
            os.utime(_State.path)


def reached(stage: str) -> None:
    """Tell that this process is ``connected``, or that it has ``stepped``; once is enough."""
    if _State.path is not None and stage not in _State.stages:
        _State.stages |= {stage}
        with contextlib.suppress(OSError), _State.path.open("a", encoding="utf-8") as file:
            file.write(f"{stage}\n")


def is_alive(pid: int) -> bool:
    """Tell whether a process of this number runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's, or not a process number
        pass
    return not state_of(pid).startswith("Z")  # has ended, and nobody asked how


def state_of(pid: int) -> str:
    """Return the state of a process, as Linux names it; otherwise ``unknown``."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        for line in status.splitlines():
            if line.startswith("State:"):
                return line.partition(":")[2].strip()
    return "unknown"


def _follow(launcher: int, supervisor: int) -> None:
    """End this process after its launcher or its supervisor was killed."""
    while os.getppid() == launcher and is_alive(supervisor):
        time.sleep(_POLL_SECONDS)
    print("The launcher of this process was killed", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)  # training writes a checkpoint
    while time.monotonic() < _State.last + _END_SECONDS:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
