"""Export to a Paddle inference model whose label maps are those of evaluation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from liteseg_plugin import __version__
from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.folder import DEPLOY_FILE, file_sha256, replace_files
from liteseg_plugin.export.onnx import convert
from liteseg_plugin.models.resize import (
    Extent,
    apply_columns,
    apply_matrices,
    bilinear_matrices,
    sample,
    spatial_size,
)

OUTPUT_OPS = ("argmax", "softmax", "none")
MODEL_FILES = ("model.json", "model.pdmodel")
PARAMS_FILE = "model.pdiparams"
ONNX_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
MOST_CLASSES = 256
"""That label images, which are 8-bit, hold; with 255 as the label that does not count, 255."""

# Strips of rows that labels are computed in; see _labels_in_strips.
STRIPS = 8
# Rows of the logits around those that a strip covers that interpolation may need.
STRIP_MARGIN = 2


class ExportedNetwork(nn.Layer):
    """A network, the scale it is evaluated at, and what is made of its logits: one graph.

    Args:
        network: Gives a list whose first entry are the logits.
        output_op: One of ``OUTPUT_OPS``.
        scale: The network sees the image resized by this, and its logits are resized back, as
            PaddleSeg's evaluation does with ``aug_eval: True, scales: 0.5``.
    """

    def __init__(self, network: nn.Layer, output_op: str, scale: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self._output_op = output_op
        self._scale = scale

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map normalised images (N, 3, H, W) to labels (N, H, W), or scores (N, C, H, W)."""
        sizes = [spatial_size(x)]
        if self._scale != 1:
            sizes.insert(0, tuple(_scaled(extent, self._scale) for extent in sizes[0]))
            x = sample(x, sizes[0])
        if hasattr(self.network, "coarse_logits"):
            logit = self.network.coarse_logits(x)[0]
        else:
            logit = self.network(x)[0]
            sizes.pop(0)
        if sizes:
            # One product to the image's size, past those between.
            rows, columns = bilinear_matrices(spatial_size(logit), *sizes)
            if self._output_op == "argmax":
                return _labels_in_strips(rows, logit, columns, sizes[-1])
            logit = apply_matrices(rows, logit, columns)
        if self._output_op == "argmax":
            return paddle.argmax(logit, axis=1, dtype="int32")
        return nn.functional.softmax(logit, axis=1) if self._output_op == "softmax" else logit


