from __future__ import annotations

import io
import json
import os
import signal
import threading
import uuid
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import requests
from PIL import Image

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import DataError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.serving import demo
from liteseg_plugin.serving.demo import class_shares
from liteseg_plugin.serving.page import launch, write_samples
from liteseg_plugin.serving.uploads import read_upload, uploaded

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)


def test_class_shares_are_sorted_and_leave_unknown_labels_out():
    classes = [ClassInfo("road", (1, 2, 3)), ClassInfo("sky", (4, 5, 6))]
    assert class_shares(np.array([[0, 1], [1, 255]]), classes) == [
        {"name": "sky", "color": "rgb(4, 5, 6)", "share": 0.5},
        {"name": "road", "color": "rgb(1, 2, 3)", "share": 0.25},
    ]


def test_upload_of_16_bits_grey_or_with_alpha_is_the_same_picture(tmp_path):
    grey = PICTURE[..., 0]
    pictures = {
        "deep.png": (PICTURE.astype(np.uint16) << 8, PICTURE),
        "grey.png": (grey, cv2.merge([grey] * 3)),
        "alpha.png": (np.dstack([PICTURE, grey]), PICTURE),
        "one.png": (PICTURE[:1, :1], PICTURE[:1, :1]),
    }
    for name, (written, expected) in pictures.items():
        cv2.imwrite(str(tmp_path / name), written)
        assert np.array_equal(read_upload(str(tmp_path / name)), expected), name


def chunk(kind, content):
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


def bomb(width, height):
    """A PNG of black pixels, packed a thousand times."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    packed = zlib.compress(bytes(10**7), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed)


def encoded(name, **options):
    """PICTURE in a format of Pillow's."""
    content = io.BytesIO()
    Image.fromarray(PICTURE[..., ::-1]).save(content, name, **options)
    return content.getvalue()


@pytest.mark.parametrize("name", ["BMP", "JPEG", "MPO", "PNG", "WEBP"])
def test_upload_is_read_as_opencv_reads_it(name, tmp_path):
    path = tmp_path / "picture"
    exif = Image.Exif()
    exif[0x0112] = 6  # taken on its side
    path.write_bytes(encoded(name, **({} if name == "BMP" else {"exif": exif})))
    image = read_upload(str(path))
    # OpenCV 4.5 knows the orientation of JPEG only.
    plain = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    expected = plain if name == "BMP" else cv2.rotate(plain, cv2.ROTATE_90_CLOCKWISE)
    assert np.array_equal(image, expected)


def test_upload_of_deep_grey_keeps_its_shades(tmp_path):
    path = str(tmp_path / "grey.png")
    cv2.imwrite(path, PICTURE[..., 0].astype(np.uint16) * 257)
    assert np.array_equal(read_upload(path), cv2.merge([PICTURE[..., 0]] * 3))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot read image x.png: it is not a PNG"),
        (b"a text", "cannot read image x.png: it is not a PNG"),
        (encoded("JPEG")[:-300], "cannot read image x.png: .* truncated"),
        # Pillow reads a width of 4000 and a height of 1; OpenCV, a height of 6000.
        (b"P4\n4000#6000 \n 1\n" + bytes(500 * 6000), "cannot read image x.png: it is not a PNG"),
        (encoded("TIFF"), "cannot read image x.png: it is not a PNG, JPEG, WebP or BMP"),
        (cv2.imencode(".png", PICTURE)[1].tobytes()[:500], "cannot read image x.png"),
        (bomb(50000, 50000), "x.png is too large"),
        (bomb(6000, 5000), r"x.png is too large: 6000 x 5000 pixels; the limit is 16000000 "),
        (bomb(100000, 10), "x.png is too large: 100000 x 10 pixels"),
    ],
)
def test_hostile_upload_is_one_error_without_paths_of_the_server(content, message, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read_upload(str(path))
    assert str(tmp_path) not in str(raised.value)


def test_samples_are_pictures(tmp_path):
    paths = write_samples(tmp_path)
    assert len({cv2.imread(path).tobytes() for path in paths}) == len(paths) == 4


def test_uploaded_takes_regular_files_of_the_folder_only(tmp_path):
    folder = tmp_path / "uploads"
    (folder / "folder").mkdir(parents=True)
    for path in (folder / "sample.png", tmp_path / "secret.png", tmp_path / "uploads.png"):
        path.touch()
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "in.png").symlink_to(folder / "sample.png")
    os.mkfifo(folder / "fifo.png")
    for name in ("sample.png", "in.png", "folder/../sample.png"):
        assert uploaded(f"{folder}/{name}", folder) == str(folder / "sample.png")
    refused = [
        *(f"{folder}/{name}" for name in ("", "fifo.png", "folder", "missing.png", "out.png")),
        *(f"{folder}/{name}" for name in ("../secret.png", "../missing.png", "../uploads.png")),
        *(os.path.relpath(folder / "sample.png"), f"http://h/../..{folder}/sample.png"),
        *("", "\0", "\ud800", "x" * 10000, None, 3, [], {}),
    ]
    messages = set()
    for path in refused:
        with pytest.raises(DataError) as raised:
            uploaded(path, folder)
        messages.add(str(raised.value))
    assert messages == {
        "the picture was not uploaded to this page, or has been deleted since: upload it again"
    }


