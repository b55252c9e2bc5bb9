"""What a server does with a request, whichever protocol it came by."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import cv2
import numpy as np

from liteseg_plugin import __version__
from liteseg_plugin.errors import DataError, TooLargeError
from liteseg_plugin.inference.segmentation import Segmentation, encode_label_map
from liteseg_plugin.serving.batching import Batcher, Limits
from liteseg_plugin.serving.metrics import Metrics
from liteseg_plugin.serving.model import VERSION, ServedModel
from liteseg_plugin.serving.refusal import RefusedError
from liteseg_plugin.serving.uploads import read_upload
from liteseg_plugin.system.parallel import usable_cpus

ANSWERS = ("labels", "overlay", "polygons")
"""What an image is answered by: label map (PNG), overlay (PNG), outlines of regions (JSON)."""
MAX_CHANGES = 200_000
"""Changes of class along the rows of a label map whose outlines are answered: a map of noise has
millions of outlines, which take minutes and gigabytes."""

_Result = TypeVar("_Result")
_CLIENT_GONE = 499
_log = logging.getLogger(__name__)


class Service:
    """Models, and what answers requests for them.

    Args:
        models: Each with a name of its own.
        engines: Engines of each model.
        limits: What it takes.
        token: What clients must present; None admits all.

    Attributes:
        draining: Whether it ends: requests in flight are answered, further ones are refused.
    """

    def __init__(
        self, models: Sequence[ServedModel], engines: int, limits: Limits, token: str | None
    ) -> None:
        self.limits = limits
        self.draining = False
        self.held = 0
        self._models = {model.name: model for model in models}
        self.metrics = Metrics(self._models, lambda: self._batcher.waiting(), lambda: self.held)
        self._token = token
        self._batcher = Batcher(engines, limits, self.metrics.ran)
        self._pool = ThreadPoolExecutor(usable_cpus(), "images")

    def close(self) -> None:
        """Run what waits, and end."""
        self._batcher.close()
        self._pool.shutdown()

    def authorize(self, header: str | None) -> None:
        """Check the ``Authorization`` of a request.

        Raises:
            RefusedError: 401 without the token.
        """
        if self._token is None:
            return
        wanted = f"Bearer {self._token}".encode()
        if not hmac.compare_digest((header or "").encode(), wanted):
            raise RefusedError(401, "a token is required: Authorization: Bearer TOKEN")

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's description of the server."""
        extensions = ["binary_tensor_data"]
        return {"name": "liteseg", "version": __version__, "extensions": extensions}

    def model(self, name: str, version: str = "") -> ServedModel:
        """Return a model.

        Raises:
            RefusedError: 404 if there is no such model, or version of it.
        """
        if name not in self._models:
            known = ", ".join(self._models)
            raise RefusedError(404, f"unknown model {name!r:.200}; this server has {known}")
        if version not in ("", VERSION):
            raise RefusedError(404, f"unknown version {version!r:.200} of {name}: it has {VERSION}")
        return self._models[name]

    @contextlib.contextmanager
    def admitted(self, protocol: str, name: str) -> Iterator[None]:
        """Admit and count a request for a model; what it raises becomes an error with a status.

        Raises:
            RefusedError: 503 if the server is full or ends, 400 and 413 for input that a model does
                not take, 500 for errors of the server.
        """
        started, status = time.monotonic(), 200
        self.held += 1
        try:
            if self.draining:
                raise RefusedError(503, "the server is ending")
            if self.held > self.limits.requests:
                raise RefusedError(503, f"the server holds {self.limits.requests} requests already")
            yield
        except RefusedError as error:
            status = error.status
            raise
        except (asyncio.CancelledError, GeneratorExit):
            status = _CLIENT_GONE
            raise
        except DataError as error:
            status = 413 if isinstance(error, TooLargeError) else 400
            raise RefusedError(status, str(error)) from error
        except Exception as error:
            status = 500
            _log.exception("a request failed")
            raise RefusedError(500, "the server failed; its log says why") from error
        finally:
            self.held -= 1
            known = name if name in self._models else ""
            self.metrics.answered(known, protocol, status, time.monotonic() - started)

    async def within(self, answer: Awaitable[_Result], seconds: float | None = None) -> _Result:
        """Await an answer for as long as a request may take, or the client waits.

        Raises:
            RefusedError: 504 if it takes longer.
        """
        most = min(self.limits.seconds, seconds or self.limits.seconds)
        try:
            return await asyncio.wait_for(answer, most)
        except asyncio.TimeoutError:
            raise RefusedError(504, f"no result within {most:g} seconds") from None

    async def in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run a function beside the server's loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def infer(self, model: ServedModel, x: np.ndarray) -> np.ndarray:
        """Return the graph's output for a batch (N, 3, H, W).

        Raises:
            DataError: If the export does not take such a batch.
            RefusedError: 503 if too much waits.
        """
        model.check(x)
        return await asyncio.wrap_future(self._batcher.submit(model, x))

    async def segment(self, model: ServedModel, content: bytes, answer: str) -> bytes:
        """Segment an image file; return a PNG or JSON, as ``answer``, one of ``ANSWERS``, says.

        Raises:
            DataError: If it is not an image, or one that the export does not take.
            RefusedError: 503 if too much waits.
        """

        def prepare() -> tuple[np.ndarray, np.ndarray]:
            image = read_upload(io.BytesIO(content))
            return image, model.predictor.preprocess(image)

        image, x = await self.in_thread(prepare)
        output = await self.infer(model, x)
        return await self.in_thread(_answer, model, image, output, answer)


def _answer(model: ServedModel, image: np.ndarray, output: np.ndarray, answer: str) -> bytes:
    height, width = image.shape[:2]
    labels = model.predictor.postprocess(output, (height, width))
    classes = model.predictor.classes
    segmentation = Segmentation(image, labels, classes)
    if answer == "labels":
        return encode_label_map(labels, classes)
    if answer == "overlay":
        return cv2.imencode(".png", segmentation.overlay())[1].tobytes()
    changes = np.count_nonzero(labels[:, 1:] != labels[:, :-1])
    if changes > MAX_CHANGES:
        raise TooLargeError(
            f"the label map changes {changes} times along its rows, at most {MAX_CHANGES} for "
            "polygons; ask for labels"
        )
    polygons = [outline.to_json() for outline in segmentation.polygons()]
    return json.dumps({"width": width, "height": height, "polygons": polygons}).encode()
