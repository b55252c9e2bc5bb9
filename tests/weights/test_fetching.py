"""Downloads from a server that truncates, stalls, corrupts, redirects and lies."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import pickle
import tarfile
import threading

import numpy as np
import pytest

from liteseg_plugin.errors import WeightsError
from liteseg_plugin.integration import config
from liteseg_plugin.system import download as downloads
from liteseg_plugin.system.checksums import read_sums
from liteseg_plugin.weights import fetch, fetching, local_path, records
from liteseg_plugin.weights.loading import read_state_dict
from liteseg_plugin.weights.records import ReleasedWeights

ARRAYS = {"weight": np.arange(50_000, dtype="float32")}
CONTENT = pickle.dumps(ARRAYS, protocol=4)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = 1 << 16  # a third, as it is read and written in blocks


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the next entry of the server's script says."""

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        script = server.script
        answer = script.pop(0) if len(script) > 1 else script[0]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            answer(self)
        self.close_connection = True

    def answer(self, status=200, body=b"", **headers):
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def whole(content=CONTENT, **headers):
    return lambda handler: handler.answer(200, content, **headers)


def status(code, **headers):
    return lambda handler: handler.answer(code, b"no", **headers)


def ranged(content=CONTENT, etag='"1"'):
    """Answer as a server that continues a file, as long as it has the same one."""

    def answer(handler):
        start = handler.headers.get("Range", "")
        same = handler.headers.get("If-Range", etag) == etag
        if not start or not same:
            return handler.answer(200, content, ETag=etag)
        start = int(start[len("bytes=") : -1])
        extent = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.answer(206, content[start:], ETag=etag, Content_Range=extent)

    return answer


def truncated(length=HALF, **headers):
    return lambda handler: handler.answer(
        200, CONTENT[:length], Content_Length=str(len(CONTENT)), **headers
    )


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Serve by a script; nothing waits, and the cache is empty."""
    monkeypatch.setenv("LITESEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "TIMEOUT", (10, 10))
    waits = []
    monkeypatch.setattr(downloads, "sleep", waits.append)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.requests, httpd.script, httpd.waits = [], [whole()], waits
    httpd.address = f"http://127.0.0.1:{httpd.server_port}"
    httpd.url = f"{httpd.address}/made_up/model.pdparams"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def record(server, monkeypatch):
    """Return a function that lets the server's file be that of a record."""

    def record(**facts):
        made = ReleasedWeights("made_up", "T", "STDC1", "CamVid", server.url, **facts)
        monkeypatch.setitem(records._ALL, "made_up", made)
        return made

    return record


def kept(path):
    """Check that a file is the whole one, and that nothing else is left beside it."""
    assert path.read_bytes() == CONTENT
    assert {p.name for p in path.parent.iterdir()} == {"model.pdparams", "SHA256SUMS", ".lock"}
    assert read_sums(path.parent) == {"model.pdparams": {SHA256}}
    return True


def test_first_download_pins_the_sum_and_says_so(server, capfd):
    path = fetch(server.url)
    assert kept(path)
    assert f"From now on it is {SHA256}" in capfd.readouterr().out
    assert fetch(server.url) == path
    assert len(server.requests) == 1
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_record_is_fetched_by_name_and_by_url(server, record, capfd):
    record(sha256=SHA256, size_bytes=len(CONTENT))
    path = fetch("made_up")
    assert kept(path)
    assert path.parent.name == "made_up"
    assert local_path("made_up") == local_path(server.url) == str(path)
    assert "From now on" not in capfd.readouterr().out


def test_local_file_wins_over_a_name(server, record, tmp_path, monkeypatch):
    record()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made_up").write_bytes(CONTENT)
    assert local_path("made_up") == "made_up"
    assert not server.requests


def test_file_of_paddlesegs_own_cache_is_used_for_released_weights(
    server, record, monkeypatch, tmp_path
):
    from paddleseg.utils import seg_env

    monkeypatch.setattr(seg_env, "PRETRAINED_MODEL_HOME", str(tmp_path))
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "model.pdparams").write_bytes(CONTENT)
    assert kept(fetch(server.url))  # another run's file may have the same place there
    assert len(server.requests) == 1
    record()
    assert fetch("made_up") == tmp_path / "made_up" / "model.pdparams"
    assert len(server.requests) == 1


# --- what goes wrong on the way ------------------------------------------------------------------


def test_truncated_download_is_continued(server):
    server.script = [truncated(ETag='"1"'), ranged()]
    assert kept(fetch(server.url))
    assert server.requests[1][1]["Range"] == f"bytes={HALF}-"
    assert server.requests[1][1]["If-Range"] == '"1"'


def test_later_run_continues_what_an_earlier_one_left(server):
    server.script = [truncated(ETag='"1"'), status(404)]
    with pytest.raises(WeightsError, match="HTTP 404"):
        fetch(server.url)
    server.script = [ranged()]
    assert kept(fetch(server.url))
    assert server.requests[-1][1]["Range"] == f"bytes={HALF}-"


