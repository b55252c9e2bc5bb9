"""The Open Inference Protocol over HTTP, and what takes image files."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from liteseg_plugin.serving import tensors
from liteseg_plugin.serving.refusal import RefusedError
from liteseg_plugin.serving.service import ANSWERS, Service

_Handler = Callable[[Request], Awaitable[Response]]
_MODEL = "/v2/models/{name}"
_VERSION = _MODEL + "/versions/{version}"
_MORE = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}
_LINGER_S = 5.0


def build_app(service: Service) -> Starlette:
    """Return the ASGI application of a service."""

    def guarded(handler: _Handler) -> _Handler:
        async def answer(request: Request) -> Response:
            try:
                service.authorize(request.headers.get("authorization"))
                return await handler(request)
            except RefusedError as error:
                more = _MORE.get(error.status)
                return JSONResponse({"error": error.detail}, error.status, more)

        return answer

    def admitted(act: Callable[[Request, Any, bytes], Awaitable[Response]]) -> _Handler:
        """Return the handler of requests with a body."""

        async def answer(request: Request) -> Response:
            name, version = request.path_params["name"], request.path_params.get("version", "")
            body = _Body(request)
            try:
                with service.admitted("http", name):
                    model = service.model(name, version)
                    content = await body.read(service.limits.body, service.limits.seconds)
                    return await service.within(act(request, model, content))
            except RefusedError:
                await body.discard(service.limits.body)  # so that the client reads the answer
                raise

        return answer

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        status, more = (503, _MORE[503]) if service.draining else (200, {})
        return JSONResponse({"ready": not service.draining}, status, more)

    async def metadata(request: Request) -> Response:
        return JSONResponse(service.metadata())

    async def model_metadata(request: Request) -> Response:
        return JSONResponse(service.model(**request.path_params).metadata())

    async def model_ready(request: Request) -> Response:
        model = service.model(**request.path_params)
        status = 503 if service.draining else 200
        return JSONResponse({"name": model.name, "ready": status == 200}, status)

    async def infer(request: Request, model: Any, body: bytes) -> Response:
        header = request.headers.get("inference-header-content-length")
        asked = await service.in_thread(tensors.read_request, body, header, model.output)
        output = await service.infer(model, asked.x)
        content, headers = await service.in_thread(
            tensors.write_answer, asked, model.name, model.output, output
        )
        return Response(content, headers=headers)

    async def segment(request: Request, model: Any, body: bytes) -> Response:
        answer = request.query_params.get("answer", ANSWERS[0])
        if answer not in ANSWERS:
            raise RefusedError(400, f"answer is {answer!r:.200}; choose one of {ANSWERS}")
        content = await service.segment(model, await _file_of(request, body), answer)
        media = "application/json" if answer == "polygons" else "image/png"
        return Response(content, media_type=media)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    routes = [
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2", guarded(metadata)),
        Route("/metrics", guarded(metrics)),
    ]
    for path in (_MODEL, _VERSION):
        routes += [
            Route(path, guarded(model_metadata)),
            Route(f"{path}/ready", guarded(model_ready)),
            Route(f"{path}/infer", guarded(admitted(infer)), methods=["POST"]),
            Route(f"{path}/segment", guarded(admitted(segment)), methods=["POST"]),
        ]
    return Starlette(routes=routes)


class _Body:
    """The body of a request, whose size is bounded while it arrives."""

    def __init__(self, request: Request) -> None:
        self._receive, self._headers = request.receive, request.headers
        self._more = True

    async def read(self, most: int, seconds: float) -> bytes:
        """Return the body.

        Raises:
            RefusedError: 413 if it has more than ``most`` bytes, 408 if it takes longer than
                ``seconds``, 400 if the client is gone, 415 if it is compressed.
        """
        if self._headers.get("content-encoding", "identity") != "identity":
            raise RefusedError(415, "the body is compressed; send it as it is")
        length = self._headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > most:
            raise RefusedError(413, f"the body has {length:.20} bytes, at most {most}")
        try:
            return await asyncio.wait_for(self._joined(most), seconds)
        except asyncio.TimeoutError:
            self._more = False  # the client has had its time
            raise RefusedError(408, f"the body took longer than {seconds:g} seconds") from None

    async def _joined(self, most: int) -> bytes:
        return b"".join([part async for part in self._parts(most)])

    async def _parts(self, most: int) -> AsyncIterator[bytes]:
        size = 0
        while self._more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._more = False
                raise RefusedError(400, "the client ended the connection")
            self._more = message.get("more_body", False)
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise RefusedError(413, f"the body has more than {most} bytes")
            yield part

    async def discard(self, most: int) -> None:
        """Let the client send the rest, as far as it is not more than ``most`` bytes."""

        async def rest() -> None:
            async for _ in self._parts(most):
                pass

        with contextlib.suppress(asyncio.TimeoutError, RefusedError):
            await asyncio.wait_for(rest(), _LINGER_S)


class _InMemory(MultiPartParser):
    """Never puts a file on the disk: the body, which is bounded, is in memory already."""

    spool_max_size = max_file_size = 1 << 40


async def _file_of(request: Request, body: bytes) -> bytes:
    """Return the image file of a request: the body, or the one file of a form; else refuse it."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return body

    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await _InMemory(request.headers, stream(), max_files=1, max_fields=8).parse()  # type: ignore[arg-type]
    except Exception as error:  # a hostile form may raise anything
        raise RefusedError(400, f"the form cannot be read: {error}") from error
    files = [value for value in form.values() if not isinstance(value, str)]
    if len(files) != 1:
        raise RefusedError(400, "the form must have one file")
    return await files[0].read()
