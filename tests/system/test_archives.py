"""Archives: what honest ones hold is unpacked, and hostile ones leave nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
import tracemalloc
import zipfile

import pytest

from liteseg_plugin.errors import DataError, WeightsError
from liteseg_plugin.system import archives

FILES = {"data/images/a.png": b"a" * 3000, "data/b.txt": b"b", "data/empty": b""}


@pytest.fixture
def make_tar(tmp_path):
    """Return a function that writes a tar of files and of other members."""

    def make(*members, files=(), mode="w:gz", name="archive.tar.gz"):
        path = tmp_path / name
        with tarfile.open(path, mode) as file:
            for key, content in dict(files).items():
                info = tarfile.TarInfo(key)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
            for info in members:
                file.addfile(info)
        return path

    return make


def make_zip(path, files=(), links=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in dict(files).items():
            file.writestr(name, content)
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            file.writestr(info, "/etc/passwd")
    return path


def member(name, kind=tarfile.REGTYPE, linkname="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, linkname, size
    return info


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def refused(tmp_path):
    """Check that an archive is refused, and that nothing of it is anywhere."""

    def refused(archive, match, **bounds):
        before = content_of(tmp_path)
        folder = tmp_path / "to" / "folder"
        with pytest.raises(DataError, match=match):
            archives.unpack(archive, folder, **bounds)
        assert content_of(tmp_path) == before
        assert not [*folder.iterdir()]

    return refused


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_is_unpacked(make_tar, tmp_path, mode):
    path = make_tar(member("data/folder", tarfile.DIRTYPE), files=FILES, mode=mode)
    assert archives.is_archive(path)
    assert archives.unpack(path, tmp_path / "to") == [*FILES]
    assert content_of(tmp_path / "to") == FILES
    assert (tmp_path / "to" / "data" / "folder").is_dir()


def test_zip_is_unpacked_over_what_is_there(tmp_path):
    path = make_zip(tmp_path / "archive.zip", FILES)
    (tmp_path / "to" / "data").mkdir(parents=True)
    (tmp_path / "to" / "data" / "b.txt").write_text("old")
    assert archives.is_archive(path)
    assert archives.unpack(path, tmp_path / "to") == [*FILES]
    assert content_of(tmp_path / "to") == FILES


@pytest.mark.parametrize(
    "name", ["/etc/cron.d/x", "../x", "a/../../x", "C:/x", "\\x", "..\\x", "a\\..\\..\\x"]
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_path_outside_is_refused(make_tar, refused, tmp_path, name, kind):
    files = {"good": b"1", name: b"2"}
    path = make_tar(files=files) if kind == "tar" else make_zip(tmp_path / "a.zip", files)
    refused(path, "is a path outside of it")


@pytest.mark.parametrize(
    "info",
    [
        member("x", tarfile.SYMTYPE, "/etc/passwd"),
        member("x", tarfile.SYMTYPE, "good"),
        member("x", tarfile.LNKTYPE, "/etc/passwd"),
        member("x", tarfile.CHRTYPE),
        member("x", tarfile.BLKTYPE),
        member("x", tarfile.FIFOTYPE),
        member("x", b"V"),
    ],
    ids=lambda info: f"{info.type.decode()}-{info.linkname}",
)
def test_link_or_device_is_refused(make_tar, refused, info):
    refused(make_tar(info, files={"good": b"1"}), "x is a link or a device")


def test_link_of_a_zip_is_refused(refused, tmp_path):
    refused(make_zip(tmp_path / "a.zip", {"good": b"1"}, links=["x"]), "x is a link or a device")


def test_nothing_is_written_through_a_link_of_the_folder(make_tar, tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "to"
    outside.mkdir()
    folder.mkdir()
    (folder / "data").symlink_to(outside)
    with pytest.raises(DataError, match="data is a link, through which nothing is unpacked"):
        archives.unpack(make_tar(files=FILES), folder)
    assert not [*outside.iterdir()]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_bounds_are_kept(make_tar, refused, tmp_path, kind):
    files = {"zeros": bytes(4 << 20)}
    path = make_tar(files=files) if kind == "tar" else make_zip(tmp_path / "a.zip", files)
    assert path.stat().st_size < 5000
    refused(path, "holds more than its .* bytes can honestly hold")
    path = make_tar(files=FILES)
    refused(path, "has more than 2 members", most_members=2)
    refused(path, "holds more than", most_bytes=3000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_header_of_a_tar_takes_no_memory(refused, tmp_path, kind, compress):
    path = tmp_path / "archive.tar"
    path.write_bytes(compress(member("x", kind, size=1 << 26).tobuf() + bytes(1 << 26)))
    tracemalloc.start()
    refused(path, "holds more than")
    assert archives.is_archive(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_sparse_file_is_bounded(refused, tmp_path):
    """A hole of 1 TB, which takes a hundred bytes."""
    header = bytearray(member("hole", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[386:398] = b"%011o\0" % 0
    header[398:410] = b"%011o\0" % 0
    header[483:495] = b"%011o\0" % (1 << 32)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path = tmp_path / "archive.tar"
    path.write_bytes(header + bytes(1024))
    refused(path, "holds more than")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a", "./a", "a/b"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_file_twice_or_below_a_file_is_refused(refused, tmp_path, kind, second):
    path = tmp_path / "archive"
    if kind == "tar":
        with tarfile.open(path, "w") as file:
            file.addfile(member("a"))
            file.addfile(member(second))
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a", b"")
            file.writestr(second, b"")
    refused(path, "is not an archive, or is damaged")


def test_tar_with_a_damaged_header_is_refused(make_tar, refused):
    path = make_tar(files=FILES, mode="w", name="archive.tar")
    content = bytearray(path.read_bytes())
    second = content.index(b"data/b.txt")
    content[second] ^= 1
    path.write_bytes(content)
    refused(path, "archive.tar")


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>404", b"\x1f\x8b", b"BZh9", bytes(2000)])
def test_other_file_is_refused(refused, tmp_path, content):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(content)
    if content == bytes(2000):  # a tar without members
        assert archives.unpack(path, tmp_path / "to") == []
    else:
        refused(path, "is not an archive, or is damaged")
    assert not archives.is_archive(path)


def test_truncated_or_mutated_archive_is_refused_or_unpacked_below(make_tar, tmp_path):
    rng = random.Random(1)
    folder, path = tmp_path / "deep" / "to", tmp_path / "mutated"
    originals = [
        make_tar(files=FILES, mode="w").read_bytes(),
        make_tar(files=FILES).read_bytes(),
        make_zip(tmp_path / "a.zip", FILES).read_bytes(),
    ]
    outside = {*content_of(tmp_path), "mutated"}
    refusals = 0
    for number in range(300):
        content = bytearray(originals[number % 3])
        if number % 10 == 0:
            del content[rng.randrange(len(content)) :]
        else:
            for _ in range(rng.randint(1, 4)):
                content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            archives.unpack(path, folder, error=WeightsError)
        except WeightsError:
            refusals += 1
        found = {name for name in content_of(tmp_path) if not name.startswith("deep/to/")}
        assert found == outside
    assert refusals > 100


def test_permissions_are_those_of_new_files(tmp_path):
    path = tmp_path / "archive.tar"
    info = member("x")
    info.mode = 0o6777
    with tarfile.open(path, "w") as file:
        file.addfile(info)
    archives.unpack(path, tmp_path / "to")
    assert os.stat(tmp_path / "to" / "x").st_mode & 0o7111 == 0