@pytest.fixture(scope="module")
def model(pointwise, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    export_model(pointwise(), folder, transforms=[{"type": "Normalize"}])
    return demo.Model(folder, threads=1)


def test_model_segments_one_picture_at_a_time(model, tmp_path, monkeypatch):
    """Memory is for one."""
    both = threading.Barrier(2)
    together = []

    class Predictor:
        def __call__(self, image):
            return self.timed(image)[0]

        def timed(self, image):
            try:
                both.wait(0.05)
                together.append(image)
            except threading.BrokenBarrierError:
                both.reset()
            return np.zeros(image.shape[:2], np.int32), 1.0

    monkeypatch.setattr(model, "_load", lambda engine: Predictor())
    path = write_samples(tmp_path)[0]
    threads = [threading.Thread(target=model.segment, args=(path, "paddle")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    """The page, in a thread of this process: its address and its folder."""
    pytest.importorskip("gradio", reason="the page needs gradio: pip install '.[demo]'")
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ANALYTICS_ENABLED", "ANALYTICS_MAX_EVENTS", "TEMP_DIR"):
            patch.setenv(f"GRADIO_{name}", "")  # to be put back
        for name in ("HF_HUB_OFFLINE", "no_proxy"):
            patch.setenv(name, "")
        blocks, url = launch(model, folder, "127.0.0.1", None)
        yield SimpleNamespace(url=url, folder=folder, blocks=blocks)
        blocks.close(verbose=False)


def ask(page, *data, function=1):
    """Send an event as the page does; return the answer's text and, if it succeeded, its data."""
    event = {"data": data, "fn_index": function, "session_hash": uuid.uuid4().hex}
    joined = requests.post(f"{page.url}gradio_api/queue/join", json=event, timeout=60)
    if joined.status_code != 200:
        return joined.text, None
    query = {"session_hash": event["session_hash"]}
    stream = requests.get(
        f"{page.url}gradio_api/queue/data", query, stream=True, timeout=60
    ).iter_lines()
    answers = (json.loads(line[len(b"data:") :]) for line in stream if line)
    answer = next(answer for answer in answers if answer["msg"] == "process_completed")
    return json.dumps(answer), answer["output"].get("data") if answer["success"] else None


META = {"_type": "gradio.FileData"}
REFUSED = "was not uploaded to this page, or has been deleted since"


def test_page_reads_samples_and_uploads(page):
    _, [sample] = ask(page, 0, function=0)
    upload = requests.post(
        f"{page.url}gradio_api/upload", files={"files": ("a.png", encoded("PNG"))}
    )
    for file in (sample, {"path": upload.json()[0], "meta": META, "url": "http://h/a.png"}):
        text, data = ask(page, file, "paddle")
        assert data and "second run" in data[1], text
        overlay = requests.get(f"{page.url}gradio_api/file={data[0]['path']}")
        assert np.asarray(Image.open(io.BytesIO(overlay.content))).shape[2] == 3


def test_equal_answers_have_files_of_their_own_that_are_deleted_as_uploads(page):
    """A file that is written again breaks off for those who download it."""
    from gradio.route_utils import delete_files_created_by_app

    _, [sample] = ask(page, 0, function=0)
    paths = [ask(page, sample, "paddle")[1][0]["path"] for _ in range(2)]
    first, second = [requests.get(f"{page.url}gradio_api/file={path}").content for path in paths]
    assert first == second and paths[0] != paths[1]
    delete_files_created_by_app(page.blocks, 0)
    assert not any(map(os.path.exists, paths)) and os.path.exists(sample["path"])


def test_page_keeps_little_of_past_sessions(page):
    for _ in range(3):
        ask(page, 0, function=0)
    assert page.blocks.app.state_holder.capacity <= 100
    assert len(page.blocks._queue.event_analytics) == 1


def test_page_checks_paths_whatever_lets_them_in(page, tmp_path):
    import gradio

    (tmp_path / "secret.png").write_bytes(encoded("PNG"))
    [segment] = [each.fn for each in page.blocks.fns.values() if each.api_name == "segment"]
    with pytest.raises(gradio.Error, match=REFUSED):
        segment(str(tmp_path / "secret.png"), "paddle")


@pytest.mark.parametrize("name", ["secret.png", "fifo.png", "missing.png", "link.png"])
def test_page_reads_no_other_file_of_the_server(page, name, tmp_path):
    path = tmp_path / name
    if name == "secret.png":
        path.write_bytes(encoded("PNG"))
    elif name == "fifo.png":
        os.mkfifo(path)
    elif name == "link.png":
        (tmp_path / "secret.png").write_bytes(encoded("PNG"))
        path = page.folder / name
        path.symlink_to(tmp_path / "secret.png")
    for file in (
        {"path": str(path)},
        {"path": str(path), "meta": META},
        {"path": str(path), "meta": {"_type": "other"}},
        {"path": str(path), "meta": META, "is_stream": True},
        {"path": os.path.relpath(path)},
        [{"path": str(path), "meta": META}],
        {"value": {"path": str(path), "meta": META}},
    ):
        text, data = ask(page, file, "paddle")
        assert REFUSED in text and data is None, (file, text)
    text, data = ask(page, str(path), "paddle")  # no object at all
    assert data is None and str(tmp_path) not in text.replace(str(path), "")
    answer = requests.get(f"{page.url}gradio_api/file={path}")
    assert answer.status_code == 403 and REFUSED in answer.text


def test_page_fetches_no_address(page, monkeypatch):
    """Not even one that Gradio takes for public."""
    import safehttpx

    monkeypatch.setattr(safehttpx, "is_public_ip", lambda ip: True)
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}"
        sample = f"{page.folder}/street_0.png"
        for url in (f"{address}/a.png", f"{address}/../../../../../../..{sample}"):
            for file in (
                {"path": url},
                {"path": url, "meta": META},
                {"path": None, "url": url, "meta": META},
                {"path": sample, "url": url, "meta": META},
                [{"path": url, "meta": META}],
                url,
            ):
                for function in (0, 1):
                    ask(page, *[file, "paddle"][: function + 1], function=function)
                call = {"data": [file, "paddle"]}
                requests.post(f"{page.url}gradio_api/run/segment", json=call)
                requests.post(f"{page.url}gradio_api/call/segment", json=call)
            for route in ("file=", "file/", "proxy="):
                request = requests.Request("GET", page.url).prepare()
                request.url += f"gradio_api/{route}{url}"  # as it stands, with its dots
                for request.method in ("GET", "HEAD"):
                    assert requests.Session().send(request).status_code in (403, 404)
            ask(page, url)
        server.shutdown()
    assert asked == []


@pytest.mark.parametrize(
    "route",
    [
        *("run/segment", "run/segment/", "api/segment", "run/predict", "call/segment"),
        *("call/v2/segment", "component_server", "cancel", "reset", "queue/join/"),
        *("queue/status", "openapi.json", "proxy=http://127.0.0.1", "app_id", "../monitoring"),
        *("../monitoring/summary", "../login", "../gradio_api/run/segment"),
    ],
)
def test_routes_that_the_page_does_not_need_are_closed(page, route):
    sample = {"path": f"{page.folder}/street_0.png", "meta": META}
    answer = requests.post(f"{page.url}gradio_api/{route}", json={"data": [sample, "paddle"]})
    assert answer.status_code == 404
    assert requests.get(f"{page.url}gradio_api/{route}").status_code == 404


@pytest.mark.parametrize(
    "body, status",
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 50000, 400),
        (b" " * 200_000, 413),
        (b"[]", 422),
        (b"{}", 422),
    ],
)
def test_events_that_are_none_get_an_error(page, body, status):
    headers = {"content-type": "application/json"}
    answer = requests.post(f"{page.url}gradio_api/queue/join", body, headers=headers)
    assert answer.status_code == status


def ended_by(process, *lines):
    """Run lines in a process of their own, as a signal may end it; return what they print."""
    start = ("import signal", "from liteseg_plugin.serving import page")
    return process("python", "-c", "\n".join((*start, *lines))).stdout.split()


@pytest.mark.parametrize("first", ["SIGTERM", "SIGHUP"])
def test_signal_ends_by_an_exception_once(process, first):
    said = ended_by(
        process,
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)",  # whatever started the tests
        "page.exit_on_signals()",
        "try:",
        f"    signal.raise_signal(signal.{first})",
        "except SystemExit as stopped:",
        "    for number in (signal.SIGTERM, signal.SIGHUP):",  # uploads are being deleted
        "        signal.raise_signal(number)",
        "    print(stopped.code)",
    )
    assert said == [str(128 + getattr(signal, first))]


def test_sighup_that_nohup_ignores_stays_ignored(process):
    said = ended_by(
        process,
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)",
        "page.exit_on_signals()",
        "signal.raise_signal(signal.SIGHUP)",
        "print('alive')",
    )
    assert said == ["alive"]
