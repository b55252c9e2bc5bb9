"""Convert models that others exported to ONNX, and compare the outputs with Paddle's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import paddle
from paddle import static

from liteseg_plugin.errors import ExportError, last_words
from liteseg_plugin.export.onnx import DEFAULT_OPSET, convert
from liteseg_plugin.export.static_program import drop_feed_and_fetch, load, static_mode
from liteseg_plugin.exported import ModelFiles
from liteseg_plugin.metrics.agreement import label_agreement
from liteseg_plugin.runtimes.base import paddle_files
from liteseg_plugin.runtimes.paddle import PaddleInference
from liteseg_plugin.system.files import scratch_folder, to_disk
from liteseg_plugin.system.processes import python_command

REQUIRED_AGREEMENT = 0.9999
"""Share of pixels that must have the label that Paddle Inference gives them."""

TOLERATED_DIFFERENCE = 1e-4
"""Largest difference of scores, over the largest score. Labels alone hardly show a wrong pooling:
with it, 99.97 % of them can agree."""

OPEN_SIZES_HW = ((512, 512), (360, 480))
"""Heights and widths at which a model of any size is compared."""

# A separate process: PaddleSeg's pooling, once converted, divides by zero on small images, which
# raises no exception.
_RUN_ONNX = """
import sys, numpy as np, onnx
from liteseg_plugin.runtimes.onnxruntime import create_session
path, images, target = sys.argv[1:]
model = onnx.load(path)
wanted = [model.graph.output[0].name]
wanted += [node.input[0] for node in model.graph.node if node.op_type == "ArgMax"]
if len(wanted) == 2:
    model.graph.output.append(onnx.ValueInfoProto(name=wanted[1]))
session = create_session(model)
given = {session.get_inputs()[0].name: np.load(images)}
np.savez(target, *session.run(wanted[:2] if len(wanted) == 2 else wanted[:1], given))
"""


@dataclass(frozen=True)
class Comparison:
    """How an ONNX file's output compares with Paddle's, on the same images.

    Attributes:
        agreement: Share of labels that are equal, in 0..1.
        classes: How many classes occurred.
        difference: Largest difference of scores over the largest score; None where labels do not
            come from one argmax.
    """

    agreement: float
    classes: int
    difference: float | None

    @property
    def equal(self) -> bool:
        """Whether the file may be used in place of Paddle's."""
        return (
            self.agreement >= REQUIRED_AGREEMENT and (self.difference or 0) <= TOLERATED_DIFFERENCE
        )

    def __str__(self) -> str:
        """Return it in words."""
        words = f"{self.agreement:.4%} of labels agree ({self.classes} classes occurred)"
        if self.difference is not None:
            words += f", scores differ by {self.difference:.1e} of the largest"
        return words


def model_files(
    model_dir: str | os.PathLike, model_filename: str, params_filename: str
) -> ModelFiles:
    """Return the files of a model.

    Raises:
        ExportError: If one of them is missing.
    """
    model, params = Path(model_dir, model_filename), Path(model_dir, params_filename)
    for path, flag in ((model, "--model_filename"), (params, "--params_filename")):
        if not path.is_file():
            present = sorted(p.name for p in Path(model_dir).glob("*")) or ["nothing"]
            raise ExportError(f"{path} is missing; {flag} names one of: {', '.join(present)}")
    return ModelFiles(model, params)


