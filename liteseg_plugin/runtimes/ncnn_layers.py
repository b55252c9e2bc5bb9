"""The layers with weights in ncnn's two files: a graph as text, and the weights in its order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from liteseg_plugin.errors import ExportError, printable

FLOAT32_TAG = (0).to_bytes(4, "little")
INT8_TAG = (0x000D4B38).to_bytes(4, "little")
"""What begins the weights of a layer."""
INT8_KEY = "8"
"""Setting of a layer in the graph that says whether its weights are in INT8."""

_MAGIC = "7767517"
# Settings: number of outputs, whether they have biases, number of weights.
_KEYS = {"Convolution": "056", "ConvolutionDepthWise": "056", "InnerProduct": "012"}


@dataclass(frozen=True)
class NcnnLayer:
    """A convolution, or a product of a matrix and a vector.

    Attributes:
        line: Index of its line in the graph.
        name: Its name there.
        input: Name of the blob that it reads.
        weight_shape: (C_out, C_in, h, w).
        scales: Number of scales that its weights have in INT8: one a channel, or a group.
        winograd: Whether ncnn may compute it by Winograd's method.
        content: What the file of weights has for it: a tag, weights, biases, and scales in INT8.
    """

    line: int
    name: str
    input: str
    weight_shape: tuple[int, int, int, int]
    scales: int
    winograd: bool
    content: bytes


def read_layers(graph: Path, weights: Path) -> tuple[list[str], list[NcnnLayer]]:
    """Read the lines of a graph, and its layers with weights.

    Args:
        graph: The ``.param`` file.
        weights: The ``.bin`` file, in float32 or INT8.

    Raises:
        ExportError: If the files are not complete, or hold weights of other layers.
    """
    try:
        lines = graph.read_text(encoding="utf-8").splitlines()
        return lines, list(_layers(lines, weights.read_bytes()))
    except (ValueError, IndexError, KeyError) as error:
        raise ExportError(
            f"{graph} and {weights.name} are not a complete graph of convolutions and their "
            f"weights: {printable(str(error))}"
        ) from None


def _layers(lines: list[str], content: bytes) -> Iterator[NcnnLayer]:
    if lines[:1] != [_MAGIC] or len(lines) - 2 != int(lines[1].split()[0]):
        raise ValueError("the graph has another number of lines than it says")
    start = 0
    for number, line in enumerate(lines[2:], 2):
        kind, name, inputs, outputs, *rest = line.split()
        if kind not in _KEYS:
            continue
        values = dict(part.split("=") for part in rest[int(inputs) + int(outputs) :])
        count, biases, size = (int(values.get(key, 0)) for key in _KEYS[kind])
        # Kernel, dilation and stride: of the height, which those of the width are the default of.
        keys = () if kind == "InnerProduct" else ("11", "1", "12", "2", "13", "3")
        window = [int(values.get(key, values.get(key[-1], 1))) for key in keys] or [1] * 6
        height, width = window[:2]
        scales = int(values["7"]) if kind == "ConvolutionDepthWise" else count
        if min(count, size, scales, *window) < 1 or size % (count * height * width):
            raise ValueError(f"{name} has {size} weights for {count} channels of {height}x{width}")
        if count % scales:
            raise ValueError(f"{name} has {count} channels in {scales} groups")
        is_int8 = values.get(INT8_KEY, "0") != "0"
        # Scales of the weights, and one of the input, follow in INT8.
        length = size + -size % 4 + 4 * (scales + 1) if is_int8 else 4 * size
        end = start + 4 + length + (4 * count if biases else 0)
        if end > len(content):
            raise ValueError(f"the weights end in {name}")
        if content[start : start + 4] != (INT8_TAG if is_int8 else FLOAT32_TAG):
            raise ValueError(f"{name} has weights in another format")
        yield NcnnLayer(
            line=number,
            name=name,
            input=rest[0],
            weight_shape=(count, size // (count * height * width), height, width),
            scales=scales,
            winograd=kind == "Convolution" and window == [3, 3, 1, 1, 1, 1],
            content=content[start:end],
        )
        start = end
    if start < len(content):
        raise ValueError(f"{len(content) - start} bytes of weights are of other layers")
