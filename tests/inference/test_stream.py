"""Streams of a server on this machine: the newest frame, and a source that comes back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from liteseg_plugin.datasets.classes import numbered_classes
from liteseg_plugin.errors import DataError
from liteseg_plugin.inference import stream, video
from liteseg_plugin.inference.frames import is_stream, is_video, name_of, without_login

FPS, COUNT = 10, 250
MISSING = 77  # exit code of the server
SERVER = Path(__file__).parents[1] / "data" / "rtsp_server.py"
PACKAGES = (
    "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video whose brightness is the number of the frame."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (160, 96))
    for number in range(COUNT):
        writer.write(np.full((96, 160, 3), number, np.uint8))
    writer.release()
    return path


@pytest.fixture()
def serving(clip):
    """Return a function that starts an RTSP server of the clip, and the server's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []

    def serve(*login):
        # The distribution's packages are for its own Python.
        command = ["/usr/bin/python3", str(SERVER), str(port), str(clip), *login]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        if not started[-1].stdout.readline():
            said = started[-1].communicate()[1].decode()
            assert started[-1].returncode == MISSING, said
            reason = f"needs a stream server: apt-get install {PACKAGES} ({said.strip()})"
            pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
        return started[-1]

    yield serve, f"127.0.0.1:{port}"
    for server in started:
        with server:
            server.kill()


def test_urls_are_streams_by_their_scheme():
    assert is_stream("rtsp://camera/1")
    assert is_video("RTSP://camera/1")
    for other in ("file:///etc/passwd", "concat://a", "street.mp4", "camera:0", "a://b", "rtsp:a"):
        assert not is_stream(other)
    assert name_of("rtsp://me:secret@10.0.0.5:554/live?id=3") == "10_0_0_5_554_live_id_3"
    assert without_login("rtsp://me:se@cret@10.0.0.5/a") == "rtsp://10.0.0.5/a"


def test_server_that_does_not_answer_is_an_error(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(DataError, match=r"cannot open stream tcp://127.0.0.1:\d+: its server") as e:
        video.open_video(f"tcp://me:secret@127.0.0.1:{port}", tmp_path)
    assert "secret" not in str(e.value)


@pytest.mark.slow
def test_newest_frame_is_read_and_a_lost_source_comes_back(serving, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "GIVE_UP_SECONDS", 60)  # rather than hang
    said = []
    monkeypatch.setattr(stream, "logger", SimpleNamespace(info=said.append, warning=said.append))
    serve, address = serving
    server, url = serve(), f"rtsp://{address}/live"
    frames = video.open_video(url, tmp_path)
    try:
        assert (frames.live, frames.stated, frames.fps) == (True, None, FPS)
        first = frames.read().mean()
        time.sleep(1.5)
        newest = frames.read().mean()
        assert newest - first > 5  # of the 15 frames between
        server.kill()
        deadline = time.monotonic() + 60
        while not any("does not answer; next attempt in 1 s" in line for line in said):
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        serve()
        while not any("is back after" in line for line in said):
            assert time.monotonic() < deadline, said
            assert frames.read() is not None
        assert frames.read() is not None
    finally:
        frames.close()
    assert any(line.startswith(f"Lost {url} after") for line in said)


@pytest.mark.slow
def test_camera_with_a_password(serving, tmp_path):
    serve, address = serving
    serve("me", "secret")
    frames = video.open_video(f"rtsp://me:secret@{address}/live", tmp_path)
    try:
        assert frames.read().shape == (96, 160, 3)
        assert frames.source == f"rtsp://{address}/live"
    finally:
        frames.close()
    for wrong in (f"me:wrong@{address}/live", f"me:secret@{address}/other"):
        with pytest.raises(DataError, match="has no such path, refuses the login") as error:
            video.open_video(f"rtsp://{wrong}", tmp_path)
        assert "secret" not in str(error.value) and "wrong" not in str(error.value)


@pytest.mark.slow
def test_ctrl_c_ends_a_lost_stream_with_a_whole_video(serving, tmp_path, monkeypatch, request):
    monkeypatch.setattr(stream, "_FIRST_WAIT", 0.2)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # `command &` ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    serve, address = serving
    server = serve()
    frames = video.open_video(f"rtsp://{address}/live", tmp_path)
    written = []

    def segment(frame):
        written.append(frame)
        if len(written) == 5:
            server.kill()  # the next read waits
            after = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
            after.start()
        return np.zeros(frame.shape[:2], "int32")

    results = video.segment_video(segment, numbered_classes(3), frames, tmp_path)
    started = time.monotonic()
    count, path = video.watch(results, frames)
    assert time.monotonic() - started < 30
    assert count > 0
    capture = cv2.VideoCapture(path)
    stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    assert stated > 0
    assert all(capture.read()[0] for _ in range(stated))


@pytest.mark.slow
def test_source_that_stays_lost_is_an_error(serving, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_FIRST_WAIT", 0.1)
    monkeypatch.setattr(stream, "GIVE_UP_SECONDS", 0.5)
    serve, address = serving
    server = serve()
    frames = video.open_video(f"rtsp://{address}/live", tmp_path)
    try:
        assert frames.read() is not None
        server.kill()
        with pytest.raises(DataError, match=r"lost for \d+ s; the \d+ frames before are written"):
            while True:
                frames.read()
    finally:
        frames.close()
