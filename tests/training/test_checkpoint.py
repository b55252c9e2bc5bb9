"""Checkpoints as files: complete or absent, read without running their code, kept and deleted."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pickle
import random
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import paddle
import pytest

from liteseg_plugin.errors import TrainingError, WeightsError
from liteseg_plugin.system.checksums import SUMS
from liteseg_plugin.training import checkpoint
from liteseg_plugin.training.checkpoint import Best
from liteseg_plugin.weights import load_weights, read_arrays, read_state_dict


@pytest.fixture
def content():
    """Files of a checkpoint, about 400 KB."""
    return {"model.pdparams": {"weight": paddle.arange(100_000, dtype="float32")}}


@pytest.fixture
def run(tmp_path):
    """The folder of a run with the checkpoints iter_2, iter_4 and iter_10."""
    for iteration in (10, 2, 4):
        (tmp_path / f"iter_{iteration}").mkdir()
    return tmp_path


def files(folder: Path) -> set[str]:
    paths = {path for path in folder.rglob("*") if path.is_file() and path.name != SUMS}
    return {str(path.relative_to(folder)) for path in paths}


def test_save_leaves_nothing_but_the_checkpoint(tmp_path, content):
    checkpoint.save(tmp_path / "iter_1", content, {"iteration": 1})
    assert files(tmp_path) == {"iter_1/model.pdparams", "iter_1/training.json"}
    assert json.loads((tmp_path / "iter_1" / "training.json").read_text()) == {"iteration": 1}
    assert paddle.load(str(tmp_path / "iter_1" / "model.pdparams"))["weight"][-1] == 99_999


def test_save_replaces_one_of_the_same_iteration(tmp_path, content):
    checkpoint.save(tmp_path / "iter_1", content, {"iteration": 1})
    checkpoint.save(tmp_path / "iter_1", {}, {"iteration": 1, "again": True})
    assert files(tmp_path) == {"iter_1/training.json"}
    assert "again" in (tmp_path / "iter_1" / "training.json").read_text()


def test_kill_between_the_renames_is_taken_back(tmp_path, content):
    checkpoint.save(tmp_path / "iter_1", content, {})
    (tmp_path / "iter_1").rename(tmp_path / ".replaced-iter_1")
    (tmp_path / ".partial-iter_1").mkdir()
    assert checkpoint.prepare(tmp_path, "auto") == tmp_path / "iter_1"
    assert files(tmp_path) == {"iter_1/model.pdparams", "iter_1/training.json"}


def test_kill_after_the_renames_is_cleaned_up(tmp_path, content):
    checkpoint.save(tmp_path / "iter_1", content, {})
    shutil.copytree(tmp_path / "iter_1", tmp_path / ".replaced-iter_1")
    (tmp_path / "best_model").mkdir()
    (tmp_path / "best_model" / ".partial-model.pdparams").write_bytes(b"half")
    checkpoint.prepare(tmp_path, "auto")
    assert files(tmp_path) == {"iter_1/model.pdparams", "iter_1/training.json"}


def test_other_processes_only_look_and_find_the_same(tmp_path, content):
    """Before the main process has cleaned the folder, and after."""
    checkpoint.save(tmp_path / "iter_1", content, {})
    checkpoint.save(tmp_path / "iter_12", content, {})
    (tmp_path / "iter_12").rename(tmp_path / ".replaced-iter_12")
    (tmp_path / ".partial-iter_12").mkdir()
    before = files(tmp_path)
    for wanted in ("auto", str(tmp_path), str(tmp_path / "iter_12")):
        assert checkpoint.prepare(tmp_path, wanted, is_main=False) == tmp_path / "iter_12"
    assert files(tmp_path) == before
    assert (tmp_path / ".partial-iter_12").is_dir()
    with pytest.raises(TrainingError, match="holds an earlier run"):
        checkpoint.prepare(tmp_path, is_main=False)
    assert checkpoint.prepare(tmp_path, "auto") == tmp_path / "iter_12"
    assert checkpoint.prepare(tmp_path, "auto", is_main=False) == tmp_path / "iter_12"


@pytest.mark.parametrize(
    ("keep", "left"), [(0, {2, 4, 10}), (1, {4, 10}), (2, {2, 4, 10}), (9, {2, 4, 10})]
)
def test_prune_keeps_the_newest_up_to_the_iteration(run, keep, left):
    checkpoint.prune(run, iteration=4, keep=keep)
    assert {checkpoint.iteration_of(path) for path in checkpoint.list_checkpoints(run)} == left


def test_newest_checkpoint_is_found_by_number(run):
    assert checkpoint.prepare(run, "auto") == run / "iter_10"
    assert checkpoint.prepare(run, str(run)) == run / "iter_10"
    assert checkpoint.prepare(run, str(run / "iter_4")) == run / "iter_4"


def test_auto_starts_anew_in_an_empty_folder(tmp_path):
    assert checkpoint.prepare(tmp_path / "new", "auto") is None


@pytest.mark.parametrize("name", ["gone", "gone/iter_3"])
def test_unknown_checkpoint_is_an_error(tmp_path, name):
    with pytest.raises(WeightsError, match=r"cannot resume from .*gone.*give a checkpoint folder"):
        checkpoint.prepare(tmp_path, str(tmp_path / name))


def test_folder_of_another_run_is_refused(run, tmp_path):
    with pytest.raises(
        TrainingError, match=r"holds an earlier run \(iter_10\).*--resume_model auto"
    ):
        checkpoint.prepare(run)
    other = tmp_path / "other" / "iter_3"
    other.mkdir(parents=True)
    with pytest.raises(TrainingError, match="holds an earlier run"):
        checkpoint.prepare(run, str(other))
    shutil.rmtree(other.parent)


def test_best_weights_are_noted_with_their_score(tmp_path, content):
    path = tmp_path / "best_model" / "model.pdparams"
    assert checkpoint.read_best(path.parent) == Best(-1, -1)
    checkpoint.save_best(path, content["model.pdparams"], Best(0.25, 7))
    assert checkpoint.read_best(path.parent) == Best(0.25, 7)
    assert files(tmp_path) == {"best_model/model.pdparams", "best_model/best.json"}


def test_files_are_on_the_disk_before_they_get_their_names(tmp_path, content, monkeypatch):
    """After a power cut a name must not stand for a file that was not written yet."""
    synced, renamed = set(), []

    def fsync(descriptor, original=os.fsync):
        synced.add(os.fstat(descriptor).st_ino)
        original(descriptor)

    def checked(original):
        def rename(path, target):
            inside = [path, *path.rglob("*")]
            missing = [entry.name for entry in inside if entry.stat().st_ino not in synced]
            renamed.append((Path(target).name, missing))
            synced.discard(path.parent.stat().st_ino)
            return original(path, target)

        return rename

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("rename", "replace"):
        monkeypatch.setattr(Path, name, checked(getattr(Path, name)))
    checkpoint.save(tmp_path / "iter_1", {**content, "model.pdopt": {"lr": 0.1}}, {"iteration": 1})
    assert renamed == [("iter_1", [])]
    assert tmp_path.stat().st_ino in synced  # the name, too
    best = tmp_path / "best_model" / "model.pdparams"
    checkpoint.save_best(best, content["model.pdparams"], Best(0.5, 1))
    assert renamed[1:] == [("model.pdparams", []), ("best.json", [])]
    assert best.parent.stat().st_ino in synced


def test_disk_without_room_is_told_before_writing(tmp_path, content, monkeypatch):
    checkpoint.save(tmp_path / "iter_1", content, {})
    before, mib = files(tmp_path), 2**20
    left = namedtuple("usage", "free")
    large = {"model.pdparams": {"weight": paddle.zeros([3 * mib // 4])}, "model.pdopt": {"lr": 1}}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: left(3 * mib - 1))
    with pytest.raises(TrainingError, match=r"iter_2: it takes 3 MiB, and the disk has 3 MiB left"):
        checkpoint.save(tmp_path / "iter_2", large, {})
    assert files(tmp_path) == before
    monkeypatch.setattr(shutil, "disk_usage", lambda path: left(3 * mib))
    checkpoint.save(tmp_path / "iter_2", large, {})


@pytest.mark.parametrize("best", [False, True])
def test_disk_that_fills_while_writing_leaves_what_was_there(tmp_path, content, best):
    """The kernel refuses to write past 100 KB, as a full disk would."""
    weights = content["model.pdparams"]
    path = tmp_path / "best_model" / "model.pdparams"
    checkpoint.save(tmp_path / "iter_1", content, {})
    checkpoint.save_best(path, {"weight": paddle.ones([2])}, Best(0.5, 1))
    before = files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"cannot write .*File too large.*did not change"):
            if best:
                checkpoint.save_best(path, weights, Best(0.9, 2))
            else:
                checkpoint.save(tmp_path / "iter_2", content, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == before
    assert paddle.load(str(path))["weight"].shape == [2]
    assert checkpoint.read_best(path.parent) == Best(0.5, 1)


def test_full_disk_is_named(tmp_path, content, monkeypatch):
    def fail(*args, **kw):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(paddle, "save", fail)
    with pytest.raises(TrainingError, match=r"iter_2: .*No space left on device"):
        checkpoint.save(tmp_path / "iter_2", content, {})
    assert files(tmp_path) == set()


@pytest.fixture
def trained():
    """Return a function that makes a network and an optimiser, which made one step."""

    def make(steps=1, schedule=None):
        paddle.seed(1)
        net = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
        rate = paddle.optimizer.lr.PolynomialDecay(0.1, 10) if schedule is None else schedule
        optimizer = paddle.optimizer.Adam(rate, parameters=net.parameters())
        for step in range(steps):
            net(paddle.full([2, 3, 8, 8], 0.5 + step)).square().mean().backward()
            optimizer.step()
            optimizer.clear_grad()
            optimizer._learning_rate.step()
        return net, optimizer

    return make


def write(folder, net, optimizer):
    """Write a checkpoint as PaddleSeg's loop does."""
    paddle.save(net.state_dict(), str(folder / "model.pdparams"))
    paddle.save(optimizer.state_dict(), str(folder / "model.pdopt"))


