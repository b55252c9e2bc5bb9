"""Processes that hang, and launchers that are killed: with stand-ins that load no Paddle."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from liteseg_plugin.errors import TrainingError
from liteseg_plugin.system import heartbeat
from liteseg_plugin.system.heartbeat import Heartbeat
from liteseg_plugin.training import watch
from liteseg_plugin.training.launch import Launch
from liteseg_plugin.training.supervise import supervise

HANG_SECONDS = 2
LAUNCHER = """
    import os, subprocess, sys, time
    folder, *workers = sys.argv[1:]
    processes = []
    for n, script in enumerate(workers):
        log = open(f"{folder}/workerlog.{n}", "a")
        env = {**os.environ, "PADDLE_LOCAL_RANK": str(n), "PADDLE_TRAINER_ENDPOINTS": "a:1,b:2"}
        processes.append(subprocess.Popen(
            [sys.executable, "-c", script], env=env, stdout=log, stderr=log, start_new_session=True
        ))
    while any(process.poll() is None for process in processes):
        time.sleep(0.05)
        for rank, process in enumerate(processes):
            if process.poll():
                print(f"Container rank {rank} status failed cmd code {process.poll()} log w")
                sys.exit(1)
"""
WORKER = """
    import os, signal, sys, time
    from liteseg_plugin.system import heartbeat
    heartbeat._TICK_SECONDS = heartbeat._POLL_SECONDS = 0.05
    heartbeat.begin()

    def reach():
        heartbeat.reached("connected")
        heartbeat.reached("stepped")

    def work(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            heartbeat.tick()
            time.sleep(0.05)
"""
STOPPED = "reach(); work(0.5); os.kill(os.getpid(), signal.SIGSTOP)"
# In a function of this name and place, as its stack shows it.
WAITING = """
    reach()
    place = "liteseg_plugin/training/processes.py"
    exec(compile("def gather():\\n while True: time.sleep(1)\\ngather()", place, "exec"))
"""


@pytest.fixture
def launch(monkeypatch, tmp_path):
    """Supervise workers of a stand-in for Paddle's launcher; each is a script after WORKER."""

    def launch(*workers, start_timeout=0.0, **options):
        scripts = [textwrap.dedent(WORKER) + textwrap.dedent(worker) for worker in workers]
        command = [sys.executable, "-S", "-c", textwrap.dedent(LAUNCHER), str(tmp_path), *scripts]
        monkeypatch.setattr(Launch, "command", lambda self, words: command)
        flags = {"hang_timeout": HANG_SECONDS, "timeout": start_timeout, **options}
        supervise(Launch(len(workers), tmp_path), [], **flags)

    yield launch
    for path in tmp_path.glob("heartbeat.*"):
        assert not heartbeat.is_alive(Heartbeat.read(path).pid), path


def test_stopped_process_is_named_rather_than_the_one_that_waits_for_it(launch):
    start = time.monotonic()
    with pytest.raises(TrainingError) as error:
        launch(WAITING, STOPPED)
    host = re.escape(socket.gethostname())
    message = (
        rf"rank 1 on host {host}: no progress for \d s: it does not react to signals; its state is "
        r"T \(stopped\)\. See \S+workerlog\.1"
    )
    assert re.fullmatch(message, str(error.value))
    assert time.monotonic() - start < 60


def test_process_in_a_collective_says_so_and_leaves_its_stack(launch, tmp_path):
    message = r"it is in gather \(training/processes\.py:2\), waiting for other processes"
    with pytest.raises(TrainingError, match=rf"rank 0 .*: {message}; the log has its stack"):
        launch(WAITING)
    assert "in gather\n" in (tmp_path / "workerlog.0").read_text()


def test_process_that_works_is_not_the_one_that_hangs(launch):
    with pytest.raises(TrainingError, match=r"rank 1 .*: it is in gather"):
        launch("reach(); work(60)", WAITING)


def test_long_first_step_and_slow_progress_are_not_hangs(launch):
    first = f"time.sleep({HANG_SECONDS + 1}); reach(); "
    launch(f"{first} work({HANG_SECONDS + 2})", f"{first} work(0.1)", start_timeout=60)


def test_hang_before_the_first_step_ends_too(launch):
    for before in ("", "heartbeat.reached('connected'); "):
        with pytest.raises(TrainingError, match=r"rank 0 .* no progress"):
            launch(f"{before}time.sleep(100)", start_timeout=1)


def test_hang_timeout_of_zero_is_for_ever(launch):
    launch(f"reach(); time.sleep({HANG_SECONDS + 1})", hang_timeout=0)


def test_processes_of_a_killed_launcher_end_and_start_again(launch, tmp_path, capsys):
    killed = tmp_path / "killed"
    once = f"import pathlib; once = pathlib.Path({str(killed)!r})\n"
    launch(
        f"{once}reach()\nif not once.exists():\n once.touch(); os.kill(os.getppid(), 9); work(100)",
        max_restarts=1,
    )
    said = capsys.readouterr().err
    assert re.search(r"Paddle's launcher on host \S+ failed: ended by SIGKILL\. See \S+ Res", said)


def test_process_ends_with_its_supervisor(tmp_path):
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as supervisor:
        pass
    environment = {heartbeat.FOLDER: str(tmp_path), heartbeat.SUPERVISOR: str(supervisor.pid)}
    worker = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WORKER) + "time.sleep(100)"],
        env={**os.environ, **environment},
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert worker.returncode == -signal.SIGTERM
    assert worker.stdout == "The launcher of this process was killed\n"


def test_hosts_answer_by_a_refusal_too():
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
        thread = threading.Thread(target=server.accept)
        thread.start()
        assert watch._answers(endpoint)
        thread.join()
    assert watch._answers(endpoint)
    assert not watch._answers("no-such-host.invalid:1")