@pytest.mark.parametrize("mark", [{}, {"ETag": 'W/"1"'}])
def test_without_a_mark_of_the_server_it_starts_again(server, mark):
    server.script = [truncated(**mark), ranged()]
    assert kept(fetch(server.url))
    assert "Range" not in server.requests[1][1]


def test_with_a_known_sum_it_continues_without_a_mark(server, record):
    record(sha256=SHA256)
    server.script = [truncated(), ranged()]
    assert kept(fetch("made_up"))
    assert "Range" in server.requests[1][1]


def test_file_that_changed_meanwhile_is_not_mixed(server):
    server.script = [truncated(ETag='"0"'), ranged()]
    assert kept(fetch(server.url))
    assert server.requests[1][1]["If-Range"] == '"0"'


def test_server_that_stalls_is_asked_again(server, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", (10, 0.5))
    released = threading.Event()

    def stall(handler):
        handler.answer(200, CONTENT[:HALF], Content_Length=str(len(CONTENT)), ETag='"1"')
        handler.wfile.flush()
        released.wait(10)

    server.script = [stall, ranged()]
    assert kept(fetch(server.url))
    released.set()
    assert server.requests[1][1]["Range"] == f"bytes={HALF}-"


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_busy_server_is_asked_again(server, code):
    server.script = [status(code), status(code, Retry_After="7"), status(code), whole()]
    assert kept(fetch(server.url))
    assert server.waits == [1, 7, 4]


def test_server_that_stays_busy_is_named(server):
    server.script = [status(503, Retry_After="99999")]
    with pytest.raises(WeightsError, match=r"HTTP 503 \(6 attempts\).*To work offline"):
        fetch(server.url)
    assert server.waits == [60] * 5


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 501, 204])
def test_missing_file_is_named_at_once(server, code):
    server.script = [status(code)]
    with pytest.raises(WeightsError, match=rf"cannot download .*HTTP {code}"):
        fetch(server.url)
    assert len(server.requests) == 1


def test_unreachable_server_is_named_at_once(server):
    with pytest.raises(WeightsError, match=r"no connection .*To work offline"):
        fetch("http://127.0.0.1:9/made_up/model.pdparams")
    assert not server.waits


def test_range_that_the_server_refuses_starts_again(server):
    server.script = [truncated(ETag='"1"'), status(416), whole()]
    assert kept(fetch(server.url))
    assert "Range" not in server.requests[2][1]


def test_other_range_than_asked_starts_again(server):
    other = lambda h: h.answer(206, CONTENT, Content_Range=f"bytes 0-9/{len(CONTENT)}")  # noqa: E731
    server.script = [truncated(ETag='"1"'), other, whole()]
    assert kept(fetch(server.url))


# --- what the file turns out to be ---------------------------------------------------------------


def left(server):
    """Return what a failed download left in the cache, beside the lock."""
    return {
        path.name
        for path in (fetching.cache_folder() / "weights").glob("*/*")
        if path.name != ".lock"
    }


def test_corrupt_file_of_a_known_sum_is_refused(server, record):
    record(sha256=SHA256)
    server.script = [whole(CONTENT[:-9] + b"corrupted")]
    with pytest.raises(WeightsError, match=rf"instead of {SHA256}, as published"):
        fetch("made_up")
    assert not left(server)


def test_file_that_changes_on_the_server_is_refused(server, record):
    record()
    path = fetch("made_up")
    path.write_bytes(CONTENT[:-2] + b"x.")  # damaged on the disk
    server.script = [whole(pickle.dumps({"weight": np.ones(3)}))]
    with pytest.raises(WeightsError, match=rf"instead of {SHA256}, as the first download"):
        fetch("made_up")
    server.script = [whole()]
    assert kept(fetch("made_up"))


@pytest.mark.parametrize("content", [b"<html>sign in</html>", CONTENT[:HALF], b""])
def test_other_content_is_not_kept(server, content):
    """A shorter length than the file has, too, ends in a truncated file."""
    server.script = [whole(content)]
    with pytest.raises(WeightsError, match=r"is not a \.pdparams file, or is truncated"):
        fetch(server.url)
    assert not left(server)


def test_length_that_is_too_large_is_a_truncation(server):
    server.script = [whole(Content_Length=str(len(CONTENT) + 1))]
    with pytest.raises(WeightsError, match=r"\(6 attempts\)"):
        fetch(server.url)


def test_missing_length_is_no_error(server):
    server.script = [whole(Content_Length=None)]
    assert kept(fetch(server.url))


