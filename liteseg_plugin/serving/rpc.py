"""The Open Inference Protocol over gRPC."""

# ruff: noqa: N802 - the protocol names the methods
from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from liteseg_plugin.exported import INPUT_NAME
from liteseg_plugin.serving import tensors
from liteseg_plugin.serving.model import VERSION
from liteseg_plugin.serving.refusal import RefusedError
from liteseg_plugin.serving.service import Service

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_RETRY = (("grpc-retry-pushback-ms", "1000"),)
_PROBES = 32
"""Calls that may come beside the requests that the service admits."""


def create_server(service: Service) -> grpc.aio.Server:
    """Return the server of a service; the caller adds a port, and starts it."""
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", service.limits.body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a port that another process listens on is an error
        ),
        maximum_concurrent_rpcs=service.limits.requests + _PROBES,
    )
    add_GRPCInferenceServiceServicer_to_server(_Servicer(service), server)
    return server


def _guarded(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return a method that demands the token, and ends a call that is refused."""

    @functools.wraps(method)
    async def answer(self: _Servicer, request: Any, context: Any) -> Any:
        try:
            metadata = {key: value for key, value in context.invocation_metadata() or ()}
            self._service.authorize(metadata.get("authorization"))
            return await method(self, request, context)
        except RefusedError as error:
            if error.status == 503:
                context.set_trailing_metadata(_RETRY)
            await context.abort(_CODES.get(error.status, grpc.StatusCode.INTERNAL), error.detail)

    return answer


class _Servicer(GRPCInferenceServiceServicer):
    """Answers what the protocol has; the rest of Triton's methods are unimplemented."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ServerLive(self, request: Any, context: Any) -> Any:
        """Tell that the process answers."""
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """Tell whether requests are admitted."""
        return messages.ServerReadyResponse(ready=not self._service.draining)

    @_guarded
    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Tell whether requests for a model are admitted."""
        self._service.model(request.name, request.version)
        return messages.ModelReadyResponse(ready=not self._service.draining)

    @_guarded
    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """Describe the server."""
        return messages.ServerMetadataResponse(**self._service.metadata())

    @_guarded
    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """Describe a model."""
        model = self._service.model(request.name, request.version)
        return messages.ModelMetadataResponse(**model.metadata())

    @_guarded
    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Run a model."""
        service = self._service
        with service.admitted("grpc", request.model_name):
            model = service.model(request.model_name, request.model_version)
            x = _read_input(request)
            for asked in request.outputs:
                tensors.check_output(asked.name, model.output)
            output = await service.within(service.infer(model, x), context.time_remaining())
        answer = messages.ModelInferResponse(
            model_name=model.name, model_version=VERSION, id=request.id
        )
        answer.outputs.add(
            name=model.output, datatype=tensors.datatype_of(output), shape=output.shape
        )
        answer.raw_output_contents.append(tensors.raw_bytes(output))
        return answer


def _read_input(request: Any) -> np.ndarray:
    """Return the input of a request; raise what :func:`tensors.read_tensor` does."""
    if len(request.inputs) != 1:
        raise RefusedError(400, f"the request must have one input, {INPUT_NAME}")
    [entry] = request.inputs
    if "shared_memory_region" in entry.parameters:
        raise RefusedError(400, "shared memory is not supported")
    if len(request.raw_input_contents) > 1:
        raise RefusedError(400, f"{len(request.raw_input_contents)} raw contents for one input")
    raw = request.raw_input_contents[0] if request.raw_input_contents else None
    data = entry.contents.fp32_contents if raw is None else raw
    return tensors.read_tensor(entry.name, entry.datatype, list(entry.shape), data)
