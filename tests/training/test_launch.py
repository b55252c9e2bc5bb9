"""Launches in several processes: command lines, batches, faults and restarts."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

import liteseg_plugin
from liteseg_plugin.errors import ConfigError, LitesegError, TrainingError
from liteseg_plugin.training import failures, processes, supervise
from liteseg_plugin.training import launch as launch_module
from liteseg_plugin.training.launch import Batch, Launch, resolved_master, share_batch

REPOSITORY = Path(__file__).parents[2]
CITYSCAPES = (
    REPOSITORY / "configs/pp_liteseg/pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k.yml"
)
GLOO = "error: RuntimeError: [gloo/transport/tcp/pair.cc:584] TIMEOUT self_rank = 1"
WAITED = "error: RuntimeError: [gloo/transport/tcp/unbound_buffer.cc:133] TIMEOUT self_rank = -1"


@pytest.fixture
def dry_run(run):
    """Return the arguments of each process, and what was said about the batch."""

    def dry_run(*flags, train=()):
        result = run("launch", *flags, "--dry-run", "train", "--config", CITYSCAPES, *train)
        words = shlex.split(result.stdout)
        main = next(n for n, word in enumerate(words) if word.endswith("__main__.py"))
        return words[:main], words[main + 1 :], result.stderr

    return dry_run


def test_dry_run_prints_the_command_of_paddles_launcher(dry_run):
    host = ("--nnodes", 2, "--master", "127.0.0.1:6070", "--rank", 1, "--nproc_per_node", 2)
    launcher, worker, said = dry_run(*host, train=("--save_dir", "out", "--seed", 3))
    assert launcher == [
        *(sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"),
        *(
            "--log_dir",
            "out/log/host_1",
            "--nnodes",
            "2",
            "--master",
            "127.0.0.1:6070",
            "--rank",
            "1",
        ),
    ]
    assert worker == ["train", "--config", str(CITYSCAPES), "--save_dir", "out", "--seed", "3"]
    assert "4 process(es) x 4 images = 16 a step, as in the recipe" in said


@pytest.mark.parametrize(
    ("processes", "given", "added", "says"),
    [
        (1, (), ("--gradient_accumulation_steps", "4"), "1 process(es) x 4 passes x 4 images = 16"),
        (2, (), ("--gradient_accumulation_steps", "2"), "learning rate and iterations stay"),
        (8, (), ("--batch_size", "2"), "8 process(es) x 2 images = 16 a step, as in the recipe"),
        (3, ("--batch_size", "2"), (), "0.375 times and --iters 2.66667 times those of the recipe"),
    ],
)
def test_launch_keeps_the_total_batch_of_a_recipe(dry_run, processes, given, added, says):
    _, worker, said = dry_run("--nproc_per_node", processes, train=given)
    assert worker[3:] == [*given, *added]
    assert says in said


def test_launch_refuses_processes_that_cannot_share_the_batch(fails):
    message = fails(
        *("launch", "--nproc_per_node", 3, "--dry-run", "train", "--config", CITYSCAPES)
    )
    assert "16 images a step cannot be shared by 3 processes: start 1, 2, 4, 8 or 16" in message
    with pytest.raises(ConfigError, match="24 images a step cannot be shared by 48"):
        share_batch(24, largest=6, processes=48)


@pytest.mark.parametrize(
    ("flags", "given", "message"),
    [
        (("--max_restarts", 2), ("--resume_model", "old/iter_5"), "not from old/iter_5"),
        (("--max_restarts", -1), (), "--max_restarts must be at least 0"),
        (("--nproc_per_node", 0), (), "--nproc_per_node must be at least 1, got 0"),
        ((), ("--gradient_accumulation_steps", 0), "--gradient_accumulation_steps must be at"),
    ],
)
def test_launch_refuses_what_it_cannot_do(fails, flags, given, message):
    assert message in fails("launch", *flags, "train", "--config", CITYSCAPES, *given)


@pytest.mark.parametrize("total", [1, 7, 12, 24])
def test_shared_batches_are_equal_and_of_the_fewest_passes(total):
    for number in (n for n in range(1, total + 1) if total % n == 0):
        batch = share_batch(total, largest=6, processes=number)
        assert batch.total == batch.recipe == total
        assert batch.size <= 6
        fewer = range(1, batch.passes)
        assert not any(total // number % n == 0 and total // number // n <= 6 for n in fewer)
    assert "has no total_batch_size" in Batch(2, 1, 2, None).text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"nnodes": 2}, "--nnodes 2 needs --master HOST:PORT"),
        ({"nnodes": 2, "master": "a:1", "rank": 2}, "ranks of hosts are 0 to 1"),
        ({"nnodes": 2, "master": "a:1", "rank": -1}, "ranks of hosts are 0 to 1"),
        ({"nproc_per_node": 0}, "--nproc_per_node must be at least 1"),
    ],
)
def test_launch_refuses_what_paddle_would_wait_for(flags, message):
    with pytest.raises(LitesegError, match=message):
        Launch(**{"nproc_per_node": 1, "log_dir": Path("log"), **flags})


def test_master_is_an_address_at_which_nobody_else_listens():
    for master in ("localhost", "localhost:0", "localhost:65536", "localhost:port"):
        with pytest.raises(LitesegError, match="--master must be HOST:PORT"):
            resolved_master(master)
    with pytest.raises(LitesegError, match=r"host no-such-host\.invalid is unknown here"):
        resolved_master("no-such-host.invalid:6070")

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        threading.Thread(target=lambda: [other.accept()[0].close() for _ in "12"]).start()
        with pytest.raises(LitesegError, match=f"port {port} is taken by another program"):
            resolved_master(f"localhost:{port}")
    assert resolved_master(f"localhost:{port}") == f"127.0.0.1:{port}"


def test_name_of_the_master_may_become_known_later(monkeypatch):
    answers = [socket.gaierror("unknown"), socket.gaierror("unknown"), "127.0.0.9"]

    def look_up(name):
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr(launch_module, "_RETRY_SECONDS", 0)
    monkeypatch.setattr(socket, "gethostbyname", look_up)
    assert resolved_master("pod-0.train:9", timeout=60) == "127.0.0.9:9"


def test_master_may_be_the_launcher_of_another_host():
    info = "/default/info"
    answers = {
        "/healthy": {"/healthy": "ok"},
        info: {f"{info}/pod/1": "{}", f"{info}/another/0": "{}"},
    }

    class Launcher(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answers[self.path]).encode())

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Launcher) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"127.0.0.1:{server.server_port}"
        assert resolved_master(address) == address
        assert launch_module.hosts_at(address) == [0, 1]
        server.shutdown()
        thread.join()


def failed(rank, code):
    return f"Container failed !!!\nContainer rank {rank} status failed cmd [...] code {code} log w"


@pytest.mark.parametrize(
    ("launcher", "workers", "reason", "is_final"),
    [
        (failed(1, -9), [GLOO, "[TRAIN]"], r"rank 3 on host \S+: killed by SIGKILL.*\.1$", False),
        (failed(0, -6), [GLOO, "[TRAIN]"], r"rank 3 on host \S+: killed by SIGKILL.*\.1$", False),
        (failed(0, 1), [WAITED, "[TRAIN]"], r"rank 3 on host \S+: hung: the others.*\.1$", False),
        (failed(0, -11), ["[TRAIN]", GLOO], r"rank 2 .*: ended by SIGSEGV\. See \S+\.0$", False),
        (
            failed(0, -6),
            [GLOO, GLOO],
            "rank 2 .* lost its peers, which failed or waited in vain for this",
            False,
        ),
        (
            failed(0, 1),
            [WAITED, WAITED],
            "rank 2 .* waited in vain for a process of another host for 30 s",
            False,
        ),
        (failed(0, 130), ["interrupted"], "rank 2 .*: interrupted, here or on another", False),
        (failed(0, 1), [GLOO, "error: disk full"], r"rank 3 .*: disk full\. See \S+\.1$", True),
        (
            failed(0, 1),
            ["error: RuntimeError: CUDA\n(--debug shows the traceback)", GLOO],
            "rank 2 .*: RuntimeError: CUDA. See",
            False,
        ),
        (failed(1, 3), [GLOO, "ValueError: 3"], r"rank 3 .*: ValueError: 3 \(exit code 3\)", False),
        (
            "TypeError: the JSON object must be str, bytes or bytearray, not NoneType",
            [""],
            "launcher on .* failed: another host has --rank 1 too",
            True,
        ),
        (
            "AssertionError: No container",
            [""],
            r"launcher on host \S+ failed: AssertionError: No con",
            True,
        ),
    ],
)
def test_failure_names_host_rank_reason_and_log(tmp_path, launcher, workers, reason, is_final):
    launch = Launch(2, tmp_path, nnodes=2, master="a:1", rank=1)
    failure = failures.explain(launch, launcher, workers)
    assert re.search(reason, failure.reason), failure.reason
    assert failure.is_final == is_final


def test_failure_says_which_host_is_cut_off_and_that_the_disk_is_full(tmp_path, monkeypatch):
    launch = Launch(1, tmp_path, nnodes=2, master="a:1", rank=1)
    failure = failures.explain(launch, failed(0, 1), [GLOO], ["10.0.0.7"])
    assert "rank 1 on host" in failure.reason
    assert "lost its peers: host 10.0.0.7 is down or cut off from this host. See" in failure.reason
    full = SimpleNamespace(free=4096)
    monkeypatch.setattr(failures.shutil, "disk_usage", lambda path: full)
    failure = failures.explain(launch, failed(0, 1), [""])
    assert (
        f"it printed nothing (exit code 1); the disk of {tmp_path} is full. See" in failure.reason
    )
    failure = failures.explain(launch, "LAUNCH INFO", [""])
    assert f"failed: it cannot write its log; the disk of {tmp_path} is full" in failure.reason


def test_processes_of_other_versions_configs_or_lists_are_named(monkeypatch):
    mine = {"liteseg_plugin": "1.0", "batch_size": "4", "train_dataset's list": "8 images"}
    other = {**mine, "liteseg_plugin": "1.1", "train_dataset's list": "7 images"}
    monkeypatch.setattr(processes, "gather", lambda _: [("a", mine), ("a", mine), ("b", other)])
    with pytest.raises(TrainingError) as error:
        processes.check_same(mine)
    assert str(error.value) == (
        "rank 2 on host b differs from rank 0 on host a: liteseg_plugin is 1.1, not 1.0; "
        "train_dataset's list is 7 images, not 8 images; start the same on every host"
    )
    monkeypatch.setattr(processes, "gather", lambda value: [value, value])
    processes.check_same(mine)


@pytest.mark.parametrize("command", ["train", "val", "val --report", "val --exported", "predict"])
def test_commands_refuse_a_host_that_differs(monkeypatch, request, run, toy, tmp_path, command):
    """The other host has another plugin and list, and otherwise the same."""
    program, *flag = command.split()
    given = ["--config", toy.config(tmp_path), "--device", "cpu"]
    if program == "train":
        given += ["--save_dir", tmp_path / "out", "--do_eval"]
    elif flag == ["--exported"]:
        given += [*flag, request.getfixturevalue("exported").folder]
    else:
        given += ["--model_path", request.getfixturevalue("trained").weights]
        given += [*flag, *([tmp_path / "report"] if flag else [])]
    if program == "predict":
        given += ["--image_path", toy.root / "val.txt", "--save_dir", tmp_path / "out"]
    names = {"train": "train_dataset's list", "predict": "image_path's list"}
    name = names.get(program, "val_dataset's list")
    seen = []

    def gather(value):
        facts = value[1]
        seen.append(facts)
        return [value, ("other", {**facts, "liteseg_plugin": "0", name: "2 images"})]

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "connect", lambda: None)
    monkeypatch.setattr(processes, "gather", gather)
    result = run(program, *given, check=False)
    assert result.returncode == 1
    assert f"error: rank 1 on host other differs from rank 0 on host {socket.gethostname()}: " in (
        result.text
    )
    assert f"liteseg_plugin is 0, not {liteseg_plugin.__version__}; {name} is 2" in result.text
    [facts] = seen
    assert {"paddlepaddle", "paddleseg", "batch_size", "model.type", name} <= {*facts}
    assert not [key for key, value in facts.items() if str(tmp_path) in value], facts
    if program != "train":
        assert len(facts["SHA-256 of the weights"]) == 8


def test_several_processes_do_not_predict_one_video(monkeypatch, fails, trained, tmp_path):
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "connect", lambda: None)
    weights = ("--config", trained.config, "--model_path", trained.weights, "--device", "cpu")
    said = fails("predict", *weights, "--image_path", tmp_path / "a.mp4")
    assert "a.mp4 is one video, which several processes cannot share" in said


@pytest.fixture
def launcher(monkeypatch, tmp_path):
    """Put a script in place of Paddle's launcher; return how it was called, as JSON lines."""
    calls = tmp_path / "calls"

    def use(script):
        start = "import json, pathlib, signal, sys, time; calls = pathlib.Path(sys.argv[1]); "
        start += "said = open(calls, 'a'); print(json.dumps(sys.argv[2:]), file=said, flush=True)\n"
        start += "number = len(calls.read_text().splitlines())\n"
        program = [sys.executable, "-S", "-c", start + script, str(calls)]
        monkeypatch.setattr(Launch, "command", lambda self, words: [*program, *words])
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    return use


