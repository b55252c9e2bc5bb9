"""Write a plain graph for ncnn, the engine of phones and small boards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from liteseg_plugin.errors import ExportError, last_words
from liteseg_plugin.exported import NCNN_FILE, NCNN_FP16_WEIGHTS_FILE, NCNN_WEIGHTS_FILE

NCNN_FILES = (NCNN_FILE, NCNN_WEIGHTS_FILE, NCNN_FP16_WEIGHTS_FILE)
NCNN_KEYS = ("ncnn", "ncnn_weights", "ncnn_fp16_weights")
"""What ``deploy.yaml`` calls them."""


def convert_to_ncnn(onnx_file: Path, shape: Sequence[int | None], folder: Path) -> None:
    """Write ``NCNN_FILES`` of a plain ONNX file.

    Args:
        onnx_file: As ``plain.simplify`` leaves it.
        shape: (1, 3, H, W) of its input, all of them known.
        folder: Where they go.

    Raises:
        ExportError: If pnnx is missing, or cannot convert the file.
    """
    program = _pnnx()
    size = ",".join(map(str, shape))
    with tempfile.TemporaryDirectory() as work:
        shutil.copyfile(onnx_file, f"{work}/model.onnx")
        for half, weights in ((0, NCNN_WEIGHTS_FILE), (1, NCNN_FP16_WEIGHTS_FILE)):
            result = subprocess.run(
                [program, "model.onnx", f"inputshape=[{size}]f32", f"fp16={half}"],
                cwd=work,
                capture_output=True,
                text=True,
            )
            graph = Path(work, "model.ncnn.param")
            # What it does not know it mentions, and leaves in the file.
            said = result.stdout + result.stderr
            unknown = {line for line in said.splitlines() if line.startswith(("todo ", "ignore "))}
            if result.returncode != 0 or unknown or not graph.is_file():
                what = "; ".join(sorted(unknown)) or last_words(result)
                raise ExportError(f"pnnx cannot convert the network to ncnn: {what}")
            os.replace(Path(work, "model.ncnn.bin"), folder / weights)
        os.replace(graph, folder / NCNN_FILE)


def _pnnx() -> str:
    """Return the converter's program; the module itself imports PyTorch, which is not needed."""
    found = find_spec("pnnx")
    for place in (found.submodule_search_locations or ()) if found else ():
        for name in ("pnnx", "pnnx.exe"):
            if os.access(Path(place, name), os.X_OK):
                return str(Path(place, name))
    raise ExportError(
        "pnnx is not installed: pip install --no-deps pnnx (its dependency PyTorch is not used)"
    )
