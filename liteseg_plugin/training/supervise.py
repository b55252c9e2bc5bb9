"""Run Paddle's launcher: say in one sentence why it failed, and start it again."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liteseg_plugin.errors import TrainingError, printable, telling_line
from liteseg_plugin.training.launch import Launch, resolved_master

LAUNCHER_LOG = "launcher.log"
_POLL_SECONDS = 0.2
_STOP_SECONDS = 45  # more than the launcher gives its workers
_STARTED = "LAUNCH INFO .* Run Pod"
_FAILED = re.compile(r"Container rank (\d+) status failed .* code (-?\d+) log")
# What is in the log of a process whose peer ended.
_LOST_PEER = re.compile(
    "gloo|NCCL error|TCP connection reset|Connection (closed|reset) by peer"
    "|Process abort signal|Termination signal"
)
# Paddle's C++ stack of a process that was stopped; workerlog.N keeps it.
_STACK = re.compile(r"(-+\n)?C\+\+ Traceback|terminate called after|FatalError:")
_UNEXPECTED = "(--debug shows the traceback)"


@dataclass(frozen=True)
class Failure:
    """Why the processes of a host ended.

    Attributes:
        reason: A sentence that names host and rank, and where to look.
        is_final: Whether a new start would fail likewise.
    """

    reason: str
    is_final: bool


def supervise(
    launch: Launch,
    arguments: Sequence[str],
    *,
    max_restarts: int = 0,
    resume: Sequence[str] = (),
    timeout: float = 600,
) -> None:
    """Run a command of ``liteseg`` in the processes of a launch, and restart it after a fault.

    Standard output is that of the first process of this host. What the launcher itself says is
    in ``launcher.log``.

    Args:
        launch: Where they run.
        arguments: Of ``liteseg``.
        max_restarts: How often all processes of this host are started again after one died. An
            error that says what to change is not repeated.
        resume: Further arguments of such a start.
        timeout: Seconds in which the other hosts must come.

    Raises:
        TrainingError: If the processes failed, or the hosts did not meet.
        LitesegError: If the master's name is unknown, or its port is taken.
        KeyboardInterrupt: After SIGINT, SIGTERM or SIGHUP, which the processes get too.
    """
    launch.log_dir.mkdir(parents=True, exist_ok=True)
    for restart in range(max_restarts + 1):
        found = launch
        if launch.nnodes > 1 and launch.master is not None:  # it may move between two starts
            found = dataclasses.replace(launch, master=resolved_master(launch.master, timeout))
        failure = _run(found, [*arguments, *(resume if restart else ())], timeout)
        if failure is None:
            return
        if failure.is_final or restart == max_restarts:
            raise TrainingError(failure.reason)
        _say(f"{failure.reason}. Restart {restart + 1} of {max_restarts}")


def _run(launch: Launch, arguments: Sequence[str], timeout: float) -> Failure | None:
    logs = [launch.log_dir / f"workerlog.{n}" for n in range(launch.nproc_per_node)]
    before = {path: path.stat().st_size if path.is_file() else 0 for path in logs}
    with (launch.log_dir / LAUNCHER_LOG).open("ab") as said:
        before[Path(said.name)] = said.tell()
        # In a session of its own, Ctrl-C reaches it once: twice, it gives its workers less time.
        process = subprocess.Popen(
            launch.command(arguments), stdout=said, stderr=said, start_new_session=True
        )
    with _shown(logs[0], before[logs[0]]), _signals_to(process) as received:
        failure = _wait_for_hosts(process, launch, before, timeout) if launch.nnodes > 1 else None
        code = process.wait()
    if received:
        raise KeyboardInterrupt
    if failure is None and code != 0:
        said_by = [_since(path, before) for path in logs]
        failure = explain(launch, _launcher_said(launch, before), said_by)
    return failure


def _wait_for_hosts(
    process: subprocess.Popen, launch: Launch, before: dict[Path, int], timeout: float
) -> Failure | None:
    """Wait until the launcher has started workers; end it if the other hosts do not come."""
    end = time.monotonic() + timeout
    while process.poll() is None and not re.search(_STARTED, _launcher_said(launch, before)):
        if time.monotonic() > end:
            _stop(process)
            alone = "master not ready" in _launcher_said(launch, before)
            seen = "nothing answers there" if alone else "some did not come"
            return Failure(
                f"host {socket.gethostname()} (--rank {launch.rank}) waited {timeout:g} s for "
                f"{launch.nnodes} hosts at --master {launch.master}, and {seen}: check --master, "
                "--nnodes, --rank and the firewall of every host. "
                f"{_see(launch, LAUNCHER_LOG)}",
                is_final=True,
            )
        time.sleep(_POLL_SECONDS)
    return None


def explain(launch: Launch, launcher_said: str, said_by: Sequence[str]) -> Failure:
    """Say which process failed first, and why.

    Args:
        launch: Where they ran.
        launcher_said: The launcher's log of this start.
        said_by: The log of each process of this host.
    """
    found = _FAILED.search(launcher_said)
    if found is None:
        said = telling_line(launcher_said) or "it printed nothing"
        return Failure(f"Paddle's launcher failed: {said}. {_see(launch, LAUNCHER_LOG)}", True)
    failed, code = int(found[1]), int(found[2])
    errors = {n: line for n, said in enumerate(said_by) if (line := _error_line(said))}
    silent = [n for n, said in enumerate(said_by) if not _LOST_PEER.search(said)]
    if errors:
        failed = failed if failed in errors else min(errors)
        reason, is_final = errors[failed], _UNEXPECTED not in said_by[failed]
    elif failed not in silent and not silent:
        reason, is_final = "lost its peers; the console of another host says why", False
    else:
        if failed not in silent:  # it ended because that one did
            failed, code = silent[0], -signal.SIGKILL
        reason, is_final = _end(code, said_by[failed]), False
    rank = failed + launch.nproc_per_node * (launch.rank or 0)
    who = f"rank {rank} on host {socket.gethostname()}"
    return Failure(f"{who}: {reason}. {_see(launch, f'workerlog.{failed}')}", is_final)


def _see(launch: Launch, name: str) -> str:
    return f"See {printable(launch.log_dir / name)}"


def _end(code: int, said: str) -> str:
    if code == -signal.SIGKILL:
        return "killed by SIGKILL; if nobody did so, the system ran out of memory (dmesg says so)"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"{telling_line(said) or 'it printed nothing'} (exit code {code})"


def _error_line(said: str) -> str | None:
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    errors = [line for line in errors if not _LOST_PEER.search(line)]
    return errors[-1][len("error: ") :].rstrip(".") if errors else None


def _launcher_said(launch: Launch, before: dict[Path, int]) -> str:
    return _since(launch.log_dir / LAUNCHER_LOG, before)


def _since(path: Path, before: dict[Path, int]) -> str:
    """Return what was appended to a log."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(before[path])
        return file.read().decode(errors="replace")


@contextlib.contextmanager
def _shown(path: Path, position: int) -> Iterator[None]:
    """Print what is appended to a log, but for the C++ stack of a process that was stopped."""
    ended = threading.Event()

    def follow() -> None:
        while not path.is_file():
            if ended.wait(_POLL_SECONDS):
                return
        with path.open(encoding="utf-8", errors="replace") as file:
            file.seek(position)
            is_last = False
            while not is_last:
                is_last = ended.wait(_POLL_SECONDS)
                text = file.read()
                stack = _STACK.search(text)
                sys.stdout.write(text[: stack.start()] if stack else text)
                sys.stdout.flush()
                is_last = is_last or stack is not None

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _signals_to(process: subprocess.Popen) -> Iterator[list[int]]:
    """Pass signals on to the launcher, which ends its workers; yield those received."""
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    # A terminal that closes sends SIGHUP, which nohup ignores.
    numbers = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]
    kept = {number: signal.getsignal(number) for number in numbers}
    for number, handler in kept.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if process.poll() is None:
            _stop(process)


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
