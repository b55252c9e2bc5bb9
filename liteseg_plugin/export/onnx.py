"""From a Paddle inference model to a checked ONNX file, without touching the environment."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from liteseg_plugin.errors import ExportError, last_words
from liteseg_plugin.system.processes import python_command

if TYPE_CHECKING:
    import onnx

DEFAULT_OPSET = 13
"""Read by ONNX Runtime, OpenVINO and TensorRT 8 to 11."""

# A separate process: the converter aborts its process if it cannot convert a model. Without an
# optimising tool, because the others pip-install packages, and NumPy 2 with them.
_CONVERT = """
import gc, inspect, sys, zlib, paddle2onnx
model, params, target, opset = sys.argv[1:]
known = inspect.signature(paddle2onnx.export).parameters
options = {"optimize_tool": "None"} if "optimize_tool" in known else {}
paddle2onnx.export(model, params, target, opset_version=int(opset), **options)
gc.freeze()  # ends half a second sooner
"""


def convert(
    model: str | os.PathLike,
    params: str | os.PathLike,
    target: str | os.PathLike,
    opset: int = DEFAULT_OPSET,
) -> None:
    """Convert an inference model to ONNX, and check the file.

    Args:
        model: ``model.json`` or ``model.pdmodel``.
        params: ``model.pdiparams``.
        target: ONNX file to write.
        opset: ONNX operator set.

    Raises:
        ExportError: If paddle2onnx or onnx is missing, or the model cannot be converted.
    """
    try:
        import onnx
    except ImportError:
        raise ExportError("ONNX needs an extra: pip install 'liteseg_plugin[onnx]'") from None
    target = Path(target)
    command = python_command(_CONVERT, model, params, target, str(opset))
    result = subprocess.run(command, capture_output=True, text=True)
    if "No module named 'paddle2onnx'" in result.stderr:
        raise ExportError("paddle2onnx is not installed: pip install 'liteseg_plugin[onnx]'")
    if result.returncode != 0 or not target.is_file() or not target.stat().st_size:
        raise ExportError(f"paddle2onnx cannot convert {model}: {last_words(result)}")
    onnx.checker.check_model(str(target), full_check=True)


def tidy(path: str | os.PathLike) -> None:
    """Compute what is constant in an ONNX file of a fixed size, and drop what means nothing.

    The file has a tenth of the operators then, and ONNX Runtime does not warn when it loads it. A
    file of an open size must stay as it is: polygraphy folds it, once it is tidy, to a wrong one.
    """
    import onnx

    model = fold(path)
    del model.graph.value_info[:]
    onnx.save(model, str(path))


def fold(path: str | os.PathLike) -> onnx.ModelProto:
    """Return an ONNX file's model with constants computed, and batch norms in the convolutions."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, quiet():
        quant_pre_process(str(path), f"{folder}/folded.onnx", skip_symbolic_shape=True)
        model = onnx.load(f"{folder}/folded.onnx")
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    used = {node.domain for node in model.graph.node}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the quantiser's advice and ONNX Runtime's notes on folded constants."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        onnxruntime.set_default_logger_severity(2)
