"""Model repositories of Triton and of OpenVINO Model Server.

In both the name of a model is that of its folder, and ``1`` in it is its version. So an exported
folder becomes a model, and the folder around it the repository.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import INPUT_NAME, ONNX_FILE, OUTPUT_NAMES, ExportedModel
from liteseg_plugin.system.files import atomic_write

SERVERS = ("triton", "ovms")
"""The servers by the names that ``--format`` takes."""
TRITON_FILE = "config.pbtxt"
OVMS_FILE = "config.json"
LABELS_FILE = "labels.txt"
_MAX_BATCH = 4

_CONFIG = """\
# Written by liteseg export. deploy.yaml says how images become the input.
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [ {{ name: "{input}" data_type: TYPE_FP32 dims: [ {taken} ] }} ]
output [ {{ name: "{output}" data_type: {type} dims: [ {given} ] label_filename: "{labels}" }} ]
"""
_BATCHING = "dynamic_batching { }\n"


def require_name(folder: str | os.PathLike) -> None:
    """Refuse a folder whose name a server cannot give to a model.

    Raises:
        ExportError: If it has other characters than letters, digits, ``_``, ``.`` and ``-``.
    """
    name = Path(folder).resolve().name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ExportError(
            f"--save_dir {folder}: its name becomes that of the model, and must consist of "
            f"letters, digits, _, . and -, got {name!r}"
        )


def write_model(folder: str | os.PathLike, server: str) -> Path:
    """Make a model of a server of an exported folder with an ONNX file.

    It gets ``1/model.onnx``, the same graph whose output has the name that ``liteseg serve`` gives
    it, the names of the classes, and Triton's ``config.pbtxt``. For OpenVINO Model Server, the
    ``config.json`` in the folder above gets an entry for the model; its other entries stay.

    Args:
        folder: The exported folder.
        server: One of ``SERVERS``.

    Returns:
        The path of the config.

    Raises:
        ExportError: If there is no ONNX file, or ``config.json`` is another file.
    """
    exported = ExportedModel.read(folder)
    folder = exported.model.parent.resolve()
    require_name(folder)
    config = folder / TRITON_FILE if server == "triton" else folder.parent / OVMS_FILE
    content = _triton_config(folder.name, exported)
    if server == "ovms":
        content = _ovms_config(folder.name, config)
    output = OUTPUT_NAMES[exported.output_op]
    version = folder / "1"
    version.mkdir(exist_ok=True)
    atomic_write(version / ONNX_FILE, _named_output(exported, output))
    names = "".join(f"{entry.name}\n" for entry in exported.classes)
    atomic_write(folder / LABELS_FILE, names.encode())
    atomic_write(config, content.encode())
    return config


def _named_output(exported: ExportedModel, name: str) -> bytes:
    """Return the ONNX file of an export, with another name of its output."""
    if exported.onnx is None:
        raise ExportError(f"{exported.model.parent} has no ONNX file; export with --format onnx")
    import onnx

    model = onnx.load(str(exported.onnx))
    [output] = model.graph.output
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if each == output.name else each for each in names]
    output.name = name
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _triton_config(name: str, exported: ExportedModel) -> str:
    rows, bands, height, width = (n or -1 for n in exported.input_shape)
    scores = exported.output_op != "argmax"
    channels = 2 if exported.output_op == "confidence" else len(exported.classes) or -1
    taken, given = [bands, height, width], [*([channels] if scores else []), height, width]
    if rows != -1:  # Triton adds an extent to the batches that it makes only
        taken, given = [rows, *taken], [rows, *given]
    text = _CONFIG.format(
        name=name,
        batch=_MAX_BATCH if rows == -1 else 0,
        input=INPUT_NAME,
        taken=", ".join(map(str, taken)),
        output=OUTPUT_NAMES[exported.output_op],
        type="TYPE_FP32" if scores else "TYPE_INT32",
        given=", ".join(map(str, given)),
        labels=LABELS_FILE,
    )
    return text + (_BATCHING if rows == -1 else "")


def _ovms_config(name: str, path: Path) -> str:
    """Return the content of ``config.json`` with an entry for a model."""
    content: dict = {"model_config_list": []}
    if path.exists():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            entries = [e for e in content["model_config_list"] if e["config"]["name"] != name]
        except (ValueError, KeyError, TypeError) as error:
            raise ExportError(
                f"{path} is not a config of OpenVINO Model Server: {error!r}; choose a --save_dir "
                "in another folder"
            ) from error
    else:
        entries = []
    # Relative to config.json, so that the repository can be moved or mounted.
    entries.append({"config": {"name": name, "base_path": name}})
    return json.dumps({**content, "model_config_list": entries}, indent=2) + "\n"
