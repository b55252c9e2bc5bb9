"""Command lines of ``paddle.distributed.launch`` that keep the total batch of a recipe."""

from __future__ import annotations

import json
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import liteseg_plugin
from liteseg_plugin.errors import ConfigError, LitesegError

_MAIN = Path(liteseg_plugin.__file__).with_name("__main__.py")
_CONNECT_SECONDS = 3
_RETRY_SECONDS = 0.5


@dataclass(frozen=True)
class Launch:
    """Where the processes of a launch run.

    Attributes:
        nproc_per_node: Processes on this host.
        log_dir: Where each process writes ``workerlog.N``.
        nnodes: Number of hosts.
        master: ``HOST:PORT`` of the first host, at which the hosts meet.
        rank: Number of this host, from 0.
        devices: Which GPUs, as ``0,1``; None for the visible ones.
        host: Address of this host, if the one found by its name is wrong.
    """

    nproc_per_node: int
    log_dir: Path
    nnodes: int = 1
    master: str | None = None
    rank: int | None = None
    devices: str | None = None
    host: str | None = None

    def __post_init__(self) -> None:
        """Refuse what Paddle's launcher would wait for without end.

        Raises:
            LitesegError: If the hosts do not know where to meet, or which each of them is.
        """
        for name in ("nproc_per_node", "nnodes"):
            if getattr(self, name) < 1:
                raise LitesegError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.nnodes > 1 and (self.master is None or self.rank is None):
            raise LitesegError(
                f"--nnodes {self.nnodes} needs --master HOST:PORT, the same on every host, and "
                f"--rank, from 0 on the host of --master to {self.nnodes - 1}"
            )
        if self.nnodes > 1 and self.rank is not None and not 0 <= self.rank < self.nnodes:
            raise LitesegError(
                f"--rank {self.rank} does not fit --nnodes {self.nnodes}: ranks of hosts are "
                f"0 to {self.nnodes - 1}"
            )

    @property
    def processes(self) -> int:
        """Return the number of processes on all hosts."""
        return self.nnodes * self.nproc_per_node

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command line of Paddle's launcher, for arguments of ``liteseg``."""
        flags = {
            "nproc_per_node": self.nproc_per_node,
            "log_dir": self.log_dir,
            "devices": self.devices,
            "host": self.host,
        }
        if self.nnodes > 1:
            flags.update(nnodes=self.nnodes, master=self.master, rank=self.rank)
        launcher = [sys.executable, "-m", "paddle.distributed.launch"]
        return [*launcher, *_words(flags), str(_MAIN), *arguments]


@dataclass(frozen=True)
class Batch:
    """How a step's images are shared.

    Attributes:
        size: Images of one forward pass in one process.
        passes: Forward passes of one step (``--gradient_accumulation_steps``).
        processes: Number of processes.
        recipe: Images of one step in the recipe; None if the config does not say.
    """

    size: int
    passes: int
    processes: int
    recipe: int | None

    @property
    def total(self) -> int:
        """Return the images of one step."""
        return self.size * self.passes * self.processes

    def as_in_recipe(self) -> Batch:
        """Return the batch that gives the recipe's step, if there is a recipe and nothing chosen.

        Raises:
            ConfigError: As :func:`share_batch`.
        """
        if self.recipe is None or self.passes > 1:
            return self
        return share_batch(self.recipe, self.size, self.processes)

    def flags(self, given: Batch) -> list[str]:
        """Return the flags of ``liteseg train`` that make this batch of the one that is given."""
        size = self.size if self.size != given.size else None
        passes = self.passes if self.passes != given.passes else None
        return _words({"batch_size": size, "gradient_accumulation_steps": passes})

    def text(self) -> str:
        """Say how the images are shared, and what becomes of learning rate and iterations."""
        passes = f" x {self.passes} passes" if self.passes > 1 else ""
        shared = f"{self.processes} process(es){passes} x {self.size} images = {self.total} a step"
        if self.recipe is None:
            return f"{shared}; the config has no total_batch_size to keep"
        if self.recipe == self.total:
            return f"{shared}, as in the recipe: learning rate and iterations stay"
        factor = self.total / self.recipe
        return (
            f"{shared}; the recipe has {self.recipe}. Learning rate and iterations stay as given; "
            f"by the linear rule, --learning_rate would be {factor:g} times and --iters "
            f"{1 / factor:g} times those of the recipe"
        )


def share_batch(total: int, largest: int, processes: int) -> Batch:
    """Share the images of one step, so that the result is that of the recipe's step.

    Args:
        total: Images of one step.
        largest: Most images of one forward pass: those for which the recipe was made.
        processes: Number of processes.

    Returns:
        As few passes as possible.

    Raises:
        ConfigError: If the processes cannot have equally many images.

    >>> share_batch(16, largest=4, processes=2)
    Batch(size=4, passes=2, processes=2, recipe=16)
    """
    images, rest = divmod(total, processes)
    if rest or not images:
        *fewer, most = (str(n) for n in range(1, total + 1) if total % n == 0)
        fitting = f"{', '.join(fewer)} or {most}" if fewer else most
        raise ConfigError(
            f"the recipe's {total} images a step cannot be shared by {processes} processes: start "
            f"{fitting}, or give liteseg train a --batch_size, which changes the recipe"
        )
    passes = next(n for n in range(1, images + 1) if images % n == 0 and images // n <= largest)
    return Batch(images // passes, passes, processes, recipe=total)


def resolved_master(master: str, timeout: float = 0) -> str:
    """Return ``IP:PORT`` of a master, and check that no other program listens there.

    Paddle's launcher takes only the number of its host's address for itself, and would wait
    without end for a program that answers otherwise.

    Args:
        master: ``HOST:PORT``.
        timeout: Seconds in which its name must be known; in a cluster it may be that of a
            container that is not there yet.

    Raises:
        LitesegError: If it is not such an address, has no IP, or its port is taken.
    """
    name, _, port = master.rpartition(":")
    if not name or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise LitesegError(f"--master must be HOST:PORT, such as 10.0.0.1:6070, got {master!r}")
    end = time.monotonic() + timeout
    while True:
        try:
            address = f"{socket.gethostbyname(name)}:{port}"
            break
        except OSError as error:
            if time.monotonic() >= end:
                raise LitesegError(
                    f"--master {master}: host {name} is unknown here ({error})"
                ) from None
            time.sleep(_RETRY_SECONDS)
    try:
        socket.create_connection((address.rpartition(":")[0], int(port)), _CONNECT_SECONDS).close()
    except OSError:
        return address  # nobody yet
    if _ask(address, "/healthy") != {"/healthy": "ok"}:  # Paddle's launcher
        raise LitesegError(
            f"--master {master}: port {port} is taken by another program; choose a free port, the "
            "same on every host"
        )
    return address


def hosts_at(master: str) -> list[int]:
    """Return the ranks of the hosts that came to the launcher at ``IP:PORT``."""
    came = _ask(master, "/default/info") or {}
    return sorted(int(key.rpartition("/")[2]) for key in came)


def _words(flags: Mapping[str, Any]) -> list[str]:
    """Return flags as a command line has them, without those that are None."""
    given = ((f"--{name}", str(value)) for name, value in flags.items() if value is not None)
    return [word for flag in given for word in flag]


def _ask(address: str, key: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}{key}", timeout=_CONNECT_SECONDS) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None