def test_optimiser_is_restored_though_parameters_have_other_names(trained, tmp_path):
    """Paddle numbers parameters in a process: the second network's are named otherwise."""
    net, optimizer = trained(steps=2)
    write(tmp_path, net, optimizer)
    other, other_optimizer = trained(steps=0)
    assert net[0].weight.name != other[0].weight.name
    assert checkpoint.restore(tmp_path, other, other_optimizer) == {}
    assert other_optimizer.get_lr() == optimizer.get_lr() != 0.1
    for one, its_optimizer in ((net, optimizer), (other, other_optimizer)):
        one(paddle.full([2, 3, 8, 8], 3.0)).square().mean().backward()
        its_optimizer.step()
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), tensor.numpy(), name)


def test_checkpoint_of_safetensors_is_restored_likewise(trained, tmp_path):
    pytest.importorskip("safetensors")
    net, optimizer = trained(steps=2)
    content = {"model.safetensors": net.state_dict(), "model.pdopt": optimizer.state_dict()}
    checkpoint.save(tmp_path / "iter_2", content, {"iteration": 2})
    assert files(tmp_path / "iter_2") == {*content, "training.json"}
    other, other_optimizer = trained(steps=0)
    state = checkpoint.restore(tmp_path / "iter_2", other, other_optimizer)
    assert state == {"iteration": 2}
    for one, its_optimizer in ((net, optimizer), (other, other_optimizer)):
        one(paddle.full([2, 3, 8, 8], 3.0)).square().mean().backward()
        its_optimizer.step()
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), tensor.numpy(), name)


