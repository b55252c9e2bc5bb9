"""Run Paddle's launcher: say in one sentence why it failed, and start it again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from liteseg_plugin.errors import TrainingError
from liteseg_plugin.system import heartbeat
from liteseg_plugin.training import failures
from liteseg_plugin.training.failures import LAUNCHER_LOG, Failure
from liteseg_plugin.training.launch import Launch, hosts_at, resolved_master
from liteseg_plugin.training.signals import handled
from liteseg_plugin.training.watch import Watch

_POLL_SECONDS = 0.2
_STOP_SECONDS = 45  # more than the launcher gives its workers
_STARTED = "LAUNCH INFO .* Run Pod"
# The stack of a process that was ended; workerlog.N keeps it.
_STACK = re.compile(
    r"(-+\n)?C\+\+ Traceback|terminate called after|FatalError:|(Current t|T)hread 0x[0-9a-f]{8}"
)


def supervise(
    launch: Launch,
    arguments: Sequence[str],
    *,
    max_restarts: int = 0,
    resume: Sequence[str] = (),
    timeout: float = 600,
    hang_timeout: float = 600,
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
        timeout: Seconds in which the other hosts must come, and then the processes connect.
        hang_timeout: Seconds without progress after which a process counts as hung, ``timeout``
            more before its first step; 0 for never.

    Raises:
        TrainingError: If the processes failed or hang, or the hosts did not meet.
        LitesegError: If the master's name is unknown, or its port is taken.
        KeyboardInterrupt: After SIGINT, SIGTERM or SIGHUP, which the processes get too.
    """
    launch.log_dir.mkdir(parents=True, exist_ok=True)
    for restart in range(max_restarts + 1):
        found = launch
        if launch.nnodes > 1 and launch.master is not None:  # it may move between two starts
            found = dataclasses.replace(launch, master=resolved_master(launch.master, timeout))
        more = resume if restart else ()
        failure = _run(found, [*arguments, *more], timeout, hang_timeout)
        if failure is None:
            return
        if failure.is_final or restart == max_restarts:
            raise TrainingError(failure.reason)
        text = f"{failure.reason}. Restart {restart + 1} of {max_restarts}"
        print(text, file=sys.stderr, flush=True)


def _run(
    launch: Launch, arguments: Sequence[str], timeout: float, hang_timeout: float
) -> Failure | None:
    logs = [launch.log_dir / f"workerlog.{n}" for n in range(launch.nproc_per_node)]
    before = {path: path.stat().st_size if path.is_file() else 0 for path in logs}
    watch = Watch(launch, hang_timeout, timeout)
    environment = {
        **os.environ,
        heartbeat.FOLDER: str(launch.log_dir.absolute()),
        heartbeat.SUPERVISOR: str(os.getpid()),
    }
    with (launch.log_dir / LAUNCHER_LOG).open("ab") as said:
        before[Path(said.name)] = said.tell()
        # In a session of its own, Ctrl-C reaches it once: twice, it gives its workers less time.
        process = subprocess.Popen(
            launch.command(arguments),
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    with _shown(logs[0], before[logs[0]]), _signals_to(process) as received:
        failure = _wait_for_hosts(process, launch, before, timeout) if launch.nnodes > 1 else None
        failure = failure or _wait_for_end(process, launch, watch)
        code = process.wait()
        watch.end()
    if received:
        raise KeyboardInterrupt
    if failure is None and code < 0:
        reason = f"ended by {signal.Signals(-code).name}"
        return failures.of_launcher(launch, reason, is_final=False)
    if failure is None and code != 0:
        said_by = [_since(path, before) for path in logs]
        cut_off = watch.peers_that_do_not_answer() if launch.nnodes > 1 else []
        launcher_said = _since(launch.log_dir / LAUNCHER_LOG, before)
        failure = failures.explain(launch, launcher_said, said_by, cut_off)
    return failure


def _wait_for_hosts(
    process: subprocess.Popen, launch: Launch, before: dict[Path, int], timeout: float
) -> Failure | None:
    """Wait until the launcher has started workers; end it if the other hosts do not come."""
    end, log = time.monotonic() + timeout, launch.log_dir / LAUNCHER_LOG
    while process.poll() is None and not re.search(_STARTED, _since(log, before)):
        if time.monotonic() > end:
            came = ", ".join(map(str, hosts_at(launch.master or "")))
            seen = f"those that came have --rank {came}" if came else "nothing answers there"
            _stop(process)
            return failures.did_not_meet(launch, timeout, seen)
        time.sleep(_POLL_SECONDS)
    return None


def _wait_for_end(process: subprocess.Popen, launch: Launch, watch: Watch) -> Failure | None:
    """Wait until the launcher ends; end it if one of its processes hangs."""
    while process.poll() is None:
        if (hang := watch.find_hang()) is not None:
            watch.kill()
            _stop(process)
            return failures.of_process(launch, *hang)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
    return None


def _since(path: Path, before: dict[Path, int]) -> str:
    """Return what was appended to a log."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(before[path])
        return file.read().decode(errors="replace")


@contextlib.contextmanager
def _shown(path: Path, position: int) -> Iterator[None]:
    """Print what is appended to a log, but for the stack of a process that was ended."""
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
    present = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]
    try:
        with handled([n for n in present if signal.getsignal(n) != signal.SIG_IGN], handle):
            yield received
    finally:
        if process.poll() is None:
            _stop(process)


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
