"""Models that others exported: give them a fixed shape, and convert them to ONNX, compared."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import paddle
import yaml
from paddle import static

from liteseg_plugin.errors import ExportError, last_words
from liteseg_plugin.export.onnx import DEFAULT_OPSET, convert
from liteseg_plugin.exported import DEPLOY_FILE
from liteseg_plugin.metrics.agreement import label_agreement
from liteseg_plugin.runtimes.paddle import PaddleInference
from liteseg_plugin.system.files import scratch_folder
from liteseg_plugin.system.text import read_yaml

REQUIRED_AGREEMENT = 0.9999
"""Share of pixels that must have the label that Paddle Inference gives them."""

TOLERATED_DIFFERENCE = 1e-4
"""Largest difference of scores, over the largest score. Labels alone hardly show a wrong pooling:
with it, 99.97 % of them can agree."""

OPEN_SIZES_HW = ((512, 512), (360, 480))
"""Heights and widths at which a model of any size is compared."""

# A process of its own: PaddleSeg's pooling, converted, divides by zero on small images, which no
# exception reports.
_RUN_ONNX = """
import sys, numpy as np, onnx, onnxruntime
path, images, target = sys.argv[1:]
model = onnx.load(path)
wanted = [model.graph.output[0].name]
wanted += [node.input[0] for node in model.graph.node if node.op_type == "ArgMax"]
if len(wanted) == 2:
    model.graph.output.append(onnx.ValueInfoProto(name=wanted[1]))
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(
    model.SerializeToString(), options, providers=["CPUExecutionProvider"]
)
given = {session.get_inputs()[0].name: np.load(images)}
np.savez(target, *session.run(wanted[:2] if len(wanted) == 2 else wanted[:1], given))
"""


class ModelFiles(NamedTuple):
    """A Paddle inference model, wherever its files lie."""

    model: Path
    params: Path
    scale: float = 1.0
    input_shape: tuple[int | None, ...] = (None, None, None, None)


def model_files(model_dir: str, model_filename: str, params_filename: str) -> ModelFiles:
    """Return the files of a model.

    Raises:
        ExportError: If one of them is not there.
    """
    files = ModelFiles(Path(model_dir, model_filename), Path(model_dir, params_filename))
    for path, flag in zip(files, ("--model_filename", "--params_filename")):
        if not path.is_file():
            present = sorted(p.name for p in Path(model_dir).glob("*")) or ["nothing"]
            raise ExportError(f"{path} is missing; {flag} names one of: {', '.join(present)}")
    return files


def fix_shape(
    files: ModelFiles, shapes: dict[str, Sequence[int]], save_dir: str | os.PathLike
) -> ModelFiles:
    """Write a model again whose inputs, and with them all its tensors, have fixed shapes.

    The model is run once at these shapes, and the shapes that occur are written into its graph.
    Nothing else of it changes.

    Args:
        files: The model, of Paddle 2 (``.pdmodel``) or 3 (``.json``).
        shapes: Shape by name of the input, as ``{"x": [1, 3, 512, 512]}``.
        save_dir: Folder that both files are written to, under their names, and the ``deploy.yaml``
            beside them if there is one.

    Raises:
        ExportError: If the model cannot be read, or does not take these shapes.
    """
    if any(not shape or min(shape) < 1 for shape in shapes.values()):
        raise ExportError(f"a fixed shape is of numbers from 1 on, got {shapes}")
    save_dir = Path(save_dir)
    if save_dir.resolve() == files.model.parent.resolve():
        raise ExportError(f"{save_dir} is the model's own folder; choose another --save_dir")
    # A process of its own: Paddle 2.6 crashes on files that are cut short.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            content = pool.submit(_fixed, files, shapes).result()
        except BrokenProcessPool:
            raise ExportError(
                f"Paddle {paddle.__version__} crashes on {files.model} with {files.params.name}; "
                "the files may be cut short"
            ) from None
    save_dir.mkdir(parents=True, exist_ok=True)
    fixed = ModelFiles(save_dir / files.model.name, save_dir / files.params.name)
    with scratch_folder(save_dir, "fix") as complete:
        Path(complete, fixed.model.name).write_bytes(content)
        shutil.copyfile(files.params, Path(complete, fixed.params.name))
        deploy = files.model.with_name(DEPLOY_FILE)
        if deploy.is_file():
            Path(complete, DEPLOY_FILE).write_text(
                _fixed_deploy(deploy, fixed, shapes), encoding="utf-8"
            )
        # deploy.yaml last: what it names is then there.
        for file in sorted(complete.iterdir(), key=lambda file: file.name == DEPLOY_FILE):
            os.replace(file, save_dir / file.name)
    return fixed


def _fixed_deploy(deploy: Path, fixed: ModelFiles, shapes: dict[str, Sequence[int]]) -> str:
    """Return a ``deploy.yaml`` that is true of the fixed model."""
    content = read_yaml(deploy)
    [shape] = shapes.values()
    content["Deploy"].update(
        model=fixed.model.name, params=fixed.params.name, input_shape=list(shape)
    )
    if "liteseg" in content:
        content["liteseg"].update(onnx=None, sha256={})
    return yaml.safe_dump(content, sort_keys=False)


def convert_and_compare(
    files: ModelFiles, save_file: str | os.PathLike, opset: int = DEFAULT_OPSET
) -> dict:
    """Convert a model to ONNX, and keep the file if it gives what Paddle gives.

    Args:
        files: The model.
        save_file: The ONNX file.
        opset: ONNX operator set.

    Returns:
        ``onnx``, and for each shape in ``compared``: ``agreement`` (share of equal labels),
        ``classes`` that occurred, and ``difference``, the largest of the scores over the largest
        score (None where labels do not come from one argmax).

    Raises:
        ExportError: If the model cannot be converted, or the file gives something else.
    """
    save_file = Path(save_file)
    save_file.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(save_file.parent, "convert") as folder:
        target = Path(folder, "model.onnx")
        try:
            convert(files.model, files.params, target, opset)
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
            if (
                result["agreement"] < REQUIRED_AGREEMENT
                or (result["difference"] or 0) > TOLERATED_DIFFERENCE
            ):
                raise ExportError(
                    f"the ONNX file is wrong, and was not kept: at {name} {describe(result)}. "
                    "PaddleSeg's pooling is converted right where height and width divide by 128; "
                    "`liteseg export` is right at every size"
                )
        os.replace(target, save_file)
    return {"onnx": str(save_file), "compared": compared}


def _compare(files: ModelFiles, onnx_file: Path, shape: Sequence[int]) -> dict:
    images = _landscape(shape)
    expected = PaddleInference(files, "cpu", 1, onednn=False).run(images)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "images.npy"), Path(folder, "outputs.npz")
        np.save(given, images)
        result = subprocess.run(
            [sys.executable, "-c", _RUN_ONNX, str(onnx_file), str(given), str(made)],
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
    return {
        "agreement": label_agreement(output, expected),
        "classes": len(np.unique(expected)),
        "difference": difference,
    }


def _relative_difference(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def describe(result: dict) -> str:
    """Say in words how a comparison came out."""
    words = f"{result['agreement']:.4%} of labels agree ({result['classes']} classes occurred)"
    if result["difference"] is not None:
        words += f", scores differ by {result['difference']:.1e} of the largest"
    return words


def _scores(files: ModelFiles, images: np.ndarray) -> np.ndarray:
    """Return what a model of Paddle's takes its one argmax of."""
    with _static_mode(files):
        program = _load(files)
        if files.model.suffix == ".json":
            ops = program.global_block().ops
            [name] = [op.attrs()["name"] for op in ops if op.name() == "pd_op.data"]
            [scores] = [op.operand_source(0) for op in ops if op.name() == "pd_op.argmax"]
        else:
            block = program.global_block()
            [name] = [op.output("Out")[0] for op in block.ops if op.type == "feed"]
            [scores] = [block.var(op.input("X")[0]) for op in block.ops if op.type == "arg_max"]
        _drop_feed_and_fetch(program)
        return static.Executor(paddle.CPUPlace()).run(
            program, feed={name: images}, fetch_list=[scores]
        )[0]


