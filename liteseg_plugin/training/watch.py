"""Watch the processes of a host: find those that hang, and end those that are left."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from liteseg_plugin.system.heartbeat import Heartbeat, is_alive, path_of, state_of
from liteseg_plugin.training.launch import Launch

_STACK_SECONDS = 3
_END_SECONDS = 45
_POLL_SECONDS = 0.2
_CONNECT_SECONDS = 3
_STACK, _WHOLE_STACK = "(most recent call first)", "in <module>"
_FRAME = re.compile(r'File ".*liteseg_plugin[/\\](\S+)", line (\d+) in (\S+)')
_WAITS = ("in gather\n", "in connect\n", "in share_statistics\n", "in barrier\n")


class Watch:
    """Watches the processes of a launch on this host.

    Args:
        launch: Where they run; heartbeats of an earlier start in its ``log_dir`` are removed.
        hang_timeout: Seconds without progress after which a process hangs; 0 for never.
        start_timeout: Seconds in which processes must connect, and how many more the first step
            of training may take.
    """

    def __init__(self, launch: Launch, hang_timeout: float, start_timeout: float) -> None:
        self._hang_timeout, self._start_timeout = hang_timeout, start_timeout
        self._logs = [launch.log_dir / f"workerlog.{n}" for n in range(launch.nproc_per_node)]
        self._paths = [path_of(launch.log_dir, n) for n in range(launch.nproc_per_node)]
        self._changes: dict[int, tuple[int, float]] = {}
        for path in self._paths:
            path.unlink(missing_ok=True)

    def find_hang(self) -> tuple[int, str] | None:
        """Return number and state of the process that hangs and is likely the cause; or None."""
        workers = self._alive() if self._hang_timeout else {}
        idle = {n: self._idle_share(n, worker) for n, worker in workers.items()}
        if max(idle.values(), default=0) < 1:
            return None
        # The others stopped when they came to wait for it.
        found = {n: self._where(n, workers[n].pid) for n in idle if idle[n] > 0.5}
        first = min(found, key=lambda n: (found[n][0], n))
        seconds = time.monotonic() - self._changes[first][1]
        return first, f"no progress for {seconds:.0f} s: {found[first][1]}"

    def peers_that_do_not_answer(self) -> list[str]:
        """Return the addresses of hosts that are down or cut off from this one."""
        endpoints: dict[str, str] = {}
        for worker in filter(None, map(Heartbeat.read, self._paths)):
            endpoints.update((peer.rpartition(":")[0], peer) for peer in worker.peers if peer)
        with ThreadPoolExecutor() as pool:
            return [
                host
                for host, answers in zip(endpoints, pool.map(_answers, endpoints.values()))
                if not answers
            ]

    def kill(self) -> None:
        """Kill the processes that are left, which do not react otherwise."""
        for worker in self._alive().values():
            _signal(worker.pid, signal.SIGKILL)

    def end(self) -> None:
        """End the processes that a killed launcher left."""
        left = self._alive().values()
        for worker in left:
            _signal(worker.pid, signal.SIGTERM)
        end = time.monotonic() + _END_SECONDS
        while any(is_alive(worker.pid) for worker in left) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        self.kill()

    def _alive(self) -> dict[int, Heartbeat]:
        workers = {n: Heartbeat.read(path) for n, path in enumerate(self._paths)}
        here = socket.gethostname()
        return {
            n: worker
            for n, worker in workers.items()
            if worker is not None and worker.host == here and is_alive(worker.pid)
        }

    def _idle_share(self, n: int, worker: Heartbeat) -> float:
        """Return for how much of the time that it may a process made no progress."""
        now, before = time.monotonic(), self._changes.get(n)
        with contextlib.suppress(OSError):
            # By this host's clock: that of a file server may be another.
            changed = self._paths[n].stat().st_mtime_ns
            if before is None or before[0] != changed:
                before = self._changes[n] = changed, now
        if before is None:
            return 0
        allowed = self._hang_timeout if worker.connected else 0.0
        allowed += 0 if worker.stepped else self._start_timeout
        return (now - before[1]) / max(allowed, _POLL_SECONDS)

    def _where(self, n: int, pid: int) -> tuple[int, str]:
        """Let a process print its stack; return how likely it is the cause, and where it is."""
        size = self._logs[n].stat().st_size
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGUSR1)
        end, stack = time.monotonic() + _STACK_SECONDS, ""
        while _WHOLE_STACK not in stack and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            with self._logs[n].open("rb") as file:
                file.seek(size)
                stack = file.read().decode(errors="replace")
        if _STACK not in stack:
            return 0, f"it does not react to signals; its state is {state_of(pid)}"
        *_, main_thread = stack.split(_STACK)
        frame = _FRAME.search(main_thread)
        where = f"it is in {frame[3]} ({frame[1]}:{frame[2]})" if frame else "its stack is in"
        waits = any(word in main_thread for word in _WAITS)
        where += ", waiting for other processes" if waits else ""
        return (2 if waits else 1), f"{where}; the log has its stack"


def _answers(endpoint: str) -> bool:
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except ConnectionRefusedError:  # by the host, which is there
        return True
    except (OSError, ValueError):
        return False
    return True


def _signal(pid: int, number: int) -> None:
    """Signal a process and those that it started; each has a group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
