"""Give a Paddle inference model, anybody's, inputs of a fixed shape."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import yaml
from paddle import static

from liteseg_plugin.errors import ExportError, telling_line
from liteseg_plugin.export.static_program import drop_feed_and_fetch, load, static_mode
from liteseg_plugin.exported import DEPLOY_FILE, FILE_KEYS, ModelFiles
from liteseg_plugin.runtimes.base import paddle_files
from liteseg_plugin.system.checksums import file_sha256
from liteseg_plugin.system.files import scratch_folder, to_disk
from liteseg_plugin.system.text import read_yaml


def fix_shape(
    files: ModelFiles, shapes: Mapping[str, Sequence[int]], save_dir: str | os.PathLike
) -> ModelFiles:
    """Write a model again whose inputs, and with them all its tensors, have fixed shapes.

    The model is run once at these shapes, and the shapes that occur are written into its graph.
    Nothing else changes.

    Args:
        files: The model, of Paddle 2 (``.pdmodel``) or 3 (``.json``).
        shapes: Shape by name of the input, as ``{"x": [1, 3, 512, 512]}``.
        save_dir: Folder that both files are written to, under their names, and the ``deploy.yaml``
            beside them if there is one.

    Raises:
        ExportError: If the model cannot be read, or does not take these shapes.
    """
    if any(not shape or min(shape) < 1 for shape in shapes.values()):
        raise ExportError(f"a fixed shape must have numbers of at least 1, got {shapes}")
    save_dir = Path(save_dir)
    model, params = paddle_files(files)
    if save_dir.resolve() == model.parent.resolve():
        raise ExportError(f"{save_dir} is the model's own folder; choose another --save_dir")
    # A separate process: Paddle 2.6 crashes on truncated files.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            content = pool.submit(_fixed, files, shapes).result()
        except BrokenProcessPool:
            raise ExportError(
                f"Paddle {paddle.__version__} crashes on {model} with {params.name}; "
                "the files may be truncated"
            ) from None
    save_dir.mkdir(parents=True, exist_ok=True)
    with scratch_folder(save_dir, "fix") as complete:
        Path(complete, model.name).write_bytes(content)
        shutil.copyfile(params, Path(complete, params.name))
        deploy = model.with_name(DEPLOY_FILE)
        if deploy.is_file():
            Path(complete, DEPLOY_FILE).write_text(
                _fixed_deploy(deploy, files, shapes, Path(complete)), encoding="utf-8"
            )
        # deploy.yaml last: what it names is then there.
        for file in sorted(complete.iterdir(), key=lambda file: file.name == DEPLOY_FILE):
            to_disk(file)
            to_disk(save_dir)  # in this order on the disk, too
            os.replace(file, save_dir / file.name)
    return ModelFiles(save_dir / model.name, save_dir / params.name)


def _fixed_deploy(
    deploy: Path, files: ModelFiles, shapes: Mapping[str, Sequence[int]], complete: Path
) -> str:
    """Return the ``deploy.yaml`` of the fixed model, whose files are in ``complete``."""
    content = read_yaml(deploy)
    [shape] = shapes.values()
    model, params = paddle_files(files)
    content["Deploy"].update(model=model.name, params=params.name, input_shape=list(shape))
    own = {k: v for k, v in (content.get("liteseg") or {}).items() if k not in FILE_KEYS}
    # So that a process killed between two files leaves an error, not a mixture.
    sums = {file.name: file_sha256(complete / file.name) for file in (model, params)}
    content["liteseg"] = {**own, "onnx": None, "sha256": sums}
    return yaml.safe_dump(content, sort_keys=False)


def _fixed(files: ModelFiles, shapes: Mapping[str, Sequence[int]]) -> bytes:
    """Return the graph with the shapes of its tensors written in."""
    try:
        fixed = _fixed_json if files.model.suffix == ".json" else _fixed_pdmodel
        return fixed(files, shapes)
    except ExportError:
        raise
    except Exception as error:
        said = telling_line(str(error)) or repr(error)
        raise ExportError(
            f"Paddle {paddle.__version__} cannot run {files.model} at {shapes}: {said}"
        ) from None


def _fixed_json(files: ModelFiles, shapes: Mapping[str, Sequence[int]]) -> bytes:
    """Write the shapes in Paddle 3's format."""
    if not hasattr(paddle.base.core, "deserialize_pir_program"):
        raise ExportError(
            f"{files.model} is a model of Paddle 3; this is Paddle {paddle.__version__}"
        )
    content = json.loads(files.model.read_bytes())
    written = content["program"]["regions"][0]["blocks"][0]["ops"]
    with static_mode(files):
        program = load(files)
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
        drop_feed_and_fetch(program)
        observed = _run(program, [value for _, value in tensors], shapes)
    for (entry, _), shape in zip(tensors, observed):
        entry["TT"]["D"][1] = shape
    types: dict[Any, Any] = {}
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


def _fixed_pdmodel(files: ModelFiles, shapes: Mapping[str, Sequence[int]]) -> bytes:
    """Write the shapes in Paddle 2's format."""
    with static_mode(files):
        program = load(files)
        block = program.global_block()
        inputs = [op.output("Out")[0] for op in block.ops if op.type == "feed"]
        _check_inputs(files, {name: block.var(name).shape for name in inputs}, shapes)
        used = {name for op in block.ops for name in op.input_arg_names}
        drop_feed_and_fetch(program)
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


def _check_inputs(
    files: ModelFiles, declared: Mapping[str, Sequence[int]], shapes: Mapping[str, Sequence[int]]
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
    program: static.Program, tensors: Sequence, shapes: Mapping[str, Sequence[int]]
) -> list[list[int]]:
    """Run a program that has no feed and fetch, and return the shapes that tensors take."""
    if not tensors:
        return []
    with static.program_guard(program):
        watched = [paddle.shape(tensor) for tensor in tensors]
    images = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    observed = static.Executor(paddle.CPUPlace()).run(program, feed=images, fetch_list=watched)
    return [[int(extent) for extent in shape] for shape in observed]