def _landscape(shape: Sequence[int]) -> np.ndarray:
    """Return random images with large and small structures, as real ones have."""
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
        raise ExportError(f"a network of one input, N C H W, is compared; got {sizes}")
    batch, channels, height, width = (sizes[0] or 1, sizes[1] or 3, *sizes[2:])
    hw = OPEN_SIZES_HW[: 1 if height and width else None]
    return [[batch, channels, height or h, width or w] for h, w in hw]


def _fixed(files: ModelFiles, shapes: dict[str, Sequence[int]]) -> bytes:
    """Return the graph with the shapes of its tensors written in."""
    try:
        fixed = _fixed_json if files.model.suffix == ".json" else _fixed_pdmodel
        return fixed(files, shapes)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"Paddle {paddle.__version__} cannot run {files.model} at {shapes}: {_telling(error)}"
        ) from None


def _fixed_json(files: ModelFiles, shapes: dict[str, Sequence[int]]) -> bytes:
    """Do so in Paddle 3's format."""
    if not hasattr(paddle.base.core, "deserialize_pir_program"):
        raise ExportError(f"{files.model} is of Paddle 3; this is Paddle {paddle.__version__}")
    content = json.loads(files.model.read_bytes())
    written = content["program"]["regions"][0]["blocks"][0]["ops"]
    with _static_mode(files):
        program = _load(files)
        loaded = list(program.global_block().ops)
        inputs = [op for op in loaded if op.name() == "pd_op.data"]
        _check_inputs(files, {op.attrs()["name"]: op.result(0).shape for op in inputs}, shapes)
        tensors = [
            (entry, value)
            for op, record in zip(loaded, written)
            if op.name() not in ("builtin.parameter", "pd_op.fetch")
            for entry, value in zip(record["O"], op.results())
            if value.is_dense_tensor_type() and -1 in value.shape and not value.use_empty()
        ]
        _drop_feed_and_fetch(program)
        observed = _run(program, [value for _, value in tensors], shapes)
    for (entry, _), shape in zip(tensors, observed):
        entry["TT"]["D"][1] = shape
    types = {}
    for record in written:
        entries = record["O"] if isinstance(record["O"], list) else [record["O"]]
        types.update((entry["%"], entry["TT"]) for entry in entries)
        kind = record["#"].partition(".")[2]
        if kind == "data":
            attributes = {a["N"]: a["AT"] for a in record["A"]}
            attributes["shape"]["D"] = list(shapes[attributes["name"]["D"]])
        elif kind == "combine":
            entries[0]["TT"]["D"] = [types[operand["%"]] for operand in record["I"]]
        elif kind == "fetch":
            entries[0]["TT"] = types[record["I"][0]["%"]]
    return json.dumps(content, separators=(",", ":")).encode()


