"""The page of `liteseg demo`: over its API, and in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from liteseg_plugin import Predictor
from liteseg_plugin.serving.demo import class_shares
from liteseg_plugin.visualization.html import percent

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


@pytest.fixture(scope="module")
def gradio():
    """What the page needs, and Python 3.9 cannot have."""
    return pytest.importorskip("gradio", reason="the page needs gradio: pip install '.[demo]'")


@pytest.fixture(scope="module")
def page(gradio, exported, tmp_path_factory):
    """The page of the small trained network, its address and its temporary folder."""
    folder = tmp_path_factory.mktemp("page")
    environment = {
        **os.environ,
        "TMPDIR": str(folder),
        # Who asks for anything but the page's own server fails.
        **{name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")},
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = (sys.executable, "-m", "liteseg_plugin", "demo", exported.folder)
    with open(folder / "log", "w+") as log:
        process = subprocess.Popen(
            [*command, "--server_port", str(port)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        line = next((text for text in process.stdout if "Ctrl-C" in text), "")
        log.seek(0)
        assert line.startswith(f"http://127.0.0.1:{port}"), line + log.read()
        yield SimpleNamespace(url=line.split()[0], port=port, folder=folder)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert not list(folder.glob("liteseg_demo_*"))  # uploads are deleted


@pytest.fixture(scope="module")
def segment(page):
    """Upload a file and segment it, as the page does."""
    from gradio_client import Client, handle_file

    client = Client(page.url, verbose=False)

    def segment(path, engine="paddle"):
        return client.predict(handle_file(str(path)), engine, api_name="/segment")

    return segment


@pytest.fixture(scope="module")
def picture(toy):
    return toy.root / "images" / "val_0000.png"


@pytest.mark.slow
def test_shares_are_those_of_the_predictor_in_every_runtime(segment, exported, picture):
    predictor = Predictor(exported.folder)
    image = cv2.imread(str(picture))
    shares = class_shares(predictor(image), predictor.exported.named_classes())
    for engine in exported.runtimes:
        overlay, html = segment(picture, engine)
        assert f"ms in {engine}" in html
        assert re.findall(r"([\d.]+) %<", html) == [percent(entry["share"]) for entry in shares]
        assert all(entry["name"] in html for entry in shares)
        assert cv2.imread(overlay).shape == image.shape


@pytest.mark.slow
def test_hostile_uploads_get_an_error_and_the_page_lives_on(segment, picture, tmp_path):
    from gradio_client.exceptions import AppError

    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((2, 100000, 3), np.uint8))
    (tmp_path / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    for name, message in {
        "text.png": "^cannot read image text.png: it is not a PNG",
        "empty.png": "^cannot read image empty.png: it is not a PNG",
        "wide.png": "^wide.png is too large: 100000 x 2 pixels",
        "drawing.svg": "^cannot read image drawing.svg: it is not a PNG",
    }.items():
        with pytest.raises(AppError, match=message):
            segment(tmp_path / name)
    with pytest.raises(AppError, match="not in the list of choices"):
        segment(picture, "../runtime")
    segment(picture)


@pytest.mark.slow
def test_files_of_the_server_and_large_bodies_are_refused(page, picture):
    import requests

    assert requests.get(f"{page.url}gradio_api/file={picture}").status_code == 403
    large = requests.post(f"{page.url}gradio_api/upload", files={"files": bytes(65 * 2**20)})
    assert large.status_code == 413


@pytest.mark.slow
def test_page_listens_on_this_machine_only(page):
    other = next((a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None)), "127.0.0.1")
    if other.startswith("127.") or ":" in other:
        other = "127.0.0.2"  # loopback too, but not where it listens
    with socket.socket() as client, pytest.raises(OSError):
        client.connect((other, page.port))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_page_in_a_browser(page, scheme, width, tmp_path):
    if CHROMIUM is None and os.environ.get("CI") == "true":
        pytest.fail("no Chromium to look at the page with; .ci/run installs one")
    if CHROMIUM is None:
        pytest.skip("no Chromium to look at the page with; install chromium or google-chrome")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: '.[dev]'")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        asked, complaints = [], []
        view.on("request", lambda request: asked.append(request.url))
        view.on("console", lambda message: complaints.append((message.type, message.text)))
        view.goto(page.url)
        view.locator(".gallery-item").first.click()  # a drawn scene
        view.get_by_text("second run").wait_for()
        view.get_by_role("table").wait_for()
        ground = view.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 380) == (scheme == "light")
        assert view.evaluate("document.documentElement.scrollWidth") <= width

        # A text that is called a picture: an error on the page, which lives on.
        text = tmp_path / "text.png"
        text.write_text("no picture")
        view.get_by_label("Remove Image").click()
        view.locator("input[type=file]").first.set_input_files(text)
        view.get_by_text("cannot read image text.png").first.wait_for()
        view.locator(".gallery-item").nth(1).click()
        view.get_by_text("second run").wait_for()
        view.screenshot(path=tmp_path / "page.png", full_page=True)
        browser.close()
    assert [url for url in asked if not url.startswith((page.url, "data:", "blob:"))] == []
    assert [text for kind, text in complaints if kind == "error" and "text.png" not in text] == []


def test_port_that_is_taken(gradio, fails, exported):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = fails("demo", exported.folder, "--server_port", port)
    assert f"port {port} of 127.0.0.1 is in use; give another by --server_port" in message


def test_demo_without_gradio(fails, exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'liteseg_plugin[demo]'" in fails("demo", exported.folder)


def test_demo_of_a_folder_that_is_no_export(fails, tmp_path):
    assert "is not an exported folder" in fails("demo", tmp_path)
