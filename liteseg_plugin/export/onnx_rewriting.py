"""Rewrite operators of an ONNX graph into others, which ONNX Runtime computes faster."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

import numpy as np

from liteseg_plugin.runtimes.tensorrt_network import FOURTH_CHANNEL

if TYPE_CHECKING:
    import onnx

_GROUPS = 8


def pools_as_convolutions(
    model: onnx.ModelProto, features: Container[str]
) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Replace average pools of the named features, of a known size, by depthwise convolutions.

    Convolutions compute in INT8 where pools do not; converting the features for those takes ONNX
    Runtime a quarter of the time of all convolutions. At the border a mean is of fewer pixels, so a
    product with a constant follows each convolution.

    Returns:
        Each convolution, and the product, whose second input is the constant.
    """
    from onnx import helper

    shapes, replaced = _shapes(model), []
    for pool in [node for node in model.graph.node if node.op_type == "AveragePool"]:
        asked = {entry.name: helper.get_attribute_value(entry) for entry in pool.attribute}
        _, channels, *size_hw = shapes.get(pool.input[0], [0] * 4)
        if (
            pool.input[0] not in features
            or not all(size_hw)
            or asked.get("ceil_mode")
            or asked.get("count_include_pad")
        ):
            continue
        geometry = {name: asked[name] for name in ("kernel_shape", "strides", "pads")}
        kernel, strides, pads = geometry.values()
        pixels = np.outer(*map(_pixels_of_means, size_hw, kernel, strides, pads, pads[2:]))
        weights = np.full((channels, 1, *kernel), 1 / np.prod(kernel), np.float32)
        border = (np.prod(kernel) / pixels).astype(np.float32)[np.newaxis, np.newaxis]
        [output] = pool.output
        sums = f"{output}_sums"
        convolution = helper.make_node(
            *("Conv", [pool.input[0], _constant(model, f"{output}_mean", weights)], [sums], sums),
            group=channels,
            **geometry,
        )
        product = helper.make_node(
            "Mul", [sums, _constant(model, f"{output}_border", border)], [output], f"{output}_mul"
        )
        _replace(model, pool, convolution, product)
        replaced.append((convolution, product))
    return replaced


def _pixels_of_means(size: int, kernel: int, stride: int, before: int, after: int) -> np.ndarray:
    """Return along one axis of how many pixels each mean of a pool is."""
    first = np.arange(0, size + before + after - kernel + 1, stride) - before
    return np.minimum(first + kernel, size) - np.maximum(first, 0)


def maxima_in_groups(model: onnx.ModelProto) -> None:
    """Take maxima over channels in two steps: within groups, then over the groups.

    The channels of a pixel are often a multiple of 4096 bytes apart, in cache lines that displace
    each other. The few of a group fit.
    """
    from onnx import helper

    shapes = _shapes(model)
    for node in [node for node in model.graph.node if node.op_type == "ReduceMax"]:
        asked = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        _, channels, *size_hw = shapes.get(node.input[0], [0, 1])
        if asked != {"axes": [1], "keepdims": 1} or channels % _GROUPS or len(size_hw) != 2:
            continue
        [output] = node.output
        tensor, nodes = node.input[0], []
        for step, group in enumerate((channels // _GROUPS, _GROUPS)):
            shape = _constant(model, f"{output}_shape{step}", np.array([-1, group, 0, 0]))
            grouped, tensors = f"{output}_grouped{step}", (f"{output}_maxima", output)
            nodes.append(helper.make_node("Reshape", [tensor, shape], [grouped], grouped))
            tensor = tensors[step]
            nodes.append(
                helper.make_node("ReduceMax", [grouped], [tensor], f"{tensor}_max", **asked)
            )
        _replace(model, node, *nodes)


def add_fourth_channel(model: onnx.ModelProto) -> None:
    """Give a quantised image of three channels a fourth, of zeros, and the first convolution, too.

    ONNX Runtime's INT8 convolutions read channels in fours: the first one takes half the time.
    """
    from onnx import helper, numpy_helper

    graph, chain, tensor = model.graph, [], model.graph.input[0].name
    _, channels, *_ = graph.input[0].type.tensor_type.shape.dim
    if channels.dim_value != 3:
        return
    for kind in ("QuantizeLinear", "DequantizeLinear", "Conv"):
        users = [node for node in graph.node if tensor in node.input]
        if len(users) != 1 or users[0].op_type != kind:
            return
        chain.append(users[0])
        [tensor] = users[0].output
    quantise, dequantise, convolution = chain
    [made_of] = [node.input[0] for node in graph.node if convolution.input[1] in node.output]
    [weights] = [tensor for tensor in graph.initializer if tensor.name == made_of]
    values = numpy_helper.to_array(weights)
    if values.shape[1] != 3:  # a depthwise convolution
        return
    padded = np.pad(values, [(0, 0), (0, 1), (0, 0), (0, 0)])
    weights.CopyFrom(numpy_helper.from_array(padded, weights.name))
    pads = _constant(model, f"{FOURTH_CHANNEL}_pads", np.array([0, 0, 0, 0, 0, 1, 0, 0]))
    inputs = [quantise.output[0], pads, quantise.input[2]]  # the zero point is 0
    pad = helper.make_node("Pad", inputs, [FOURTH_CHANNEL], FOURTH_CHANNEL)
    graph.node.insert(list(graph.node).index(dequantise), pad)
    dequantise.input[0] = FOURTH_CHANNEL
    for stale in [v for v in graph.value_info if v.name == dequantise.output[0]]:
        graph.value_info.remove(stale)


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shapes of features, as far as they were inferred; 0 is an open extent."""
    return {
        value.name: [extent.dim_value for extent in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }


def _constant(model: onnx.ModelProto, name: str, values: np.ndarray) -> str:
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _replace(model: onnx.ModelProto, node: onnx.NodeProto, *by: Any) -> None:
    place = list(model.graph.node).index(node)
    del model.graph.node[place]
    for number, new in enumerate(by):
        model.graph.node.insert(place + number, new)
