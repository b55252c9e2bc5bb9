"""Tensors of the Open Inference Protocol, version 2, in JSON and in its binary extension."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from liteseg_plugin.exported import INPUT_NAME
from liteseg_plugin.serving.refusal import RefusedError
from liteseg_plugin.serving.uploads import MAX_PIXELS
from liteseg_plugin.system.pixels import check_pixels

DATATYPES = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}
MAX_JSON = 1 << 25
"""Bytes of JSON; numbers in text take a multiple of their memory to read and to write."""
_CHARACTERS = {"INT32": 4, "FP32": 20}
"""Of a number in JSON, with its comma."""


@dataclass(frozen=True)
class InferRequest:
    """A request for the output of a graph.

    Attributes:
        x: The input, (N, 3, H, W) of float32.
        id: What the client called it.
        binary: Whether the answer's tensor is to be binary.
    """

    x: np.ndarray
    id: str = ""
    binary: bool = False


def read_request(body: bytes, header_bytes: str | None, output: str) -> InferRequest:
    """Read the body of an HTTP request.

    Args:
        body: JSON, and behind it binary data.
        header_bytes: The header ``Inference-Header-Content-Length``: bytes of JSON.
        output: Name of the model's output.

    Raises:
        RefusedError: 400 if it is not such a request, 413 if it is too large.
        TooLargeError: If the tensor has too many pixels.
    """
    end = len(body)
    if header_bytes is not None:
        if not (header_bytes.isascii() and header_bytes.isdigit()):
            _refuse(f"Inference-Header-Content-Length is {header_bytes!r}, not a number")
        end = int(header_bytes[:20])
        if end > len(body):
            _refuse(f"Inference-Header-Content-Length is {end}, the body has {len(body)} bytes")
    if end > MAX_JSON:
        raise RefusedError(413, f"{end} bytes of JSON, at most {MAX_JSON}: send binary data")
    try:
        document = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the request is not JSON: {error}") from error
    request = _fields(document, "the request")
    inputs, outputs = request.get("inputs"), request.get("outputs", [])
    if not isinstance(inputs, list) or len(inputs) != 1:
        _refuse(f"the request must have one input, {INPUT_NAME}")
    entry = _fields(inputs[0], "the input")
    size = _parameters(entry, "input").get("binary_data_size")
    if size is not None and size != len(body) - end:
        _refuse(f"binary_data_size is {size!r}, the body has {len(body) - end} bytes of it")
    if size is None and end != len(body):
        _refuse(f"{len(body) - end} bytes follow the JSON, but no input has binary_data_size")
    data = entry.get("data") if size is None else memoryview(body)[end:]
    x = read_tensor(entry.get("name"), entry.get("datatype"), entry.get("shape"), data)
    binary = _parameters(request, "request").get("binary_data_output", False)
    if not isinstance(outputs, list):
        _refuse("outputs must be a list")
    for asked in outputs:
        asked = _fields(asked, "the output")
        check_output(asked.get("name"), output)
        binary = _parameters(asked, "output").get("binary_data", binary)
    return InferRequest(x, str(request.get("id", "")), binary is True)


def read_tensor(name: object, datatype: object, shape: object, data: object) -> np.ndarray:
    """Return an input, (N, 3, H, W) of float32, of what a client gives.

    Its ``data`` are bytes, or numbers in lists.

    Raises:
        RefusedError: 400 if it is not such an input.
        TooLargeError: If it has too many pixels.
    """
    if name != INPUT_NAME or datatype != "FP32":
        _refuse(f"the input must be {INPUT_NAME} of FP32, got {name!r} of {datatype!r}")
    if (
        not isinstance(shape, Sequence)
        or len(shape) != 4
        or not all(type(n) is int and 1 <= n < 1 << 31 for n in shape)
    ):
        _refuse(f"the shape of {INPUT_NAME} must be N x C x H x W, got {shape!r:.200}")
    check_pixels(f"the input {INPUT_NAME}", shape[3], shape[2] * shape[0], MAX_PIXELS)
    wanted = math.prod(shape)
    try:
        if isinstance(data, (bytes, memoryview)):
            values = np.frombuffer(data, DATATYPES["FP32"])
        else:
            values = np.asarray(data)
            if values.dtype.kind not in "iuf":
                _refuse(f"the data of {INPUT_NAME} must be numbers")
            values = values.astype(np.float32).ravel()
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RefusedError(
            400, f"the data of {INPUT_NAME} are not numbers of FP32: {error}"
        ) from error
    if values.size != wanted:
        _refuse(f"the shape of {INPUT_NAME} has {wanted} numbers, the data have {values.size}")
    return np.require(values.reshape(shape), np.float32, ["C", "A", "W"])  # as OpenVINO takes it


def check_output(name: object, wanted: str) -> None:
    """Refuse a name that is not of the model's output.

    Raises:
        RefusedError: 400 if it is not.
    """
    if name != wanted:
        _refuse(f"the output is {wanted}, got {name!r:.200}")


def datatype_of(output: np.ndarray) -> str:
    """Return the protocol's name of an output's type."""
    return "INT32" if output.dtype.kind in "iu" else "FP32"


def raw_bytes(output: np.ndarray) -> bytes:
    """Return an output as the protocol's binary data."""
    return output.astype(DATATYPES[datatype_of(output)], copy=False).tobytes()


def write_answer(
    request: InferRequest, model: str, name: str, output: np.ndarray
) -> tuple[bytes, dict[str, str]]:
    """Return the body of the answer to a request over HTTP, and its headers.

    ``model`` and ``name`` are the names of the model and of its output.

    Raises:
        RefusedError: 413 if it is too large for JSON.
    """
    tensor: dict[str, Any] = {
        "name": name,
        "shape": list(output.shape),
        "datatype": datatype_of(output),
    }
    raw = b""
    if request.binary:
        raw = raw_bytes(output)
        tensor["parameters"] = {"binary_data_size": len(raw)}
    else:
        if output.size * _CHARACTERS[tensor["datatype"]] > MAX_JSON:
            raise RefusedError(
                413, f"{output.size} numbers are too many for JSON: ask for binary data"
            )
        tensor["data"] = output.ravel().tolist()
    document = {"model_name": model, "model_version": "1", "id": request.id, "outputs": [tensor]}
    text = json.dumps(document).encode()
    if not request.binary:
        return text, {"content-type": "application/json"}
    return text + raw, {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(text)),
    }


def _parameters(holder: dict[str, Any], what: str) -> dict[str, Any]:
    """Return the parameters of a request or of a tensor; refuse what this server does not have."""
    parameters = _fields(holder.get("parameters") or {}, "parameters")
    for key in ("shared_memory_region", "classification", "sequence_id"):
        if parameters.get(key):
            _refuse(f"the {what} has the parameter {key}, which this server does not support")
    return parameters


def _fields(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"{what} must be a JSON object")
    return value


def _refuse(detail: str) -> NoReturn:
    raise RefusedError(400, detail)