def _labels_in_strips(
    rows: paddle.Tensor,
    logit: paddle.Tensor,
    columns: paddle.Tensor,
    size_hw: tuple[Extent, Extent],
) -> paddle.Tensor:
    """Resize logits (N, C, h, w) by (H, h) rows and (W, w) columns, and give labels (N, H, W).

    A few rows of labels at a time: their scores stay in the cache, and need but some of the rows
    of the logits. All at once, the scores are the largest tensor of the network by far.

    The scores are one column wider than the labels: at a width like 1024, those of one pixel would
    lie a multiple of 4096 bytes apart, in cache lines that displace each other, and an argmax over
    classes would take twice as long.
    """
    source, _ = spatial_size(logit)
    height, width = size_hw
    logit = apply_columns(logit, paddle.concat([columns, columns[-1:]]))
    strip_height = (height + STRIPS - 1) // STRIPS
    whole = isinstance(height, int) and height % STRIPS == 0
    if not whole:
        # Strips of one height, none of them empty, which Paddle 2.6 cannot multiply.
        rows = paddle.concat([rows, paddle.expand(rows[-1:], [STRIPS - 1, source])])
    labels = []
    for strip in range(STRIPS):
        top, bottom = strip_height * strip, strip_height * (strip + 1)
        first = _clip(top * source // height - STRIP_MARGIN, 0, source - 1)
        last = _clip(bottom * source // height + STRIP_MARGIN + 1, 1, source)
        weights = paddle.slice(rows, [0, 1], [top, first], [bottom, last])
        scores = paddle.matmul(weights, paddle.slice(logit, [2], [first], [last]))
        labels.append(paddle.argmax(scores, axis=1, dtype="int32"))
    return paddle.slice(paddle.concat(labels, axis=1), [1, 2], [0, 0], [height, width])


def _clip(value: Extent, low: int, high: Extent) -> Extent:
    if isinstance(value, int) and isinstance(high, int):
        return min(max(value, low), high)
    value, low, high = (paddle.to_tensor(n, dtype="int64") for n in (value, low, high))
    return paddle.minimum(paddle.maximum(value, low), high)


def export_model(
    network: nn.Layer,
    save_dir: str | os.PathLike,
    *,
    transforms: Sequence[dict],
    output_op: str = "argmax",
    input_shape: Sequence[int | None] | None = None,
    scale: float = 1.0,
    classes: Sequence[dict] = (),
    provenance: dict[str, str] | None = None,
    onnx_opset: int | None = None,
) -> Path:
    """Write the inference model, its weights, and a ``deploy.yaml`` that is true.

    The files appear in ``save_dir`` when all of them are complete; an export that is there works
    until then. Other files stay. The network itself is left as it was.

    Args:
        network: The trained network.
        save_dir: Folder to write to; made if need be.
        transforms: The transforms of the images, as in the config's ``val_dataset``.
        output_op: ``argmax`` for labels, ``softmax`` for probabilities, ``none`` for logits.
        input_shape: (N, 3, H, W) of the graph's input; None (of all, or of one) leaves it open.
        scale: Evaluation scale; see :class:`ExportedNetwork`.
        classes: Names and colours, ``{"name": "road", "color": [128, 64, 128]}``, in index order.
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
    shape = [None, 3, None, None] if input_shape is None else list(input_shape)
    if len(shape) != 4 or any(n is not None and n < 1 for n in shape) or shape[1] != 3:
        raise ExportError(f"input_shape is N 3 H W, each at least 1, got {shape}")
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
        graph = paddle.jit.to_static(ExportedNetwork(network, output_op, scale), spec)
        with tempfile.TemporaryDirectory(dir=save_dir, prefix=".export-") as complete:
            paddle.jit.save(graph, f"{complete}/model")
            model = next(f for f in MODEL_FILES if Path(complete, f).exists())
            files = [model, PARAMS_FILE]
            if onnx_opset is not None:
                convert(*(Path(complete, name) for name in (*files, ONNX_FILE)), onnx_opset)
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
                    "classes": [dict(c) for c in classes],
                    "onnx": ONNX_FILE if onnx_opset is not None else None,
                    "sha256": {name: file_sha256(Path(complete, name)) for name in files},
                    "provenance": {
                        **(provenance or {}),
                        "liteseg_plugin": __version__,
                        "paddle": paddle.__version__,
                    },
                },
            }
            replace_files(save_dir, Path(complete), deploy)
            for stale in {*MODEL_FILES, ONNX_FILE, INT8_FILE}.difference(files):
                (save_dir / stale).unlink(missing_ok=True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ExportError(
            f"Paddle {paddle.__version__} cannot trace the network: {error}"
        ) from error
    finally:
        for layer, training, forward in before:
            layer.training = training
            # Paddle 2.6 and 3.0 leave there what they traced, which 3.0 cannot run eagerly.
            vars(layer).pop("forward", None)
            if forward is not None:
                layer.forward = forward
    return save_dir / DEPLOY_FILE


def evaluation_scale(test_config: dict) -> float:
    """Return the one scale that evaluation runs the network at, from a config's ``test_config``.

    Raises:
        ExportError: If it averages several scales or flips, which one graph does not.
    """
    if test_config.get("is_slide"):
        raise ExportError("test_config slides a window, which one graph does not; remove is_slide")
    if not test_config.get("aug_eval", False):
        return 1.0
    scales = test_config.get("scales", 1.0)
    scales = np.atleast_1d(scales).astype(float).tolist()
    if len(scales) > 1 or test_config.get("flip_horizontal") or test_config.get("flip_vertical"):
        raise ExportError(
            f"test_config averages several inferences ({test_config}); an exported model makes "
            "one. Give a single scale and no flips, e.g. --opts test_config.scales=1.0"
        )
    return scales[0]


def _scaled(extent: Extent, scale: float) -> Extent:
    """Round as PaddleSeg's evaluation does."""
    if isinstance(extent, int):
        return int(extent * scale + 0.5)
    return paddle.floor(extent.astype("float32") * scale + 0.5).astype("int64")
