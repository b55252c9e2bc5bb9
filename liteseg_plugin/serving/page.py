"""The Gradio page of the demo, and the server that shows it; ``pip install '.[demo]'``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from liteseg_plugin.datasets import toy_street
from liteseg_plugin.errors import LitesegError
from liteseg_plugin.serving.demo import Model
from liteseg_plugin.serving.gate import Gate, WithPolicy
from liteseg_plugin.serving.uploads import uploaded
from liteseg_plugin.visualization.overlay import write_image

if TYPE_CHECKING:
    import gradio

MAX_FILE_SIZE = "64mb"
_MAX_SESSIONS = 100  # Gradio keeps 25 kB for each, by default of 10,000; the page needs none
_SAMPLES = 4
_SAMPLE_WH = (640, 480)


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
        folder: For uploads and samples; the caller removes it.
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
    """Raise an exception on signals, so that the caller can delete uploads."""
    present = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))  # Windows: no SIGHUP
    numbers = [n for n in present if n is not None and signal.getsignal(n) != signal.SIG_IGN]

    def end(number: int, frame: object) -> None:
        for each in numbers:  # a second signal would interrupt the deletion
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in numbers:  # nohup ignores SIGHUP; keep that
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
        GRADIO_ANALYTICS_ENABLED="False", GRADIO_ANALYTICS_MAX_EVENTS="1",
        GRADIO_TEMP_DIR=str(folder), HF_HUB_OFFLINE="1", no_proxy="*",
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
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            show_error=True,
            max_file_size=MAX_FILE_SIZE,
            state_session_capacity=_MAX_SESSIONS,
            ssr_mode=False,
            run_history=False,
            footer_links=[],
            prevent_thread_lock=True,
            app_kwargs={"middleware": [Middleware(WithPolicy), Middleware(Gate, folder)]},
        )
    except OSError as error:
        if "empty port" not in str(error):
            raise
        taken = f"port {port}" if port else "each port from 7860 on"
        raise LitesegError(f"{taken} of {host} is in use; give another by --server_port") from None
    return page, url


def _build_page(gradio, model: Model, folder: Path) -> gradio.Blocks:
    samples = write_samples(folder)

    def segment(path: str | None, engine: str) -> tuple[str | None, str]:
        if path is None:
            return None, ""
        try:
            picture, shares = model.segment(uploaded(path, folder), engine)
        except LitesegError as error:
            raise gradio.Error(str(error), print_exception=False) from error
        # Of an array, Gradio names the file by its content, and writes it again for each equal
        # answer, also while a client downloads it. This file is deleted as an upload is.
        answer = folder / f"segmented_{uuid.uuid4().hex}.jpg"
        write_image(answer, picture)
        return str(answer), shares

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
