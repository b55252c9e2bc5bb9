"""A local page that shows what an exported model makes of a picture; ``pip install '.[demo]'``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import cv2
import numpy as np
from PIL import Image

from liteseg_plugin.datasets import toy_street
from liteseg_plugin.datasets.validation import read_image
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

_SAMPLES = 4
_SAMPLE_WH = (640, 480)
# The page asks nobody but its own server, whatever Gradio comes with.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


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
        self.exported = exported = ExportedModel(path)

        def load(engine: str) -> Predictor:
            runtime, _, precision = engine.partition(" ")
            return Predictor(exported, runtime, device, threads, precision or "fp32")

        self._load = lru_cache(maxsize=None)(load)
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


def read_upload(path: str) -> np.ndarray:
    """Read a picture that anybody may have sent.

    Returns:
        (H, W, 3) of uint8, BGR; 16 bits become 8, grey becomes three channels, alpha is dropped.

    Raises:
        DataError: If it is no picture, cut short, or larger than the page takes; known from its
            header, before anything is decoded.
    """
    name = Path(path).name
    try:
        with Image.open(path) as header:
            width, height = header.size
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} is too large: {error}") from error
    except Exception as error:  # a hostile file may raise anything
        raise DataError(f"cannot read image {name}: it is no image, or is cut short") from error
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(
            f"{name} is too large: {width} x {height} pixels; this page takes up to {MAX_SIDE} a "
            f"side and {MAX_PIXELS / 1e6:.0f} million in all; larger ones go to liteseg infer"
        )
    try:
        return read_image(path)
    except DataError as error:
        raise DataError(str(error).replace(path, name)) from error


def class_shares(label: np.ndarray, classes: list[dict]) -> list[dict]:
    """Return name, CSS colour and share in 0..1 of the classes that occur, largest first."""
    found, counts = np.unique(label, return_counts=True)
    shares = [
        {
            "name": classes[index]["name"],
            "color": "rgb({}, {}, {})".format(*classes[index]["color"]),
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
    page = _build_page(gradio, model, write_samples(folder))
    # So that whoever calls can clean up.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
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
        app_kwargs={"middleware": [Middleware(_WithPolicy)]},
    )
    print(f"{url} (Ctrl-C ends)", flush=True)
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)


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


def _build_page(gradio, model: Model, samples: list[str]) -> gradio.Blocks:
    def segment(path: str | None, engine: str) -> tuple[np.ndarray | None, str]:
        if path is None:
            return None, ""
        try:
            return model.segment(path, engine)
        except LitesegError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    # Gradio's own opens the file, and tells of its internals where it cannot. Replaced in the
    # class, as sessions make their own components; a subclass would have Gradio write a .pyi here.
    gradio.Image.preprocess = lambda self, payload: payload.path if payload else None
    folder = model.exported.model.parent.resolve().name
    with gradio.Blocks(
        title=f"PP-LiteSeg: {folder}", analytics_enabled=False, delete_cache=(600, 3600)
    ) as page:
        gradio.Markdown(f"# PP-LiteSeg\nThe exported model `{folder}`, on this machine.")
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
                gradio.Examples(samples, picture, label="Drawn scenes", cache_examples=False)
            with gradio.Column():
                # Without "share", which sends the picture to a host.
                result = gradio.Image(
                    label="Segmented", interactive=False, buttons=["download", "fullscreen"]
                )
                shares = gradio.HTML(padding=False)
        gradio.on(
            [picture.change, engine.change], segment, [picture, engine], [result, shares],
            api_name="segment", concurrency_limit=1,
        )  # fmt: skip
    return page
