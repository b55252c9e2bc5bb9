"""ASGI middleware in front of Gradio: it admits what the page asks for, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from liteseg_plugin.errors import DataError
from liteseg_plugin.serving.refusal import RefusedError
from liteseg_plugin.serving.uploads import uploaded

# The page contacts only its own server, whatever Gradio includes.
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


class WithPolicy:
    """ASGI middleware that forbids browsers to contact other hosts."""

    def __init__(self, app: Callable) -> None:
        self._app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answer a request, with the policy in the header."""

        async def send_with_policy(message: dict) -> None:
            if message["type"] == "http.response.start":
                header = (b"content-security-policy", _POLICY.encode())
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


class Gate:
    """ASGI middleware that admits only the requests of the page, with files of ``folder``.

    Gradio fetches a URL, and opens any path, that a client sends in place of an upload.
    """

    def __init__(self, app: Callable, folder: Path) -> None:
        self._app = app
        self._folder = folder

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answer a request: by Gradio if it is admitted, else by an error."""
        from starlette.responses import JSONResponse

        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] == "http":
            try:
                receive = await self._checked(scope["method"], scope["path"], receive)
            except RefusedError as error:
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
            raise RefusedError(404, "Not Found")
        if path.startswith(_FILE):
            try:
                uploaded(path[len(_FILE) :], self._folder)
            except DataError as error:
                raise RefusedError(403, str(error)) from error
        return receive

    async def _checked_event(self, receive: Callable) -> Callable:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)  # absent if the client is gone
            if len(body) > _MAX_EVENT:
                raise RefusedError(413, f"an event has at most {_MAX_EVENT} bytes")
        try:
            # Written again, so that Gradio reads exactly what was checked.
            body = json.dumps(_with_uploads(json.loads(body), self._folder)).encode()
        except DataError as error:
            raise RefusedError(400, str(error)) from error
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, "the event is not JSON") from error
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_checked() -> dict:
            return messages.pop() if messages else await receive()

        return receive_checked


def _with_uploads(value: object, folder: Path) -> object:
    """Return JSON in which every file is the path of an upload.

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
