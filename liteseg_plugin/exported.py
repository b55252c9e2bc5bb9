"""The exported folder: its files, and what ``deploy.yaml`` says."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from paddleseg.cvlibs import manager
from paddleseg.transforms import Compose

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.classes import numbered_classes
from liteseg_plugin.datasets.image_compose import compose, format_of
from liteseg_plugin.datasets.image_format import ImageFormat
from liteseg_plugin.errors import ConfigError, ExportError
from liteseg_plugin.system.checksums import file_sha256, value_sha256
from liteseg_plugin.system.text import read_yaml

DEPLOY_FILE = "deploy.yaml"
INPUT_NAME = "x"
"""Name of the graph's input."""
OUTPUT_NAMES = {
    "argmax": "labels",
    "confidence": "labels_and_confidence",
    "softmax": "probabilities",
    "none": "logits",
}
"""Name that servers give the output, by ``output_op``."""
OUTPUT_OPS = tuple(OUTPUT_NAMES)
MODEL_FILES = ("model.json", "model.pdmodel")
PARAMS_FILE = "model.pdiparams"
ONNX_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
INT8_REPORT_FILE = "model_int8.json"
REQUIRED_AGREEMENT = 0.9999
"""Share of pixels that must have the label of the trained network, in float32."""
NCNN_FILE = "model_ncnn.param"
NCNN_WEIGHTS_FILE = "model_ncnn.bin"
NCNN_FP16_WEIGHTS_FILE = "model_ncnn_fp16.bin"
NCNN_INT8_FILE = "model_ncnn_int8.param"
NCNN_INT8_WEIGHTS_FILE = "model_ncnn_int8.bin"
NCNN_INT8_REPORT_FILE = "model_ncnn_int8.json"
MOST_CLASSES = 256
"""Classes that 8-bit label images hold; 255 if 255 is the ignored label."""

_TRAINING = {"_base_", "model", "train_dataset", "val_dataset", "optimizer", "loss"}
_MODEL_SUFFIXES = (".json", ".onnx", ".pdiparams", ".pdmodel", ".pdparams")
_OWN_FILE_KEYS = (
    *("onnx", "onnx_int8"),
    *("ncnn", "ncnn_weights", "ncnn_fp16_weights", "ncnn_int8", "ncnn_int8_weights"),
)
FILE_KEYS = ("model", "params", *_OWN_FILE_KEYS)


@dataclass(frozen=True)
class ModelFiles:
    """A model as the runtimes load it: an export, a Paddle model or an ONNX file by itself.

    Attributes:
        model: Path of the Paddle inference model; of an ONNX file by itself, that file.
        params: Path of its weights; None for an ONNX file by itself.
        onnx: Path of the ONNX file, or None.
        onnx_int8: Path of the quantised ONNX file, or None.
        ncnn: Path of ncnn's graph, or None.
        ncnn_weights: Path of its weights, or None.
        ncnn_fp16_weights: Path of its weights in half precision, or None.
        ncnn_int8: Path of ncnn's quantised graph, or None.
        ncnn_int8_weights: Path of its weights, or None.
        input_shape: (N, C, H, W) that the model takes, with None for any size.
        scale: Scale at which the graph runs the network.
        agreement: Share of labels that were the trained network's when the model was exported, 0 to
            1, by runtime; empty where that was not checked.
    """

    model: Path
    params: Path | None = None
    onnx: Path | None = None
    onnx_int8: Path | None = None
    ncnn: Path | None = None
    ncnn_weights: Path | None = None
    ncnn_fp16_weights: Path | None = None
    ncnn_int8: Path | None = None
    ncnn_int8_weights: Path | None = None
    input_shape: tuple[int | None, ...] = (None, 3, None, None)
    scale: float = 1.0
    agreement: Mapping[str, float] = field(default_factory=dict)

    def labels_of(self, output: np.ndarray) -> np.ndarray:
        """Return the class indices (N, H, W) of the model's output: labels or scores."""
        return output.argmax(axis=1).astype("int32") if output.ndim == 4 else output


