"""The network that TensorRT is given: the export's ONNX file, of one shape, folded."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from liteseg_plugin.errors import ExportError
from liteseg_plugin.runtimes.float16 import graphsurgeon, half_precision

if TYPE_CHECKING:
    import onnx

FOURTH_CHANNEL = "image_of_four_channels"
"""Name of the operator that adds a channel of zeros to the image of a quantised file."""


def network_model(
    path: str | os.PathLike, shape: Sequence[int], precision: str, strongly_typed: bool
) -> onnx.ModelProto:
    """Return the network that TensorRT is given: of one shape, its constants folded.

    Args:
        path: The export's ONNX file, for ``int8`` the quantised one.
        shape: (N, 3, H, W).
        precision: ``fp32``, ``fp16`` or ``int8``.
        strongly_typed: Whether the network itself says its types.

    Raises:
        ExportError: If the file has another shape, or cannot be folded.
    """
    import onnx

    half = precision == "fp16" and strongly_typed
    model = fix_and_fold(half_precision(path) if half else onnx.load(str(path)), shape)
    if precision != "int8":
        return model
    _remove_fourth_channel(model)
    return symmetric(model)


def _remove_fourth_channel(model: onnx.ModelProto) -> None:
    """Undo what the quantiser did for ONNX Runtime; TensorRT's Pad is not for INT8."""
    from onnx import numpy_helper

    graph = model.graph
    for pad in [node for node in graph.node if node.name == FOURTH_CHANNEL]:
        [dequantise] = [node for node in graph.node if pad.output[0] in node.input]
        [convolution] = [node for node in graph.node if dequantise.output[0] in node.input]
        dequantise.input[0] = pad.input[0]
        graph.node.remove(pad)
        [made_of] = [node.input[0] for node in graph.node if convolution.input[1] in node.output]
        [weights] = [tensor for tensor in graph.initializer if tensor.name == made_of]
        values = np.ascontiguousarray(numpy_helper.to_array(weights)[:, :3])
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))


def fix_and_fold(model: onnx.ModelProto, shape: Sequence[int]) -> onnx.ModelProto:
    """Give a model of one input a fixed shape, and compute what no longer depends on the image.

    Raises:
        ExportError: If the model was exported with another shape, or cannot be folded.
    """
    graphsurgeon()
    from polygraphy.backend.onnx import FoldConstants

    extents = model.graph.input[0].type.tensor_type.shape.dim
    declared = [d.dim_value for d in extents]
    if len(declared) != len(shape) or any(d not in (0, n) for d, n in zip(declared, shape)):
        raise ExportError(
            f"the model was exported for {declared} (0: any), which does not fit {tuple(shape)}"
        )
    for extent, n in zip(extents, shape):
        extent.dim_value = n
    # They name open extents, and inference would not contradict them.
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    with polygraphy_errors() as errors:
        try:
            folded = FoldConstants(model, error_ok=False, allow_onnxruntime_shape_inference=False)()
        except Exception as error:
            said = errors[-1] if errors else error
            raise ExportError(
                f"the ONNX model cannot be folded for {tuple(shape)}: {said}"
            ) from error
    return folded


def symmetric(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a QDQ model, whose constants are initializers, as every TensorRT takes it.

    Zero points are 0 and of int8: other activations get the smallest symmetric range that holds
    their own, which costs those of uint8 one bit. A range from 0 on stands for a ReLU that the
    quantiser took away, so the ReLU comes back. Weights are in float before a pair of quantise
    and dequantise that gives back their int8 values. Biases and factors are in float.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def constant(name: str, value: np.ndarray) -> str:
        if name not in constants:
            constants[name] = value
            graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    nodes = []
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            nodes.append(node)
            continue
        source, scale_name, zero_name = node.input
        scale, zero = constants[scale_name], constants[zero_name]
        if source not in constants:
            if zero.dtype != np.int8 or zero.any():
                limits = np.iinfo(zero.dtype)
                ends = [(end - zero.astype("float64")) * scale for end in (limits.min, limits.max)]
                widest = (np.abs(ends).max(axis=0) / 127).astype("float32")
                node.input[1] = constant(f"{scale_name}_symmetric_{zero_name}", widest)
                node.input[2] = constant(f"{zero_name}_zero", np.zeros_like(zero, np.int8))
                if node.op_type == "QuantizeLinear" and (zero == limits.min).all():
                    positive = f"{node.output[0]}_positive"
                    nodes.append(helper.make_node("Relu", [source], [positive], positive))
                    node.input[0] = positive
            nodes.append(node)
            continue
        if zero.any() or zero.dtype not in (np.int8, np.uint8, np.int32):
            raise ExportError(f"the weights {source} are not quantised symmetrically in int8")
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        values = constants[source].astype("float32")
        broadcast = [-1 if n == axis and scale.ndim else 1 for n in range(values.ndim)]
        values = values * (scale.reshape(broadcast) if scale.ndim else scale)
        if zero.dtype != np.int8:
            constant(node.output[0], values)
            continue
        quantise = helper.make_node(
            "QuantizeLinear",
            [constant(f"{source}_float", values), scale_name, zero_name],
            [f"{node.output[0]}_quantised"],
            name=f"{node.name}_quantise",
            axis=axis,
        )
        node.input[0] = quantise.output[0]
        nodes += [quantise, node]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    return model


@contextlib.contextmanager
def polygraphy_errors() -> Iterator[list[str]]:
    """Collect the errors that polygraphy logs, TensorRT's among them, instead of printing them."""
    from polygraphy.logger import G_LOGGER

    errors: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.ERROR:  # what is worse is raised
                errors.append(record.getMessage().removeprefix("[E] "))

    handler = Collector(logging.ERROR)
    logger = logging.getLogger("Polygraphy")
    before = G_LOGGER.use_python_logging_system, logger.propagate
    G_LOGGER.use_python_logging_system, logger.propagate = True, False
    logger.addHandler(handler)
    try:
        yield errors
    finally:
        logger.removeHandler(handler)
        G_LOGGER.use_python_logging_system, logger.propagate = before
