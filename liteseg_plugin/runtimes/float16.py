"""The exported ONNX file in half precision, for GPUs."""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING

from liteseg_plugin.errors import ExportError

if TYPE_CHECKING:
    import onnx


def half_precision(path: str | os.PathLike) -> onnx.ModelProto:
    """Convert an ONNX file to float16, images and outputs excepted.

    What does not depend on the image's values stays in float32: these nodes compute the positions
    that resizing samples at, and from 2048 on float16 does not hold every whole number.

    Args:
        path: ONNX file in float32.

    Returns:
        The model, with the file's inputs and outputs (float32 images, int32 labels).

    Raises:
        ExportError: If the extra `onnx` is missing, or the file is not an ONNX model.
    """
    try:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        surgeon = graphsurgeon()
    except ImportError:
        raise ExportError("float16 needs an extra: pip install 'liteseg_plugin[onnx]'") from None
    try:
        model = onnx.load(str(path))
    except Exception as error:
        raise ExportError(f"{path} is not an ONNX file: {error}") from error
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"  # the converter is told names
    exact = _independent_of_values(model.graph)
    model = convert_float_to_float16(
        model, keep_io_types=True, node_block_list=[node.name for node in exact]
    )
    _join_exact_nodes(model.graph)
    # The converter appends its casts, and some now have no reader.
    graph = surgeon.import_onnx(model).cleanup().toposort()
    return surgeon.export_onnx(graph)


def graphsurgeon() -> ModuleType:
    """Return onnx-graphsurgeon, told to print errors only.

    Raises:
        ImportError: If it is not installed.
    """
    import onnx_graphsurgeon
    from onnx_graphsurgeon.logger import G_LOGGER

    G_LOGGER.severity = G_LOGGER.ERROR
    return onnx_graphsurgeon


def _independent_of_values(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that depend on no input, or only on its shape."""
    dependent = {tensor.name for tensor in graph.input}
    independent = []
    for node in graph.node:  # in topological order, as ONNX demands
        if node.op_type == "Shape":
            continue  # integers, for any input
        if dependent.intersection(node.input):
            dependent.update(node.output)
        else:
            independent.append(node)
    return independent


def _join_exact_nodes(graph: onnx.GraphProto) -> None:
    """Let a float32 node read another directly.

    The converter casts what each of them gives to float16, and back for the next.
    """
    from onnx import TensorProto

    casts = {}
    for node in graph.node:
        if node.op_type == "Cast":
            casts[node.output[0]] = (node.input[0], node.attribute[0].i)
    exact = {}
    for output, (source, to) in casts.items():
        if to == TensorProto.FLOAT and casts.get(source, (None, None))[1] == TensorProto.FLOAT16:
            exact[output] = casts[source][0]
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = exact.get(name, name)