@dataclass(frozen=True)
class ExportedModel(ModelFiles):
    """An exported folder, the plugin's or PaddleSeg's; :meth:`read` reads it.

    Attributes:
        transforms: The transforms of an image, as PaddleSeg's ``Compose``.
        output_op: What the graph makes of the logits.
        classes: Names and colours; empty for exports of PaddleSeg's.
        provenance: Where the weights come from; empty likewise.
    """

    transforms: Compose = field(default_factory=lambda: Compose([]))
    output_op: str = "argmax"
    classes: list[ClassInfo] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | os.PathLike) -> ExportedModel:
        """Read an exported folder, and check that its files are complete.

        Args:
            path: The folder, or the ``deploy.yaml``, the model or the ONNX file in it.

        Raises:
            ExportError: If the folder has no complete export, or a file in it is not the one
                that was exported, or the path is another file.
        """
        path = _deploy_file(Path(path))
        try:
            content = read_yaml(path)
            if isinstance(content, dict) and "Deploy" not in content and _TRAINING & {*content}:
                raise ExportError(
                    f"{path} is a config of training, not an export; export its weights with "
                    f"liteseg export --config {shlex.quote(str(path))} --model_path WEIGHTS, or "
                    "segment images with them by liteseg predict"
                )
            deploy, own = content["Deploy"], content.get("liteseg") or {}
            transforms = [dict(t) for t in deploy["transforms"]]
            input_shape = _input_shape(deploy.get("input_shape"))
            image_format = ImageFormat.from_json(own.get("image") or {}, input_shape[1])
            exported = cls(
                model=_beside(path, deploy["model"]),
                params=_beside(path, deploy["params"]),
                **{key: _beside(path, own[key]) for key in _OWN_FILE_KEYS if own.get(key)},
                input_shape=input_shape,
                scale=_scale(own.get("evaluation_scale", 1.0)),
                agreement={k: float(v) for k, v in (own.get("agreement") or {}).items()},
                transforms=compose(
                    [manager.TRANSFORMS[t.pop("type")](**t) for t in transforms], image_format
                ),
                output_op=deploy["output_op"],
                classes=_classes(own.get("classes") or []),
                provenance=dict(own.get("provenance") or {}),
            )
            if exported.output_op not in OUTPUT_OPS:
                raise ValueError(f"output_op {exported.output_op!r}")
            if len(exported.classes) > MOST_CLASSES:
                raise ValueError(
                    f"{len(exported.classes)} classes; 8-bit labels hold {MOST_CLASSES}"
                )
            checksums = own.get("sha256") or {}
            if not isinstance(checksums, dict):
                raise ValueError(f"sha256 {checksums!r} must be checksums by file name")
            is_changed = DEPLOY_FILE in checksums and checksums[DEPLOY_FILE] != deploy_sha256(
                content
            )
        except FileNotFoundError as error:
            if path.is_file():
                raise ExportError(
                    f"the export in {path.parent} is incomplete: {error.filename} is missing; "
                    "export again in the same way"
                ) from None
            raise ExportError(
                f"{path.parent} is not an exported folder: {error.filename} is missing"
                f"{_way_out(path.parent)}"
            ) from None
        except ConfigError as error:
            raise ExportError(f"{path} is not the deploy.yaml of an export: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ExportError(f"{path} is not the deploy.yaml of an export: {error!r}") from error
        if is_changed:
            raise ExportError(
                f"{path} is damaged or was edited: it does not hold what was exported. Export "
                f"again; if you edited it yourself, remove the line {DEPLOY_FILE} of its sha256"
            )
        for file in filter(None, (getattr(exported, key) for key in FILE_KEYS)):
            # Paddle loads truncated weights, and computes wrong results with them.
            if checksums.get(file.name) not in (None, file_sha256(file)):
                raise ExportError(f"{file} is not the exported file; export again")
        return exported

    @property
    def image_format(self) -> ImageFormat:
        """The images that it takes."""
        return format_of(self.transforms)

    def labels_of(self, output: np.ndarray) -> np.ndarray:
        """Return the class indices (N, H, W) of the graph's output, by ``output_op``."""
        if self.output_op == "confidence":
            return output[:, 0].astype("int32")
        return super().labels_of(output)

    def named_classes(self) -> list[ClassInfo]:
        """Return names and colours; numbers and PaddleSeg's colours for exports without them."""
        return self.classes or numbered_classes(256)


def deploy_sha256(content: dict[str, Any]) -> str:
    """Return the SHA-256 of what a ``deploy.yaml`` says, but for this one."""
    sums = {k: v for k, v in content["liteseg"]["sha256"].items() if k != DEPLOY_FILE}
    return value_sha256({**content, "liteseg": {**content["liteseg"], "sha256": sums}})


def _classes(entries: Any) -> list[ClassInfo]:
    if not isinstance(entries, list):
        raise ValueError(f"classes {entries!r} must be a list")
    return [ClassInfo.from_json(entry) for entry in entries]


def _way_out(folder: Path) -> str:
    """Return what makes an export, for a user who named another folder."""
    if any((folder / name).is_file() for name in ("run.json", "metrics.csv")):
        name = shlex.quote(str(folder))
        return f". It is a training's: liteseg export --run {name} --save_dir EXPORTED exports it"
    return "; liteseg export writes one"


def _deploy_file(path: Path) -> Path:
    """Return the ``deploy.yaml`` of what a user named.

    Raises:
        ExportError: If it is a file that is not of an export.
    """
    if path.suffix in (".yaml", ".yml"):
        return path
    if path.is_dir() or (not path.is_file() and path.suffix not in _MODEL_SUFFIXES):
        return path / DEPLOY_FILE
    deploy = path.with_name(DEPLOY_FILE)
    if not path.exists():
        raise ExportError(f"{path} does not exist; give the folder that liteseg export wrote")
    if path.suffix not in _MODEL_SUFFIXES:
        raise ExportError(f"{path} is not an export; give the folder that liteseg export wrote")
    if path.suffix == ".pdparams":
        raise ExportError(
            f"{path} holds trained weights, not an export; export them with liteseg export "
            f"--config CONFIG --model_path {shlex.quote(str(path))}, or segment images with them "
            "by liteseg predict"
        )
    if not deploy.is_file():
        raise ExportError(
            f"{path} is a model without a {DEPLOY_FILE} beside it, which says how images are "
            "prepared; give a folder that liteseg export wrote"
        )
    if path.name == INT8_FILE:
        raise ExportError(f"for {path} give its folder {path.parent}, and the precision int8")
    return deploy


def _input_shape(written: list | None) -> tuple[int | None, ...]:
    """Read an input shape; PaddleSeg writes -1 for an open extent, and for four of them None."""
    shape = tuple(
        None if n is None or n == -1 else int(n) for n in written or [None, 3, None, None]
    )
    if len(shape) != 4 or any(n is not None and n < 1 for n in shape):
        raise ValueError(f"input_shape {written}")
    return shape


def _scale(written: Any) -> float:
    scale = float(written)
    if not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"evaluation_scale {written!r} is not a positive number")
    return scale


def _beside(deploy: Path, name: str) -> Path:
    """Return a file of the exported folder; names outside the folder are errors."""
    if Path(name).name != name:
        raise ExportError(f"{deploy} names {name!r}, which is not a file beside it")
    path = deploy.with_name(name)
    if not path.is_file():
        raise FileNotFoundError(2, "missing", str(path))
    return path
