"""A local page that shows what an exported model makes of a picture; ``pip install '.[demo]'``."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import cv2
import numpy as np
from PIL import Image, ImageOps

from liteseg_plugin.datasets import toy_street
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import DataError, LitesegError
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.visualization.html import render
from liteseg_plugin.visualization.overlay import overlay, write_image

if TYPE_CHECKING:
    import gradio

MAX_SIDE = 8192
"""Longest side of an upload, in pixels."""
MAX_PIXELS = 16_000_000
"""Largest upload: ONNX Runtime takes 2.5 GB for it with 11 classes."""
MAX_FILE_SIZE = "64mb"
FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
"""Formats of uploads, as Pillow names them."""

_SAMPLES = 4
_SAMPLE_WH = (640, 480)
# The page asks nobody but its own server, whatever Gradio comes with.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
# All that the page and gradio_client ask for. Gradio has more: calls that skip the queue,
# monitoring, a proxy.
_READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|(assets|static)/.+)"
    r"|/gradio_api/(info|startup-events|upload_progress|queue/data|heartbeat/[^/]+|file=.+)"
)
_FILE = "/gradio_api/file="
_UPLOAD = "/gradio_api/upload"
_EVENT = "/gradio_api/queue/join"
_MAX_EVENT = 100_000  # bytes of JSON; the pictures in it are paths


class Model:
    """An exported model, in each runtime that can run it here.

    Args:
        path: The exported folder, or the ``deploy.yaml`` in it.
        device: ``cpu``, or ``gpu`` where the runtime has one.
        threads: CPU threads; by default as many as this process may use.

    Attributes:
        exported: What was exported.
        engines: Names of what can be asked for, such as ``openvino`` or ``openvino int8``.

    Raises:
        ExportError: If the folder holds no complete export.
    """

    def __init__(
        self, path: str | os.PathLike, device: str = "cpu", threads: int | None = None
    ) -> None:
        self.exported = exported = ExportedModel.read(path)

        def load(engine: str) -> Predictor:
            runtime, _, precision = engine.partition(" ")
            return Predictor(exported, runtime, device, threads, precision or "fp32")

        self._load = lru_cache(maxsize=None)(load)
        self._lock = threading.Lock()
        self._load("paddle")
        self.engines = ["paddle"]
        for name in catalog.installed():
            if name != "paddle" and self.exported.onnx:
                self.engines.append(name)
                if self.exported.onnx_int8:
                    self.engines.append(f"{name} int8")

    def segment(self, path: str, engine: str) -> tuple[np.ndarray, str]:
        """Segment an uploaded picture.

        Args:
            path: The file.
            engine: One of ``engines``.

        Returns:
            The overlay (H, W, 3) of uint8 in RGB, and HTML: time, legend and shares of the classes.

        Raises:
            DataError: If the file is no picture, or one that the page or the export does not take.
            ExportError: If the runtime cannot load the model.
        """
        with self._lock:  # time and labels of the same call, and memory for one picture
            return self._segment(path, engine)

    def _segment(self, path: str, engine: str) -> tuple[np.ndarray, str]:
        predictor = self._load(engine)
        started = time.perf_counter()
        image = read_upload(path)
        predictor(image)  # the first run at a size prepares the engine
        label = predictor(image)
        classes = self.exported.named_classes()
        picture = overlay(image, label, classes, legend=False)
        height, width = label.shape
        result = render(
            "demo.html",
            runtime=engine,
            engine_ms=predictor.engine_ms[-1],
            total_ms=(time.perf_counter() - started) * 1000,
            width=width,
            height=height,
            shares=class_shares(label, classes),
        )
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), result


def uploaded(path: object, folder: Path) -> str:
    """Return the real path of a file in the folder of uploads.

    Args:
        path: What a client named.
        folder: Where uploads and samples lie, without symbolic links.

    Raises:
        DataError: If it is not a regular file there. The message does not tell whether it exists.
    """
    try:
        named = Path(os.path.normpath(path))
        if named.is_relative_to(folder):  # otherwise the file system is not asked about it
            real = Path(os.path.realpath(named))
            if real.is_relative_to(folder) and real.is_file():
                return str(real)
    except (OSError, TypeError, ValueError):  # not a string, or one that cannot be a path
        pass
    raise DataError(
        "the picture was not uploaded to this page, or has been deleted since: upload it again"
    )


def read_upload(path: str) -> np.ndarray:
    """Read a picture that anybody may have sent.

    Pillow decodes it, at the size that was checked. OpenCV would read the header itself, and a
    hostile file can have a different size there; other files have the same pixels in both.

    Returns:
        (H, W, 3) of uint8, BGR; 16 bits become 8, grey becomes three channels, alpha is dropped.

    Raises:
        DataError: If it is not of ``FORMATS``, truncated, or larger than the page takes; known from
            its header, before anything is decoded.
    """
    name = Path(path).name
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_size(name, *image.size)
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits of grey, which convert() clips
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} is too large: {error}") from error
    except Exception as error:  # a hostile file may raise anything
        raise DataError(
            f"cannot read image {name}: it is not a PNG, JPEG, WebP or BMP file, or is truncated"
        ) from error


def _check_size(name: str, width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(
            f"{name} is too large: {width} x {height} pixels; this page takes up to {MAX_SIDE} a "
            f"side and {MAX_PIXELS / 1e6:.0f} million in all; larger ones go to liteseg infer"
        )


def class_shares(label: np.ndarray, classes: Sequence[ClassInfo]) -> list[dict]:
    """Return name, CSS colour and share in 0..1 of the classes that occur, largest first."""
    found, counts = np.unique(label, return_counts=True)
    shares = [
        {
            "name": classes[index].name,
            "color": classes[index].css,
            "share": count / label.size,
        }
        for index, count in zip(found.tolist(), counts.tolist())
        if index < len(classes)
    ]
    return sorted(shares, key=lambda entry: -entry["share"])


def write_samples(folder: Path) -> list[str]:
    """Draw street scenes (see ``datasets/toy_street.py``) and return their paths."""
    paths = [str(folder / f"street_{number}.png") for number in range(_SAMPLES)]
    for number, path in enumerate(paths):
        write_image(path, toy_street.render_scene(np.random.default_rng(number), _SAMPLE_WH)[0])
    return paths


def serve(model: Model, folder: Path, host: str, port: int | None) -> None:
    """Serve the page until Ctrl-C.

    Args:
        model: What it shows.
        folder: For uploads and samples; whoever calls removes it.
        host: Address to listen on.
        port: Of that address; by default the first free one from 7860.

    Raises:
        LitesegError: If Gradio is not installed.
        OSError: If the address cannot be listened on.
    """
    exit_on_signals()
    page, url = launch(model, folder, host, port)
    print(f"{url} (Ctrl-C ends)", flush=True)
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)


def exit_on_signals() -> None:
    """End by an exception when told to end, so that whoever calls can delete uploads."""
    present = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))  # Windows: no SIGHUP
    numbers = [n for n in present if n is not None and signal.getsignal(n) != signal.SIG_IGN]

    def end(number: int, frame: object) -> None:
        for each in numbers:  # a second signal would interrupt the deletion
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in numbers:  # nohup ignores SIGHUP, which stays so
        signal.signal(number, end)


def launch(model: Model, folder: Path, host: str, port: int | None) -> tuple[gradio.Blocks, str]:
    """Start to serve the page in a thread; takes what :func:`serve` takes.

    Returns:
        The page, which ``close()`` ends, and its address.
    """
    folder = folder.resolve()  # as uploaded() returns paths; Gradio keeps samples by their path
    # Read when Gradio is imported, or asked for often. Gradio calls itself when it starts, which
    # must not go through a proxy; nothing else needs the network.
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(folder), HF_HUB_OFFLINE="1",
        no_proxy="*",
    )  # fmt: skip
    try:
        import gradio
    except ImportError:
        raise LitesegError(
            "gradio is not installed: pip install 'liteseg_plugin[demo]' (Python 3.10 or newer)"
        ) from None
    from starlette.middleware import Middleware

    for client in ("httpx", "httpx2"):  # with which Gradio calls itself
        logging.getLogger(client).setLevel(logging.WARNING)
    page = _build_page(gradio, model, folder)
    # Not mount_gradio_app(): without launch(), Gradio 6.31 takes any path of this machine for an
    # upload.
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        show_error=True,
        max_file_size=MAX_FILE_SIZE,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        prevent_thread_lock=True,
        app_kwargs={"middleware": [Middleware(_WithPolicy), Middleware(_Gate, folder)]},
    )
    return page, url


class _WithPolicy:
    """ASGI middleware that tells browsers to ask no other host."""

    def __init__(self, app: Callable) -> None:
        self._app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def send_with_policy(message: dict) -> None:
            if message["type"] == "http.response.start":
                header = (b"content-security-policy", _POLICY.encode())
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


class _Gate:
    """ASGI middleware that admits only the requests of the page, with files of ``folder``.

    Gradio fetches a URL, and opens any path, that a client sends in place of an upload.
    """

    def __init__(self, app: Callable, folder: Path) -> None:
        self._app = app
        self._folder = folder

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        from starlette.responses import JSONResponse

        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] == "http":
            try:
                receive = await self._checked(scope["method"], scope["path"], receive)
            except _RefusedError as error:
                answer = JSONResponse({"detail": error.detail}, error.status)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _checked(self, method: str, path: str, receive: Callable) -> Callable:
        """Return the ``receive`` of a request that is admitted."""
        if method == "POST" and path == _EVENT:
            return await self._checked_event(receive)
        readable = method in ("GET", "HEAD") and _READ.fullmatch(path)
        if not readable and (method, path) != ("POST", _UPLOAD):
            raise _RefusedError(404, "Not Found")
        if path.startswith(_FILE):
            try:
                uploaded(path[len(_FILE) :], self._folder)
            except DataError as error:
                raise _RefusedError(403, str(error)) from error
        return receive

    async def _checked_event(self, receive: Callable) -> Callable:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)  # absent where the client is gone
            if len(body) > _MAX_EVENT:
                raise _RefusedError(413, f"an event has at most {_MAX_EVENT} bytes")
        try:
            # Written again, so that Gradio reads exactly what was checked.
            body = json.dumps(_with_uploads(json.loads(body), self._folder)).encode()
        except DataError as error:
            raise _RefusedError(400, str(error)) from error
        except (ValueError, RecursionError) as error:
            raise _RefusedError(400, "the event is not JSON") from error
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_checked() -> dict:
            return messages.pop() if messages else await receive()

        return receive_checked


class _RefusedError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def _with_uploads(value: object, folder: Path) -> object:
    """Return JSON in which all that describes a file is the path of an upload.

    Raises:
        DataError: If a path is not one of ``folder``.
    """
    if isinstance(value, list):
        return [_with_uploads(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("path") is not None:
        return {"path": uploaded(value["path"], folder), "meta": {"_type": "gradio.FileData"}}
    return {key: _with_uploads(item, folder) for key, item in value.items()}


def _build_page(gradio, model: Model, folder: Path) -> gradio.Blocks:
    samples = write_samples(folder)

    def segment(path: str | None, engine: str) -> tuple[np.ndarray | None, str]:
        if path is None:
            return None, ""
        try:
            return model.segment(uploaded(path, folder), engine)
        except LitesegError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    # Gradio's own opens the file, and tells of its internals where it cannot. Replaced in the
    # class, as sessions make their own components; a subclass would have Gradio write a .pyi here.
    gradio.Image.preprocess = lambda self, payload: payload.path if payload else None
    name = model.exported.model.parent.resolve().name
    with gradio.Blocks(
        title=f"PP-LiteSeg: {name}", analytics_enabled=False, delete_cache=(600, 3600)
    ) as page:
        gradio.Markdown(f"# PP-LiteSeg\nThe exported model `{name}`, on this machine.")
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(
                    label="Picture",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    buttons=["fullscreen"],
                )
                engine = gradio.Radio(model.engines, value=model.engines[0], label="Runtime")
                # Not gradio.Examples, whose event skips the queue.
                scenes = gradio.Dataset(
                    label="Drawn scenes",
                    components=[picture],
                    samples=[[path] for path in samples],
                    type="index",
                )
            with gradio.Column():
                # Without "share", which sends the picture to a host.
                result = gradio.Image(
                    label="Segmented", interactive=False, buttons=["download", "fullscreen"]
                )
                shares = gradio.HTML(padding=False)
        scenes.click(lambda number: samples[number], scenes, picture, show_progress="hidden")
        gradio.on(
            [picture.change, engine.change], segment, [picture, engine], [result, shares],
            api_name="segment", concurrency_limit=1,
        )  # fmt: skip
    return page