KILLED = f"print({failed(0, -9)!r}, file=sys.stderr); sys.exit(9)"


def test_fault_restarts_with_the_newest_checkpoint_until_it_works(launcher, tmp_path, capsys):
    calls = launcher(f"if number < 3: {KILLED}")
    supervise.supervise(Launch(1, tmp_path), ["train"], max_restarts=3, resume=["--auto"])
    assert calls() == [["train"], ["train", "--auto"], ["train", "--auto"]]
    said = capsys.readouterr().err.splitlines()
    assert [line.rpartition(". ")[2] for line in said] == ["Restart 1 of 3", "Restart 2 of 3"]
    assert all("rank 0 on host" in line and "SIGKILL" in line for line in said)


def test_faults_beyond_the_restarts_are_an_error(launcher, tmp_path):
    calls = launcher(KILLED)
    with pytest.raises(TrainingError, match=r"killed by SIGKILL.*workerlog\.0"):
        supervise.supervise(Launch(1, tmp_path), [], max_restarts=1)
    assert len(calls()) == 2


def test_error_that_says_what_to_change_is_not_repeated(launcher, tmp_path):
    log = tmp_path / "workerlog.0"
    log.write_text("error: of an earlier run\n")
    calls = launcher(
        f"open({str(log)!r}, 'a').write('error: no such config\\n')\n"
        f"print({failed(0, 1)!r}, file=sys.stderr); sys.exit(1)"
    )
    with pytest.raises(TrainingError, match=r"rank 0 .*: no such config\. See"):
        supervise.supervise(Launch(1, tmp_path), [], max_restarts=5)
    assert len(calls()) == 1


