"""Export to a Paddle inference model whose label maps are those of evaluation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import paddle
from paddle import nn
from paddleseg.utils import logger

from liteseg_plugin import __version__
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.image_format import RGB, ImageFormat
from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.graph import ExportedNetwork, graph_of
from liteseg_plugin.export.ncnn import NCNN_FILES, NCNN_KEYS, convert_to_ncnn
from liteseg_plugin.export.onnx import DEFAULT_OPSET, convert, tidy
from liteseg_plugin.export.plain import simplify
from liteseg_plugin.export.replacing import replace_files
from liteseg_plugin.exported import (
    DEPLOY_FILE,
    MODEL_FILES,
    MOST_CLASSES,
    ONNX_FILE,
    OUTPUT_OPS,
    PARAMS_FILE,
)
from liteseg_plugin.models.resize import plain_operators
from liteseg_plugin.system.checksums import file_sha256
from liteseg_plugin.system.files import scratch_folder


def export_model(
    network: nn.Layer,
    save_dir: str | os.PathLike,
    *,
    transforms: Sequence[dict],
    image_format: ImageFormat = RGB,
    output_op: str = "argmax",
    input_shape: Sequence[int | None] | None = None,
    scale: float = 1.0,
    classes: Sequence[ClassInfo] = (),
    provenance: dict[str, str] | None = None,
    onnx_opset: int | None = None,
    plain: bool = False,
    ncnn: bool = False,
) -> Path:
    """Write the inference model, its weights, and its ``deploy.yaml``.

    The files appear in ``save_dir`` when all of them are complete; an earlier export works until
    then. Its ONNX and INT8 models are removed if the new export does not replace them, which is
    logged; files of others stay. The network itself does not change.

    Args:
        network: The trained network.
        save_dir: Folder to write to; created if missing.
        transforms: The transforms of the images, as in the config's ``val_dataset``.
        image_format: Of the images.
        output_op: ``argmax`` for labels, ``confidence`` for labels and their probabilities,
            ``softmax`` for the probabilities of all classes, ``none`` for logits.
        input_shape: (N, C, H, W) of the graph's input; None (of all, or of one) leaves it open.
        scale: Evaluation scale; see :class:`ExportedNetwork`.
        classes: Names and colours, in index order.
        provenance: Where the weights come from; written as it is.
        onnx_opset: Also write an ONNX file, of this operator set.
        plain: Whether the ONNX file is for engines of small boards: of a fixed size, without
            matrix products and shapes that are computed.
        ncnn: Also write files for ncnn, which take one image of a fixed size.

    Returns:
        The path of ``deploy.yaml``.

    Raises:
        ExportError: If the shape, the output op or the number of classes cannot be, or Paddle
            cannot trace the network.
    """
    if output_op not in OUTPUT_OPS:
        raise ExportError(f"unknown output_op {output_op!r}; choose one of {OUTPUT_OPS}")
    channels = image_format.channels
    shape = [None, channels, None, None] if input_shape is None else list(input_shape)
    if len(shape) != 4 or any(n is not None and n < 1 for n in shape) or shape[1] != channels:
        raise ExportError(f"input_shape must be N {channels} H W, each at least 1, got {shape}")
    if len(classes) > MOST_CLASSES:
        raise ExportError(
            f"{len(classes)} classes; label images are 8-bit and hold up to {MOST_CLASSES}"
        )
    if plain and onnx_opset is None and not ncnn:
        raise ExportError("a plain graph is an ONNX file: add --format onnx")
    if (plain or ncnn) and None in shape:
        what = "ncnn" if ncnn else "a plain graph"
        raise ExportError(
            f"{what} has a fixed size: add --input_shape 1 {channels} H W, got {shape}"
        )
    if ncnn and shape[0] != 1:
        raise ExportError(
            f"ncnn takes one image at a time: --input_shape 1 {channels} H W, got {shape}"
        )
    if ncnn and output_op not in ("argmax", "none"):
        raise ExportError(f"for ncnn, output_op must be argmax or none, got {output_op!r}")
    save_dir = Path(save_dir)
    save_dir.mkdir(parents=True, exist_ok=True)
    with scratch_folder(save_dir, "export") as complete:
        model = _save_graph(network, graph_of(network, output_op, scale), shape, complete)
        files = [model, PARAMS_FILE]
        if onnx_opset is not None:
            target = Path(complete, ONNX_FILE)
            if plain:
                _write_plain(network, output_op, scale, shape, target, onnx_opset)
            else:
                convert(complete / model, complete / PARAMS_FILE, target, onnx_opset)
                if None not in shape:
                    tidy(target)
            files.append(ONNX_FILE)
        if ncnn:
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder, ONNX_FILE)
                _write_plain(network, "none", scale, shape, target, DEFAULT_OPSET)
                convert_to_ncnn(target, shape, complete)
            files += NCNN_FILES
        deploy = {
            "Deploy": {
                "model": model,
                "params": PARAMS_FILE,
                "transforms": [dict(t) for t in transforms],
                # As PaddleSeg writes it: -1 is a dimension left open.
                "input_shape": [-1 if n is None else n for n in shape],
                "output_op": output_op,
                "output_dtype": "int32" if output_op == "argmax" else "float32",
            },
            "liteseg": {
                "evaluation_scale": scale,
                "image": image_format.to_json(),
                "classes": [entry.to_json() for entry in classes],
                "onnx": ONNX_FILE if onnx_opset is not None else None,
                **(dict(zip(NCNN_KEYS, NCNN_FILES)) if ncnn else {}),
                "sha256": {name: file_sha256(Path(complete, name)) for name in files},
                "provenance": {
                    **(provenance or {}),
                    "liteseg_plugin": __version__,
                    "paddle": paddle.__version__,
                },
            },
        }
        removed = replace_files(save_dir, complete, deploy)
    if removed:
        logger.info(
            f"Removed from {save_dir}: {', '.join(removed)}, which belonged to the earlier export"
        )
    return save_dir / DEPLOY_FILE


def _write_plain(
    network: nn.Layer,
    output_op: str,
    scale: float,
    shape: Sequence[int | None],
    target: Path,
    opset: int,
) -> None:
    """Write the ONNX file of a plain graph."""
    graph = graph_of(network, output_op, scale, plain=True)
    with tempfile.TemporaryDirectory() as name, plain_operators():
        folder = Path(name)
        model = _save_graph(network, graph, shape, folder)
        convert(folder / model, folder / PARAMS_FILE, target, opset)
    simplify(target)


def _save_graph(
    network: nn.Layer, graph: ExportedNetwork, shape: Sequence[int | None], folder: Path
) -> str:
    """Trace the graph of a network, and write it into a folder; return the name of its file."""
    layers = network.sublayers(include_self=True)
    before = [(layer, layer.training, vars(layer).get("forward")) for layer in layers]
    network.eval()
    spec = [paddle.static.InputSpec(list(shape), "float32", "x")]
    try:
        # full_graph: the same files; without it, Paddle 3 warns of the input spec.
        paddle.jit.save(paddle.jit.to_static(graph, spec, full_graph=True), f"{folder}/model")
    except (RuntimeError, ValueError, TypeError) as error:
        raise ExportError(
            f"Paddle {paddle.__version__} cannot trace the network: {error}"
        ) from error
    finally:
        for layer, training, forward in before:
            layer.training = training
            # Paddle 2.6 and 3.0 leave the traced functions there, which 3.0 cannot run eagerly.
            vars(layer).pop("forward", None)
            if forward is not None:
                vars(layer)["forward"] = forward
    return next(name for name in MODEL_FILES if (folder / name).exists())
