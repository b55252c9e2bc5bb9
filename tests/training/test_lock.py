"""Two trainings in one folder: the second stops before it touches anything."""

from __future__ import annotations

import errno
import os
import signal
import socket
from types import SimpleNamespace

import pytest

from liteseg_plugin.cli import main
from liteseg_plugin.errors import TrainingError
from liteseg_plugin.training import lock


@pytest.fixture
def holder(tmp_path):
    """Hold the lock of a folder in another process, which has a worker process of its own."""
    save_dir = tmp_path / "out"
    ready, says_ready = os.pipe()
    stopped, stop = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(stop)
            with lock.hold(save_dir):
                if os.fork() == 0:
                    os.write(says_ready, b".")
                os.read(stopped, 1)  # until the test closes its end
        finally:
            os._exit(1)
    os.close(says_ready)
    assert os.read(ready, 1) == b"."

    def kill():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    yield SimpleNamespace(save_dir=save_dir, pid=child, kill=kill)
    for descriptor in (ready, stopped, stop):
        os.close(descriptor)


def test_second_training_is_refused_and_touches_nothing(holder, capsys):
    partial = holder.save_dir / ".partial-iter_2" / "model.pdparams"
    partial.parent.mkdir()
    partial.write_bytes(b"half")
    command = ["train", "--config", "any.yml", "--save_dir", str(holder.save_dir)]
    assert main([*command, "--resume_model", "auto"]) == 1
    assert (
        f"another training runs in --save_dir {holder.save_dir}: process {holder.pid} on "
        f"{socket.gethostname()} holds {holder.save_dir / '.lock'}. Give another --save_dir, or "
        "stop that process first"
    ) in capsys.readouterr().err
    assert partial.read_bytes() == b"half"


def test_lock_goes_with_the_process_though_its_workers_live_on(holder):
    with pytest.raises(TrainingError, match="another training runs"), lock.hold(holder.save_dir):
        pass
    holder.kill()
    with lock.hold(holder.save_dir):
        assert (holder.save_dir / ".lock").read_text() == (
            f"process {os.getpid()} on {socket.gethostname()}\n"
        )


def test_lock_is_released_at_the_end(tmp_path):
    with lock.hold(tmp_path):
        pass
    child = os.fork()
    if child == 0:
        try:
            with lock.hold(tmp_path):
                os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_folder_without_locks_is_trained_in_with_a_warning(tmp_path, monkeypatch, capfd):
    def fail(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", fail)
    with lock.hold(tmp_path):
        assert "No locks available): start no other training there" in capfd.readouterr().out
    monkeypatch.setattr(lock, "fcntl", None)
    with lock.hold(tmp_path):
        assert "No file locks on this system" in capfd.readouterr().out
