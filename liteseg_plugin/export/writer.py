"""Export to a Paddle inference model whose label maps are those of evaluation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import paddle
from paddle import nn
from paddleseg.utils import logger

from liteseg_plugin import __version__
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.image_format import RGB, ImageFormat
from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.graph import ExportedNetwork
from liteseg_plugin.export.onnx import convert
from liteseg_plugin.exported import (
    DEPLOY_FILE,
    MODEL_FILES,
    MOST_CLASSES,
    ONNX_FILE,
    OUTPUT_OPS,
    PARAMS_FILE,
    replace_files,
)
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
    save_dir = Path(save_dir)
    save_dir.mkdir(parents=True, exist_ok=True)

    layers = network.sublayers(include_self=True)
    before = [(layer, layer.training, vars(layer).get("forward")) for layer in layers]
    network.eval()
    spec = [paddle.static.InputSpec(list(shape), "float32", "x")]
    try:
        graph = paddle.jit.to_static(
            ExportedNetwork(network, output_op, scale),
            spec,
            full_graph=True,  # the same files; without it, Paddle 3 warns of the input spec
        )
        with scratch_folder(save_dir, "export") as complete:
            paddle.jit.save(graph, f"{complete}/model")
            model = next(f for f in MODEL_FILES if Path(complete, f).exists())
            files = [model, PARAMS_FILE]
            if onnx_opset is not None:
                model_path, params_path = (Path(complete, name) for name in files)
                convert(model_path, params_path, Path(complete, ONNX_FILE), onnx_opset)
                files.append(ONNX_FILE)
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
                    "sha256": {name: file_sha256(Path(complete, name)) for name in files},
                    "provenance": {
                        **(provenance or {}),
                        "liteseg_plugin": __version__,
                        "paddle": paddle.__version__,
                    },
                },
            }
            removed = replace_files(save_dir, complete, deploy)
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
    if removed:
        logger.info(
            f"Removed from {save_dir}: {', '.join(removed)}, which belonged to the earlier export"
        )
    return save_dir / DEPLOY_FILE
