"""ONNX files of plain operators, for engines of small boards and for their converters."""

from __future__ import annotations

from pathlib import Path

from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.onnx import fold

NOT_PLAIN = {"Einsum", "Gather", "Gemm", "If", "Loop", "MatMul", "Range", "Shape", "Where"}
"""Operators that a plain graph must not have: matrix products, and sizes that are computed."""


def simplify(path: Path) -> None:
    """Fold what is constant in an ONNX file of a fixed size, and leave out what means nothing.

    Raises:
        ExportError: If operators of ``NOT_PLAIN`` remain: the network has layers of its own.
    """
    import onnx

    model = fold(path)
    found = sorted(NOT_PLAIN.intersection(node.op_type for node in model.graph.node))
    if found:
        raise ExportError(
            f"the network has operators that a plain graph must not have: {', '.join(found)}; "
            "export it without --graph plain"
        )
    empty = {tensor.name for tensor in model.graph.initializer if 0 in tensor.dims}
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Resize":
            # Absent instead of empty, and no settings of other modes: pnnx rejects them.
            node.input[:] = ["" if name in empty else name for name in node.input]
            wanted = ["coordinate_transformation_mode", "mode"]
            wanted += ["nearest_mode"] if attributes["mode"] == b"nearest" else []
            attributes = {name: attributes[name] for name in wanted}
        elif attributes.get("auto_pad") == b"SAME_UPPER" and attributes["kernel_shape"] == [1, 1]:
            del attributes["auto_pad"]  # of nothing; onnx2torch rejects it
        del node.attribute[:]
        node.attribute.extend(onnx.helper.make_attribute(*pair) for pair in attributes.items())
    tensors = [tensor for tensor in model.graph.initializer if tensor.name not in empty]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