def _fixed_pdmodel(files: ModelFiles, shapes: dict[str, Sequence[int]]) -> bytes:
    """Do so in Paddle 2's format."""
    with _static_mode(files):
        program = _load(files)
        block = program.global_block()
        inputs = [op.output("Out")[0] for op in block.ops if op.type == "feed"]
        _check_inputs(files, {name: block.var(name).shape for name in inputs}, shapes)
        used = {name for op in block.ops for name in op.input_arg_names}
        _drop_feed_and_fetch(program)
        tensors = [
            variable
            for variable in block.vars.values()
            if variable.name in used
            and variable.type == paddle.base.core.VarDesc.VarType.LOD_TENSOR
            and not variable.persistable
            and -1 in variable.shape
        ]
        observed = _run(program, tensors, shapes)
        fixed = static.deserialize_program(files.model.read_bytes())
        for variable, shape in zip(tensors, observed):
            fixed.global_block().var(variable.name).desc.set_shape(shape)
        return fixed.desc.serialize_to_string()


@contextlib.contextmanager
def _static_mode(files: ModelFiles) -> Iterator[None]:
    """Let programs of the model's format be loaded and run."""
    old_format = contextlib.nullcontext
    if files.model.suffix != ".json":  # Paddle 2.6 knows no other
        old_format = getattr(getattr(paddle, "pir_utils", None), "OldIrGuard", old_format)
    dynamic = paddle.in_dynamic_mode()
    paddle.enable_static()
    try:
        with old_format(), static.scope_guard(static.Scope()):
            yield
    finally:
        if dynamic:
            paddle.disable_static()


def _load(files: ModelFiles) -> static.Program:
    executor = static.Executor(paddle.CPUPlace())
    program, _, _ = static.load_inference_model(
        str(files.model.parent),
        executor,
        model_filename=files.model.name,
        params_filename=files.params.name,
    )
    return program


def _drop_feed_and_fetch(program: static.Program) -> None:
    """Remove what would keep other tensors than the outputs from being fetched."""
    block = program.global_block()
    for number, op in reversed(list(enumerate(block.ops))):
        if hasattr(op, "type"):  # Paddle 2's format
            if op.type in ("feed", "fetch"):
                block._remove_op(number)
        elif op.name() == "pd_op.fetch":
            block.remove_op(op)


def _check_inputs(
    files: ModelFiles, declared: dict[str, Sequence[int]], shapes: dict[str, Sequence[int]]
) -> None:
    if set(declared) != set(shapes):
        raise ExportError(
            f"the inputs of {files.model} are {sorted(declared)}, not {sorted(shapes)}"
        )
    for name, shape in shapes.items():
        wanted = list(declared[name])
        if len(wanted) != len(shape) or any(w not in (-1, n) for w, n in zip(wanted, shape)):
            raise ExportError(
                f"{name} of {files.model} has shape {wanted} (-1: any), which {list(shape)} "
                "does not fit"
            )


def _run(
    program: static.Program, tensors: Sequence, shapes: dict[str, Sequence[int]]
) -> list[list[int]]:
    """Run a program that has no feed and fetch, and return the shapes that tensors take."""
    if not tensors:
        return []
    with static.program_guard(program):
        watched = [paddle.shape(tensor) for tensor in tensors]
    images = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    observed = static.Executor(paddle.CPUPlace()).run(program, feed=images, fetch_list=watched)
    return [[int(extent) for extent in shape] for shape in observed]


def _telling(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Error" in line), (lines or [repr(error)])[-1])
