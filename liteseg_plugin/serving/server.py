"""A server of exported models; ``pip install '.[serve]'``."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from liteseg_plugin.errors import LitesegError
from liteseg_plugin.exported import ExportedModel

if TYPE_CHECKING:
    from liteseg_plugin.serving.service import Service

TOKEN_VARIABLE = "LITESEG_TOKEN"
_CONNECTIONS = 512


def read_exports(paths: Sequence[str | os.PathLike]) -> list[ExportedModel]:
    """Read exported folders whose names differ.

    Raises:
        ExportError: If a folder has no complete export.
        LitesegError: If two have one name.
    """
    exports = [ExportedModel.read(path) for path in paths]
    folders: dict[str, Path] = {}
    for exported in exports:
        folder = exported.model.parent.resolve()
        if folder.name in folders:
            raise LitesegError(
                f"{folders[folder.name]} and {folder} have one name, which is that of the model; "
                "rename one"
            )
        folders[folder.name] = folder
    return exports


def read_token(file: str | os.PathLike | None) -> str | None:
    """Return the token that clients must present, from a file or else from the environment.

    Raises:
        LitesegError: If it is empty, or not one line of printable ASCII.
        OSError: If the file cannot be read.
    """
    if file is not None:
        text, source = Path(file).read_text(encoding="utf-8", errors="replace"), str(file)
    elif TOKEN_VARIABLE in os.environ:
        text, source = os.environ[TOKEN_VARIABLE], f"${TOKEN_VARIABLE}"
    else:
        return None
    token = text.strip()
    if not (token and token.isascii() and token.isprintable()):
        raise LitesegError(f"{source} must hold a token: one line of printable ASCII")
    return token


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def require_packages() -> None:
    """Import the packages of the extra.

    Raises:
        LitesegError: If one is missing.
    """
    try:
        import grpc  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import tritonclient.grpc  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise LitesegError(
            f"{error.name} is not installed: pip install 'liteseg_plugin[serve]'"
        ) from None


class Server:
    """Both protocols over one service.

    Attributes:
        http_port: Of HTTP; where 0 was given, the free one that it took.
        grpc_port: Of gRPC; likewise, once it runs.

    Raises:
        LitesegError: If the address cannot be listened on.
    """

    def __init__(self, service: Service, host: str, http_port: int, grpc_port: int) -> None:
        self._service, self._host = service, host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = (host, http_port)
        try:
            self._socket = socket.create_server(address, family=family, backlog=_CONNECTIONS)
        except (OSError, OverflowError) as error:
            raise _taken(host, http_port, "--http_port", f": {error}") from None
        self.http_port = self._socket.getsockname()[1]
        self.grpc_port = grpc_port

    def run(self, started: Callable[[], None]) -> None:
        """Serve until a signal, or :meth:`end`; then answer what is in flight.

        ``started`` is called when requests are admitted.

        Raises:
            LitesegError: If the address cannot be listened on.
        """
        asyncio.run(self._run(started))

    def end(self) -> None:
        """End, unless it has ended; threads may call it."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended.set)

    async def _run(self, started: Callable[[], None]) -> None:
        import uvicorn

        from liteseg_plugin.serving import rpc
        from liteseg_plugin.serving.http import build_app

        class Http(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield  # they end both protocols

        service, seconds = self._service, self._service.limits.seconds
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        config = uvicorn.Config(
            build_app(service),
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            limit_concurrency=max(_CONNECTIONS, 4 * service.limits.requests),
            timeout_graceful_shutdown=max(1, round(seconds)),
        )
        http, grpc_server = Http(config), rpc.create_server(service)
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self.grpc_port = grpc_server.add_insecure_port(f"{host}:{self.grpc_port}")
        except RuntimeError:
            self._socket.close()
            raise _taken(self._host, self.grpc_port, "--grpc_port") from None
        await grpc_server.start()
        http_task = asyncio.create_task(http.serve(sockets=[self._socket]))
        while not http.started and not http_task.done():
            await asyncio.sleep(0.01)
        with self._ended_by_signals():
            started()
            await self._ended.wait()
        service.draining = True
        # The ports stay open meanwhile, so that probes see that the server is not ready.
        until = self._loop.time() + 2 * seconds
        while service.held and self._loop.time() < until:
            await asyncio.sleep(0.02)
        http.should_exit = True
        await grpc_server.stop(seconds)
        await http_task
        await self._loop.run_in_executor(None, service.close)

    @contextlib.contextmanager
    def _ended_by_signals(self) -> Iterator[None]:
        """Let the first signal end the server; a second one ends the process as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not None]
        for number in numbers:
            self._loop.add_signal_handler(number, self._ended.set)
        try:
            yield
        finally:
            for number in numbers:
                self._loop.remove_signal_handler(number)


def _taken(host: str, port: int, flag: str, why: str = "; give another") -> LitesegError:
    return LitesegError(f"cannot listen on port {port} of {host} ({flag}){why}")