def convert_and_compare(
    files: ModelFiles, save_file: str | os.PathLike, opset: int = DEFAULT_OPSET
) -> dict[str, Comparison]:
    """Convert a model to ONNX; keep the file only if it agrees with Paddle.

    Args:
        files: The model.
        save_file: The ONNX file.
        opset: ONNX operator set.

    Returns:
        How they compare, by shape of the images, as ``1x3x512x512``.

    Raises:
        ExportError: If the model cannot be converted, or the file disagrees with Paddle.
    """
    save_file = Path(save_file)
    save_file.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(save_file.parent, "convert") as folder:
        target = Path(folder, "model.onnx")
        try:
            convert(*paddle_files(files), target, opset)
        except ExportError as error:
            if "cannot convert" not in str(error):
                raise
            raise ExportError(
                f"{error}\nIf its size is open, fix it first: liteseg infer_shape, or "
                "PaddleSeg's tools/export.py with --input_shape 1 3 H W"
            ) from error
        compared = {}
        for shape in _shapes_to_compare(target):
            name = "x".join(map(str, shape))
            result = compared[name] = _compare(files, target, shape)
            if not result.equal:
                raise ExportError(
                    f"the ONNX file is wrong and was deleted: at {name} {result}. "
                    "PaddleSeg's pooling is converted correctly if 128 divides height and width; "
                    "`liteseg export` is exact at every size"
                )
        to_disk(Path(target))
        os.replace(target, save_file)
    return compared


def _compare(files: ModelFiles, onnx_file: Path, shape: Sequence[int]) -> Comparison:
    images = _landscape(shape)
    expected = PaddleInference(files, "cpu", 1, accelerated=False).run(images)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "images.npy"), Path(folder, "outputs.npz")
        np.save(given, images)
        result = subprocess.run(
            python_command(_RUN_ONNX, onnx_file, given, made),
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            raise ExportError(
                f"ONNX Runtime cannot run the converted {files.model} at {tuple(shape)}: "
                f"{last_words(result)}"
            )
        with np.load(made) as archive:
            output, *scores = archive.values()
    if output.shape != expected.shape:
        raise ExportError(f"the ONNX file gives {output.shape}, Paddle {expected.shape}")
    difference = None
    if expected.ndim == 4 and np.issubdtype(expected.dtype, np.floating):
        difference = _relative_difference(output, expected)
        output, expected = output.argmax(axis=1), expected.argmax(axis=1)
    elif scores:
        difference = _relative_difference(scores[0], _scores(files, images))
    agreement = label_agreement(output, expected)
    return Comparison(agreement, len(np.unique(expected)), difference)


def _relative_difference(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def _scores(files: ModelFiles, images: np.ndarray) -> np.ndarray:
    """Return the input of the only argmax of a Paddle model."""
    with static_mode(files):
        program = load(files)
        if files.model.suffix == ".json":
            ops = program.global_block().ops
            [name] = [op.attrs()["name"] for op in ops if op.name() == "pd_op.data"]
            [scores] = [op.operand_source(0) for op in ops if op.name() == "pd_op.argmax"]
        else:
            block = program.global_block()
            [name] = [op.output("Out")[0] for op in block.ops if op.type == "feed"]
            [scores] = [block.var(op.input("X")[0]) for op in block.ops if op.type == "arg_max"]
        drop_feed_and_fetch(program)
        return static.Executor(paddle.CPUPlace()).run(
            program, feed={name: images}, fetch_list=[scores]
        )[0]


def _landscape(shape: Sequence[int]) -> np.ndarray:
    """Return random images with large and small structures, like real ones."""
    rng = np.random.default_rng(0)
    _, channels, height, width = shape
    image = np.zeros((height, width, channels), np.float32)
    for cells in (3, 12, 48, 192):
        noise = rng.normal(size=(cells, cells, channels)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.repeat(image.transpose(2, 0, 1)[np.newaxis], shape[0], axis=0)


def _shapes_to_compare(onnx_file: Path) -> list[list[int]]:
    import onnx

    inputs = onnx.load(str(onnx_file)).graph.input
    sizes = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
    if len(inputs) != 1 or len(sizes) != 4:
        raise ExportError(f"only a network with one input, N C H W, can be compared; got {sizes}")
    batch, channels, height, width = (sizes[0] or 1, sizes[1] or 3, *sizes[2:])
    hw = OPEN_SIZES_HW[: 1 if height and width else None]
    return [[batch, channels, height or h, width or w] for h, w in hw]
