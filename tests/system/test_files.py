from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest

from liteseg_plugin.datasets import toy_street
from liteseg_plugin.system import files


@pytest.fixture()
def no_space():
    """Let files end at 100 bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def ended_process():
    """Return the number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_file_that_cannot_be_written_stays_as_it_was(no_space, tmp_path):
    path = tmp_path / "file"
    files.atomic_write(path, b"before")
    with pytest.raises(OSError, match=f"cannot write {path}: ") as caught:
        files.atomic_write(path, bytes(1000))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, original=original: (events.append(name), original(*a))
        )
    files.atomic_write(tmp_path / "file", b"content")
    files.atomic_write(tmp_path / "file", b"content", durable=False)
    assert events == ["fsync", "replace", "replace"]


def test_name_of_any_length_is_written(tmp_path):
    path = tmp_path / ("ä" * 125 + ".png")
    files.atomic_write(path, b"content")
    assert path.read_bytes() == b"content"


def test_only_what_ended_processes_left_is_removed(tmp_path):
    gone, here = ended_process(), files._machine()
    left = [f".a.{here}-{gone}-0.part", f".b.{here}-{gone}-xyz", f".old.00000000-{os.getpid()}-0"]
    kept = [
        f".c.{here}-{os.getpid()}-0.part",  # being written
        f".d.00000000-{gone}-0.part",  # of another machine: who knows
        ".e.part",
        f"other.{here}-{gone}-0.part",
    ]
    for name in (left[0], *kept):
        (tmp_path / name).touch()
    for name in left[1:]:
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").touch()
    os.utime(tmp_path / left[2], (0, time.time() - 2 * 24 * 3600))
    files.remove_leftovers(tmp_path, ".*")
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    files.remove_leftovers(tmp_path / "nowhere", ".*")


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot ask for a process; it goes by age")
def test_next_run_removes_what_a_killed_one_left(tmp_path):
    killed = """if 1:
        import os, signal
        from liteseg_plugin.datasets import toy_street
        from liteseg_plugin.system import files
        def kill(*_): os.kill(os.getpid(), signal.SIGKILL)
        if {toy}:
            toy_street.data_set._write_png = kill
            toy_street.generate({path!r}, train=1, resolution_wh=(32, 32))
        os.replace = kill
        files.atomic_write({path!r}, b"content")
    """
    for toy in (True, False):
        path = tmp_path / str(toy) / "st[r]eet"
        code = killed.format(toy=toy, path=str(path))
        assert subprocess.run([sys.executable, "-c", code]).returncode < 0
        [left] = path.parent.iterdir()
        assert left.name.startswith(".st[r]eet.")
        if toy:
            toy_street.generate(
                *(path,), train=1, val=0, test=0, resolution_wh=(32, 32), progress=False
            )
        else:
            files.atomic_write(path, b"content")
        assert list(path.parent.iterdir()) == [path]


# --- folders of caches ---------------------------------------------------------------------------


def mode(path):
    return path.stat().st_mode & 0o777


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LITESEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_folder_of_a_cache_is_private(cache, tmp_path):
    for folder in (cache / "frames", tmp_path / "chosen"):
        assert files.private_folder(folder) == folder
        assert mode(folder) == 0o700
    (cache / "frames").chmod(0o775)  # as earlier versions made it
    files.private_folder(cache / "frames")
    assert mode(cache / "frames") == 0o700


def test_folder_that_a_user_made_keeps_its_mode(cache, tmp_path):
    tmp_path.joinpath("mine").mkdir()
    tmp_path.joinpath("mine").chmod(0o755)
    files.private_folder(tmp_path / "mine")
    assert mode(tmp_path / "mine") == 0o755


@pytest.mark.parametrize("bits", [0o775, 0o757, 0o1777])
def test_folder_that_others_may_write_is_refused(cache, tmp_path, bits):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(OSError, match=r"open is not used: other users may .* chmod go-w .*open"):
        files.private_folder(folder)


def test_link_is_not_followed(cache, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    cache.mkdir()
    for link, target in (("frames", tmp_path / "elsewhere"), ("engines", tmp_path / "missing")):
        (cache / link).symlink_to(target)
        with pytest.raises(OSError, match=rf"{link} is not used: it is a symbolic link"):
            files.private_folder(cache / link)
    assert not (tmp_path / "missing").exists()


def test_folder_of_another_user_is_refused(cache, monkeypatch):
    files.private_folder(cache / "frames")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(OSError, match=r"frames is not used: it belongs to another user"):
        files.private_folder(cache / "frames")


def test_file_is_not_a_cache(cache):
    cache.mkdir()
    (cache / "frames").touch()
    with pytest.raises(OSError, match=r"frames is not used: it is not a folder"):
        files.private_folder(cache / "frames")