def test_best_weights_are_in_one_format(tmp_path):
    pytest.importorskip("safetensors")
    folder, weights = tmp_path / "best_model", {"w": paddle.ones([3])}
    for suffix in ("pdparams", "safetensors", "pdparams"):
        checkpoint.save_best(folder / f"model.{suffix}", weights, Best(0.5, 1))
        assert files(folder) == {f"model.{suffix}", "best.json"}
        found = checkpoint.find_weights(folder)
        assert found.name == f"model.{suffix}"
        assert [*read_state_dict(found)] == ["w"]


def test_other_network_or_schedule_is_refused(trained, tmp_path):
    write(tmp_path, *trained())
    with pytest.raises(WeightsError, match="do not fit Linear"):
        linear = paddle.nn.Linear(2, 2)
        checkpoint.restore(tmp_path, linear, paddle.optimizer.SGD(0.1, linear.parameters()))
    schedule = paddle.optimizer.lr.ReduceOnPlateau(0.1)
    with pytest.raises(WeightsError, match=r"model\.pdopt does not fit the optimiser"):
        checkpoint.restore(tmp_path, *trained(0, schedule))


@pytest.mark.parametrize("name", ["model.pdparams", "model.pdopt"])
def test_code_in_a_checkpoint_is_not_run(trained, tmp_path, name):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    write(tmp_path, *trained())
    (tmp_path / name).write_bytes(pickle.dumps({"weight": Payload()}))
    with pytest.raises(WeightsError, match="refused to load"):
        checkpoint.restore(tmp_path, *trained(0))
    assert not (tmp_path / "executed").exists()


