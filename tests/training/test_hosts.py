"""Two hosts: two network namespaces of this machine, each with its own name and address."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from liteseg_plugin.system.heartbeat import Heartbeat, state_of

pytestmark = pytest.mark.slow
ADDRESSES = {"host-a": "10.77.44.1", "host-b": "10.77.44.2"}
FLAGS = ("--iters", 3, "--batch_size", 2, "--save_interval", 1)
SECONDS = 600
# With a host name of its own, which it must know, as real hosts do.
AS_HOST = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Two hosts on one network; `start(NAME, *command)` runs a process on one of them."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("ip (iproute2) or unshare (util-linux) is missing")
    spaces = {name: f"{name}-{os.getpid()}" for name in ADDRESSES}
    links = {name: f"v{name[-1]}{os.getpid()}" for name in ADDRESSES}
    known = tmp_path_factory.mktemp("network") / "hosts"
    entries = {"localhost": "127.0.0.1", **ADDRESSES}
    known.write_text("".join(f"{address} {name}\n" for name, address in entries.items()))
    running = []

    def start(name, *command, log, **environment):
        inside = ["ip", "netns", "exec", spaces[name], "unshare", "--uts", "--mount", "sh", "-c"]
        with log.open("w") as file:
            running.append(
                subprocess.Popen(
                    [*inside, AS_HOST, "sh", known, name, *map(str, command)],
                    env={**os.environ, **environment},
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            )
        return running[-1]

    try:
        for space in spaces.values():
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        (a, b), (end_a, end_b) = spaces.values(), links.values()
        ip("link", "add", end_a, "netns", a, "type", "veth", "peer", "name", end_b, "netns", b)
        for name, space in spaces.items():
            ip("-n", space, "addr", "add", f"{ADDRESSES[name]}/24", "dev", links[name])
            ip("-n", space, "link", "set", links[name], "up")
        start("host-a", "true", log=known.with_name("log")).wait()
        if running[0].returncode:
            pytest.skip(f"no host with a name: {known.with_name('log').read_text()}")
        yield SimpleNamespace(
            start=start,
            link=lambda state: ip("-n", spaces["host-a"], "link", "set", links["host-a"], state),
        )
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        for space in spaces.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True)


@pytest.fixture(scope="module")
def train(hosts, training, tmp_path_factory):
    """Start training on both hosts; return their processes and the files of their consoles."""

    def train(save_dirs, *more, launch=(), on_a=None):
        tmp_path = tmp_path_factory.mktemp("consoles")
        started = {}
        for rank, name in enumerate(ADDRESSES):
            flags = ("--nnodes", 2, "--rank", rank, "--master", "host-a:6070", *launch)
            command = (*flags, "--nproc_per_node", 1, *training(save_dirs[rank], *FLAGS, *more))
            log = tmp_path / f"{name}.log"
            environment = (on_a or {}) if rank == 0 else {}
            process = hosts.start(
                *(name, sys.executable, "-m", "liteseg_plugin", "launch", *command),
                log=log,
                **environment,
            )
            started[name] = SimpleNamespace(process=process, log=log)
        return started

    return train


def wait_until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.fixture(scope="module")
def undisturbed(train, tmp_path_factory):
    """A run in which each host has its own folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    started = train([folder / "a", folder / "b"], "--do_eval")
    for name, host in started.items():
        assert host.process.wait(SECONDS) == 0, host.log.read_text()[-3000:]
        assert ("[TRAIN]" in host.log.read_text()) == (name == "host-a")
    return folder


def test_first_host_writes_and_evaluation_is_that_of_one_process(undisturbed, run, random_crops):
    a, b = undisturbed / "a", undisturbed / "b"
    assert (a / "log/host_0/workerlog.0").is_file()
    assert sorted(path.name for path in a.glob("iter_*")) == ["iter_1", "iter_2", "iter_3"]
    assert [path.name for path in b.iterdir()] == ["log"]
    assert (b / "log/host_1/workerlog.0").is_file()
    # Three images do not divide by two processes.
    *_, last = csv.DictReader((a / "metrics.csv").open())
    weights = ("--model_path", a / "iter_3/model.pdparams", "--device", "cpu")
    val = json.loads(run("val", "--config", random_crops, *weights, "--json").stdout)
    assert val["images"] == 3
    assert float(last["miou"]) == val["miou"]
    assert float(last["accuracy"]) == val["accuracy"]


def test_run_goes_on_after_a_host_was_cut_off(
    train, hosts, killed_at, same_arrays, undisturbed, tmp_path
):
    shared = tmp_path / "shared"
    paused = killed_at("sync", "*/shared", 2, by=signal.SIGSTOP)  # once iter_2 is complete
    started = train([shared, shared], launch=("--max_restarts", 1), on_a=paused)

    def worker():
        return Heartbeat.read(shared / "log/host_0/heartbeat.0")

    wait_until(lambda: worker() is not None and state_of(worker().pid).startswith("T"))
    hosts.link("down")
    os.kill(worker().pid, signal.SIGCONT)
    for host in started.values():
        wait_until(lambda host=host: "Restart 1 of 1" in host.log.read_text())
    hosts.link("up")
    for (name, host), other in zip(started.items(), reversed(ADDRESSES.values())):
        assert host.process.wait(SECONDS) == 0, host.log.read_text()[-3000:]
        assert re.search(
            rf"rank \d on host {name}: lost its peers: host {other} is down or cut off",
            host.log.read_text(),
        )
    assert f"Resumed from {shared}/iter_2" in started["host-a"].log.read_text()
    for file in ("model.pdparams", "model.pdopt"):
        assert same_arrays(shared / "iter_3" / file, undisturbed / "a/iter_3" / file), file
