"""The cache of decoded frames: bounded, never stale, whole after any kill."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest

from liteseg_plugin.datasets.frames import FrameCache
from liteseg_plugin.errors import ConfigError

FRAME_BYTES = 100 * 100 * 3
ENTRY_BYTES = FRAME_BYTES + 128 + 32  # with the header of .npy and the file's stamp


def decode(path):
    """Stand in for a decoder: the file's number, everywhere."""
    with open(path) as file:
        return np.full((100, 100, 3), int(file.read()), np.uint8)


def refuse(path):
    raise AssertionError(f"{path} was decoded again")


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i}.txt" for i in range(40)]
    for i, path in enumerate(paths):
        path.write_text(str(i))
    return [str(path) for path in paths]


def sizes(folder):
    return [path.stat().st_size for path in folder.glob("*.npy")]


def test_array_is_decoded_once(files, tmp_path):
    FrameCache(tmp_path / "c", 10**6).read(files[7], decode, "frame")
    again = FrameCache(tmp_path / "c", 10**6).read(files[7], refuse, "frame")
    np.testing.assert_array_equal(again, decode(files[7]))
    assert again.dtype == np.uint8


def test_kinds_are_kept_apart(files, tmp_path):
    cache = FrameCache(tmp_path / "c", 10**6)
    cache.read(files[7], decode, "frame")
    assert cache.read(files[7], lambda path: np.zeros((2, 2)), "label").shape == (2, 2)


def test_limit_holds_and_the_rest_is_decoded(files, tmp_path):
    cache = FrameCache(tmp_path / "c", 5 * ENTRY_BYTES + 17)
    for _ in range(2):
        for i, path in enumerate(files[:9]):
            assert cache.read(path, decode, "frame")[0, 0, 0] == i
    assert sizes(tmp_path / "c") == [ENTRY_BYTES] * 5


def test_changed_file_is_decoded_anew_and_counted_once(files, tmp_path):
    cache = FrameCache(tmp_path / "c", 2 * ENTRY_BYTES)
    for number in range(1, 6):
        before = os.stat(files[1])
        with open(files[1], "w") as file:
            file.write(str(number))
        same = {"ns": (before.st_atime_ns, before.st_mtime_ns)}  # as rsync --times does
        os.utime(files[1], **same)
        while os.stat(files[1]).st_ctime_ns == before.st_ctime_ns:  # older kernels: ticks of 4 ms
            os.utime(files[1], **same)
        assert cache.read(files[1], decode, "frame").max() == number
    cache.read(files[2], decode, "frame")
    assert len(sizes(tmp_path / "c")) == 2


def test_file_that_changes_while_it_is_read_is_not_kept(files, tmp_path):
    def slow(path):
        array = decode(path)
        with open(path, "a") as file:
            file.write("1")
        return array

    cache = FrameCache(tmp_path / "c", 10**6)
    assert cache.read(files[3], slow, "frame").max() == 3
    assert cache.read(files[3], decode, "frame").max() == 31


@pytest.mark.parametrize("keep", [0, 10, 100, ENTRY_BYTES - 1, ENTRY_BYTES - 5000])
def test_entry_cut_short_is_decoded_anew(files, tmp_path, keep):
    cache = FrameCache(tmp_path / "c", 10**6)
    cache.read(files[5], decode, "frame")
    (entry,) = (tmp_path / "c").glob("*.npy")
    entry.write_bytes(entry.read_bytes()[:keep])
    assert cache.read(files[5], decode, "frame").max() == 5
    assert cache.read(files[5], refuse, "frame").max() == 5


def test_full_disk_ends_keeping_not_reading(files, tmp_path, monkeypatch, capfd):
    cache = FrameCache(tmp_path / "c", 10**6)

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for i in range(3):
        assert cache.read(files[i], decode, "frame").max() == i
    captured = capfd.readouterr()
    assert (captured.out + captured.err).count("No more decoded images are cached in") == 1
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["bytes"]


def test_unusable_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cached in .*file: .*; cache_dir names a folder"):
        FrameCache(tmp_path / "file", 1)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=r"link is not used: it is a symbolic link"):
        FrameCache(tmp_path / "link", 1)


def _read_all(folder, files, limit, seed):
    cache = FrameCache(folder, limit)
    random.Random(seed).shuffle(files)
    while True:
        for path in files:
            array = cache.read(path, decode, "frame")
            if (array != decode(path)).any():
                os._exit(3)
        if seed is not None:
            os._exit(0)


def test_processes_keep_to_one_limit(files, tmp_path):
    limit = 25 * ENTRY_BYTES
    context = multiprocessing.get_context("fork")
    arguments = [(tmp_path / "c", files, limit, seed) for seed in range(4)]
    processes = [context.Process(target=_read_all, args=values) for values in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sum(sizes(tmp_path / "c")) == limit


def test_kill_leaves_whole_entries_below_the_limit(files, tmp_path):
    limit, rng = 30 * ENTRY_BYTES, random.Random(0)
    for _ in range(8):
        process = multiprocessing.get_context("fork").Process(
            target=_read_all, args=(tmp_path / "c", files, limit, None)
        )
        process.start()
        time.sleep(rng.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
        assert process.exitcode == -signal.SIGKILL
        assert sum(sizes(tmp_path / "c")) <= limit if (tmp_path / "c").exists() else True
    cache = FrameCache(tmp_path / "c", limit)
    for path in files:
        np.testing.assert_array_equal(cache.read(path, decode, "frame"), decode(path))
    assert len(sizes(tmp_path / "c")) == 30
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.suffix != ".npy") == ["bytes"]