def test_damaged_file_is_refused_or_equal(trained, tmp_path):
    """One changed byte of a weight is another number, and nothing in the file itself tells."""
    rng = random.Random(1)
    folder = tmp_path / "iter_1"
    net, optimizer = trained()
    weights = {"model.pdparams": net.state_dict(), "model.pdopt": optimizer.state_dict()}
    checkpoint.save(folder, weights, {"iteration": 1})
    expected = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    refused = dict.fromkeys(path.name for path in folder.iterdir())
    assert refused.keys() == {*weights, "training.json", SUMS}
    for name in refused:
        path = folder / name
        original = path.read_bytes()
        refused[name] = 0
        for _ in range(15):
            damaged = bytearray(original)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            other, other_optimizer = trained(0)
            try:
                assert checkpoint.restore(folder, other, other_optimizer) == {"iteration": 1}
            except WeightsError:
                refused[name] += 1
            else:
                for key, tensor in other.state_dict().items():
                    np.testing.assert_array_equal(tensor.numpy(), expected[key])
        path.write_bytes(original)
    assert all(refused[name] == 15 for name in refused if name != SUMS), refused


def test_damaged_best_weights_are_named(trained, tmp_path):
    path = tmp_path / "best_model" / "model.pdparams"
    net, _ = trained()
    checkpoint.save_best(path, net.state_dict(), Best(0.5, 1))
    load_weights(net, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged or was replaced.*delete SHA256SUMS"):
        load_weights(net, path)
    (path.parent / SUMS).unlink()  # as those of earlier versions
    read_arrays(path)
    score = path.with_name("best.json")
    checkpoint.save_best(path, net.state_dict(), Best(0.75, 2))
    score.write_text(score.read_text().replace("0.75", "0.95"))
    with pytest.raises(WeightsError, match=r"best\.json is damaged"):
        checkpoint.read_best(path.parent)


def test_sums_are_those_of_sha256sum(trained, tmp_path):
    path = tmp_path / "best_model" / "model.pdparams"
    for miou in (0.25, 0.5):
        net, _ = trained()
        checkpoint.save_best(path, net.state_dict(), Best(miou, 1))
    listed = (path.parent / SUMS).read_text().splitlines()
    assert listed == [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}"
        for file in (path, path.with_name("best.json"))
    ]


@pytest.mark.parametrize("moment", range(4))
def test_best_weights_that_a_kill_left_are_loaded(trained, tmp_path, monkeypatch, moment):
    """Killed before each of the renames, and at the end."""
    path = tmp_path / "best_model" / "model.pdparams"
    net, _ = trained()
    checkpoint.save_best(path, net.state_dict(), Best(0.25, 1))
    before = path.read_bytes()
    renames = []

    class Killed(BaseException):
        pass

    def replace(source, target, original=os.replace):
        renames.append(target)
        if len(renames) > moment:
            raise Killed
        original(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "replace", replace)
    with contextlib.suppress(Killed):
        checkpoint.save_best(path, trained(2)[0].state_dict(), Best(0.5, 2))
    assert len(renames) == min(moment + 1, 4)
    load_weights(net, path)
    assert (path.read_bytes() == before) == (moment < 2)
    assert checkpoint.read_best(path.parent).miou == (0.5 if moment == 3 else 0.25)


def test_broken_json_is_named(trained, tmp_path):
    write(tmp_path, *trained())
    (tmp_path / "training.json").write_text('{"iteration": ')
    with pytest.raises(WeightsError, match=r"training\.json is not valid JSON"):
        checkpoint.restore(tmp_path, *trained(0))