def test_log_of_the_first_process_is_shown_without_stack(launcher, tmp_path, capsys):
    log = tmp_path / "workerlog.0"
    log.write_text("an earlier run\n")
    said = "[TRAIN] iter: 1\n\n-----\nC++ Traceback (most recent call last):\nFatalError: abort\n"
    launcher(f"open({str(log)!r}, 'a').write({said!r})")
    supervise.supervise(Launch(1, tmp_path), [])
    assert capsys.readouterr().out == "[TRAIN] iter: 1\n\n"


@pytest.mark.parametrize(
    ("came", "seen"), [([0, 2], "those that came have --rank 0, 2: check"), ([], "nothing answers")]
)
def test_wait_for_other_hosts_ends(monkeypatch, tmp_path, came, seen):
    command = ["sh", "-c", "echo Waiting peer >&2; exec sleep 100"]
    monkeypatch.setattr(Launch, "command", lambda self, words: command)
    monkeypatch.setattr(supervise, "hosts_at", lambda master: came)
    start = time.monotonic()
    launch = Launch(1, tmp_path, nnodes=2, master="127.0.0.1:9", rank=1)
    message = rf"--rank 1\) waited 0.5 s for 2 hosts at --master 127.0.0.1:9, and {seen}"
    with pytest.raises(TrainingError, match=message):
        supervise.supervise(launch, [], max_restarts=3, timeout=0.5)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_launcher(launcher, tmp_path, number):
    launcher(
        "signal.signal(signal.SIGTERM, lambda *_: (calls.with_name('ended').touch(), sys.exit(15)))"
        "\ncalls.with_name('ready').touch(); time.sleep(100)"
    )

    def terminate():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, number)

    before = signal.getsignal(number)
    threading.Thread(target=terminate).start()
    with pytest.raises(KeyboardInterrupt):
        supervise.supervise(Launch(1, tmp_path), [], max_restarts=3)
    assert (tmp_path / "ended").exists()
    assert signal.getsignal(number) == before


@pytest.mark.slow
def test_restarted_run_equals_the_undisturbed_one(
    process, killed_at, training, same_arrays, tmp_path
):
    flags = ("--iters", 3, "--batch_size", 2, "--save_interval", 1)

    def launch(name, *more, **environment):
        command = training(tmp_path / name, *flags)
        return process(
            *("liteseg", "launch", "--nproc_per_node", 2, *more, *command), **environment
        )

    whole = launch("whole")
    # Once it has written iter_2, from which the second start goes on.
    killed = launch("out", "--max_restarts", 1, **killed_at("sync", "*/out", 2))
    assert "killed by SIGKILL" in killed.stderr
    assert "Restart 1 of 1" in killed.stderr
    assert f"Resumed from {tmp_path}/out/iter_2" in killed.stdout
    for name in ("iter_3/model.pdparams", "iter_3/model.pdopt"):
        assert same_arrays(tmp_path / "out" / name, tmp_path / "whole" / name), name
    logs = [(tmp_path / name / "iter_3" / "training.json") for name in ("out", "whole")]
    assert json.loads(logs[0].read_text()) == json.loads(logs[1].read_text())
    assert whole.stdout.count("[TRAIN]") == 3
