"""The exports that a benchmark times: the plugin's, and PaddleSeg's of the same weights."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import paddle
import yaml
from paddle import nn
from paddleseg.cvlibs import manager
from paddleseg.deploy.export import WrappedModel
from paddleseg.models.pp_liteseg import PPLiteSeg

from liteseg_plugin.datasets.image_format import ImageFormat
from liteseg_plugin.export.onnx import DEFAULT_OPSET, convert
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import (
    DEPLOY_FILE,
    MODEL_FILES,
    ONNX_FILE,
    PARAMS_FILE,
    ExportedModel,
    ModelFiles,
)
from liteseg_plugin.integration.registry import register

if TYPE_CHECKING:
    from paddleseg.cvlibs import SegBuilder

# The plugin's keys for training; PaddleSeg's class does not know them.
_OF_TRAINING = ("backbone_init", "frozen")
_TRANSFORMS = [{"type": "Normalize"}]


@contextlib.contextmanager
def exports_to_time(
    network: nn.Layer | None,
    input_shape: Sequence[int],
    *,
    exported: ExportedModel | None,
    onnx_file: str | None,
    with_onnx: bool,
    with_ncnn: bool,
    against: SegBuilder | None,
) -> Iterator[dict[str, ModelFiles]]:
    """Give exports by name; those that are made lie in temporary folders.

    Args:
        network: The network to export; None with ``exported`` or ``onnx_file`` alone.
        input_shape: (N, 3, H, W) of what is made.
        exported: An export to take instead of a new one.
        onnx_file: An ONNX file to take instead of a new export.
        with_onnx: Whether to convert to ONNX what is made.
        with_ncnn: Whether to convert the plugin's export to ncnn, too.
        against: Builder of a config, to add PaddleSeg's own network and export of the same
            weights; None to leave these out.
    """
    with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
        exports: dict[str, ModelFiles] = {}
        if onnx_file:
            exports["liteseg_plugin"] = ModelFiles(Path(onnx_file), onnx=Path(onnx_file))
        else:
            if network is not None and not exported:
                export_model(
                    network,
                    ours,
                    transforms=_TRANSFORMS,
                    image_format=ImageFormat(input_shape[1]),
                    input_shape=input_shape,
                    onnx_opset=DEFAULT_OPSET if with_onnx else None,
                    ncnn=with_ncnn,
                )
            exports["liteseg_plugin"] = exported or ExportedModel.read(ours)
        if against is not None and network is not None:
            stock = _build_stock(against)
            stock.set_state_dict(network.state_dict())
            export_as_paddleseg(stock, theirs, input_shape, with_onnx)
            exports["paddleseg"] = ExportedModel.read(theirs)
        yield exports


def export_as_paddleseg(
    network: nn.Layer, folder: str | os.PathLike, input_shape: Sequence[int], onnx: bool
) -> Path:
    """Export a network of PaddleSeg's own class as PaddleSeg's tools/export.py does, with argmax.

    Args:
        network: PaddleSeg's network.
        folder: Where the files go; it is returned.
        input_shape: (N, 3, H, W); at an open size PaddleSeg's export cannot be converted to ONNX.
        onnx: Whether to convert it with paddle2onnx.
    """
    network.eval()
    spec = [paddle.static.InputSpec(list(input_shape), "float32", "x")]
    graph = paddle.jit.to_static(WrappedModel(network, "argmax"), spec, full_graph=True)
    paddle.jit.save(graph, f"{folder}/model")
    folder = Path(folder)
    model = next(f for f in MODEL_FILES if (folder / f).exists())
    deploy = {
        "model": model,
        "params": PARAMS_FILE,
        "transforms": _TRANSFORMS,
        "output_op": "argmax",
        "input_shape": [*input_shape],
    }
    if onnx:
        convert(folder / model, folder / PARAMS_FILE, folder / ONNX_FILE, DEFAULT_OPSET)
    own = {"onnx": ONNX_FILE if onnx else None}
    text = yaml.safe_dump({"Deploy": deploy, "liteseg": own})
    (folder / DEPLOY_FILE).write_text(text, encoding="utf-8")
    return folder


def _build_stock(builder: SegBuilder) -> nn.Layer:
    """Build PaddleSeg's own class from the same config."""
    known = {k: v for k, v in builder.config.model_cfg.items() if k not in _OF_TRAINING}
    manager.MODELS.components_dict["PPLiteSeg"] = PPLiteSeg
    try:
        return builder.build_component(known)
    finally:
        register()
