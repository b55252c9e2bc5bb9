"""Say in one sentence why the processes of a launch failed."""

from __future__ import annotations

import re
import shutil
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from liteseg_plugin.errors import printable, telling_line
from liteseg_plugin.training.launch import Launch

LAUNCHER_LOG = "launcher.log"
_FAILED = re.compile(r"Container rank (\d+) status failed .* code (-?\d+) log")
# What is in the log of a process whose peer ended.
_LOST_PEER = re.compile(
    "gloo|NCCL error|TCP connection reset|Connection (closed|reset) by peer"
    "|Process abort signal|Termination signal"
)
# It waited 30 s; gloo's other TIMEOUT is a connection that was closed.
_TIMED_OUT = re.compile("unbound_buffer.*TIMEOUT")
_NO_PEER = "JSON object must be str, bytes or bytearray, not NoneType"
_UNEXPECTED = "(--debug shows the traceback)"
_INTERRUPTED = 130
_FULL_BYTES = 1 << 20


@dataclass(frozen=True)
class Failure:
    """Why the processes of a host ended.

    Attributes:
        reason: A sentence that names host and rank, and where to look.
        is_final: Whether a new start would fail likewise.
    """

    reason: str
    is_final: bool


def explain(
    launch: Launch, launcher_said: str, said_by: Sequence[str], cut_off: Sequence[str] = ()
) -> Failure:
    """Say which process failed first, and why.

    Args:
        launch: Where they ran.
        launcher_said: The launcher's log of this start.
        said_by: The log of each process of this host.
        cut_off: Addresses of hosts that do not answer.
    """
    found = _FAILED.search(launcher_said)
    if found is None:
        reason = telling_line(launcher_said) or "it printed nothing"
        if _is_full(launch):
            reason = "it cannot write its log"
        if launch.nnodes > 1 and _NO_PEER in launcher_said:
            reason = f"another host has --rank {launch.rank} too; each host needs its own"
        return of_launcher(launch, reason, True)
    failed, code = int(found[1]), int(found[2])
    errors = {n: line for n, said in enumerate(said_by) if (line := _error_line(said))}
    silent = [n for n, said in enumerate(said_by) if not _LOST_PEER.search(said)]
    timed_out = any(map(_TIMED_OUT.search, said_by))
    is_final = False
    if errors:
        failed = failed if failed in errors else min(errors)
        reason, is_final = errors[failed], _UNEXPECTED not in said_by[failed]
    elif failed in silent:
        reason = _end(code, said_by[failed])
    elif silent:  # the others ended because that one did
        failed = silent[0]
        hung = "hung: the others waited for it in vain"
        reason = hung if timed_out else _end(-signal.SIGKILL, "")
    elif cut_off:
        reason = f"lost its peers: host {', '.join(cut_off)} is down or cut off from this host"
    elif timed_out:
        reason = (
            "waited in vain for a process of another host for 30 s, the limit of gloo; it hung or "
            "was too slow"
        )
    else:
        reason = (
            "lost its peers, which failed or waited in vain for this process; the console of "
            "another host says why"
        )
    return of_process(launch, failed, reason, is_final)


def of_process(launch: Launch, local_rank: int, reason: str, is_final: bool = False) -> Failure:
    """Return the failure of a process of this host, by its number here."""
    rank = local_rank + launch.nproc_per_node * (launch.rank or 0)
    return _failure(launch, f"rank {rank} on", f": {reason}", f"workerlog.{local_rank}", is_final)


def of_launcher(launch: Launch, reason: str, is_final: bool) -> Failure:
    """Return the failure of Paddle's launcher on this host."""
    return _failure(launch, "Paddle's launcher on", f" failed: {reason}", LAUNCHER_LOG, is_final)


def did_not_meet(launch: Launch, timeout: float, seen: str) -> Failure:
    """Return the failure of hosts that did not all come."""
    reason = (
        f" (--rank {launch.rank}) waited {timeout:g} s for {launch.nnodes} hosts at --master "
        f"{launch.master}, and {seen}: check --master, --nnodes, --rank and the firewall of every "
        "host"
    )
    return _failure(launch, "", reason, LAUNCHER_LOG, True)


def _failure(launch: Launch, who: str, reason: str, log: str, is_final: bool) -> Failure:
    full = ""
    if _is_full(launch):
        full = f"; the disk of {printable(launch.log_dir)} is full"
    text = f"{who} host {socket.gethostname()}{reason}{full}. "
    return Failure(f"{text.lstrip()}See {printable(launch.log_dir / log)}", is_final)


def _is_full(launch: Launch) -> bool:
    return shutil.disk_usage(launch.log_dir).free < _FULL_BYTES


def _end(code: int, said: str) -> str:
    if code == -signal.SIGKILL:
        return "killed by SIGKILL; if nobody did so, the system ran out of memory (dmesg says so)"
    if code == _INTERRUPTED:
        return "interrupted, here or on another host, after a checkpoint"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"{telling_line(said) or 'it printed nothing'} (exit code {code})"


def _error_line(said: str) -> str | None:
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    errors = [line for line in errors if not _LOST_PEER.search(line)]
    return errors[-1][len("error: ") :].rstrip(".") if errors else None