@pytest.mark.parametrize("length", [str(1 << 50), None])
def test_endless_file_is_refused(server, record, length):
    record(sha256=SHA256, size_bytes=1000)
    server.script = [whole(Content_Length=length)]
    with pytest.raises(WeightsError, match=r"bytes; at most 1000|more than the expected 1000"):
        fetch("made_up")
    assert len(server.requests) == 1


# --- redirects, mirrors, offline -----------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "data:,x"]
)
def test_redirect_to_another_scheme_is_refused(server, target):
    server.script = [status(302, Location=target)]
    with pytest.raises(WeightsError, match=r"redirects to .*, which is not followed"):
        fetch(server.url)
    assert len(server.requests) == 1


def test_redirect_to_another_server_needs_a_known_sum(server, record):
    moved = status(302, Location=f"http://localhost:{server.server_port}/there")
    server.script = [moved, whole()]
    with pytest.raises(WeightsError, match=r"another server, and the SHA-256 .* is not known"):
        fetch(server.url)
    assert len(server.requests) == 1
    server.script = [moved, whole()]
    record(sha256=SHA256)
    assert kept(fetch("made_up"))
    assert server.requests[-1][0] == "/there"


def test_redirect_on_the_same_server_is_followed(server):
    server.script = [status(301, Location="/there"), whole()]
    assert kept(fetch(server.url))


def test_endless_redirects_end(server):
    server.script = [status(302, Location="/again")]
    with pytest.raises(WeightsError, match="redirects more than 5 times"):
        fetch(server.url)


def test_mirror_is_asked_first(server, record, monkeypatch):
    record(sha256=SHA256)
    monkeypatch.setenv("LITESEG_MIRROR", f"http://127.0.0.1:9/x {server.address}/mirror/")
    assert kept(fetch("made_up"))
    assert [path for path, _ in server.requests] == ["/mirror/made_up/model.pdparams"]


def test_offline_uses_the_cache_only(server, record, monkeypatch):
    record()
    monkeypatch.setenv("LITESEG_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"offline, and it is not in the cache, as .*made_up"):
        fetch("made_up")
    with pytest.raises(WeightsError, match="offline"):
        fetch("made_up", offline=True)
    assert not server.requests
    path = fetch("made_up", offline=False)
    assert fetch("made_up") == path


def test_processes_wait_for_one_download(server):
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch(server.url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert len(found) == 4
    assert kept(found[0])


# --- archives, configs, commands -----------------------------------------------------------------


def archive(name):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
    return file.getvalue()


def test_archive_is_unpacked(server, record):
    url = f"{server.address}/PP_Made.tar.gz"
    content = archive("PP_Made/model.pdparams")
    server.script = [whole(content)]
    path = fetch(url)
    np.testing.assert_array_equal(read_state_dict(path)["weight"], ARRAYS["weight"])
    sums = {"PP_Made.tar.gz": {hashlib.sha256(content).hexdigest()}, "model.pdparams": {SHA256}}
    assert read_sums(path.parent) == sums
    assert fetch(url) == path
    assert len(server.requests) == 1


def test_archive_with_a_path_outside_is_refused(server):
    server.script = [whole(archive("../x.pdparams"))]
    with pytest.raises(WeightsError, match="is a path outside of it"):
        fetch(f"{server.address}/PP_Made.tar.gz")


def test_config_names_released_weights(server, record, toy, tmp_path):
    from liteseg_plugin.integration.config import ConfigBuilder

    record()
    path = toy.config(tmp_path, model__pretrained="made_up")
    assert ConfigBuilder(config.load(str(path)), downloads=False).model
    assert not server.requests
    with pytest.raises(WeightsError, match=r"none of the 250 arrays .* is in .*made_up"):
        ConfigBuilder(config.load(str(path))).model  # noqa: B018 - builds it
    assert len(server.requests) == 1


def test_commands_list_describe_fetch_and_check(server, record, run, fails):
    made = record(miou=70.0)
    listed = run("weights", "list", "--json")
    names = [entry["name"] for entry in json.loads(listed.stdout)["weights"]]
    of_all = (*records.RELEASED, *records.PSSL, *records.BACKBONES)
    assert names == [entry.name for entry in of_all]
    assert "PP_STDCNet1" in names
    info = json.loads(run("weights", "info", names[0], "--json").stdout)
    assert ReleasedWeights.from_json(info) == records.RELEASED[0]
    assert "non-commercial" in info["licence"]
    path = run("weights", "fetch", "made_up").stdout.split()[-1]
    assert made.name in path
    checked = json.loads(run("weights", "check", "made_up", "--json").stdout)
    assert (checked["path"], checked["sha256"]) == (path, SHA256)
    assert (checked["arrays"], checked["values"], checked["types"]) == (1, 50_000, ["float32"])
    said = fails("weights", "info", "pp_liteseg_stdc1_camvid")
    assert "did you mean pp_liteseg_stdc1_camvid_960x720_10k" in said
    assert "`liteseg weights list`" in fails("weights", "check", "absent.pdparams")
