"""An export over an export: at every moment the folder is the old one or the new one, whole."""

from __future__ import annotations

import hashlib
import shutil
import sys
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml

from liteseg_plugin.export.replacing import _tag, replace_files
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.predictor import Predictor

WITH_ONNX = all(find_spec(name) for name in ("paddle2onnx", "onnxruntime"))
TRANSFORMS = [{"type": "Normalize"}]
IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)

_recorder = None


def _audit(event, arguments):
    if _recorder is not None and event in ("open", "os.rename", "os.remove", "os.rmdir", "os.link"):
        _recorder()


sys.addaudithook(_audit)  # which cannot be removed


@contextmanager
def states_of(folder, target):
    """Copy a folder before each change of a file, which is what a killed process leaves.

    What is written in place without Python's `open`, as Paddle does, is seen at the next change.
    """
    global _recorder
    states = {}

    def record():
        global _recorder
        _recorder = None  # copying opens files, too
        content = {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}
        key = hashlib.sha256(repr(content).encode()).hexdigest()
        if key not in states:
            states[key] = target / str(len(states))
            states[key].mkdir(parents=True)
            for name, data in content.items():
                (states[key] / name).write_bytes(data)
        _recorder = record

    _recorder = record
    try:
        yield states
        record()
    finally:
        _recorder = None


def other(pointwise):
    net = pointwise()
    net.conv.weight.set_value(paddle.flip(net.conv.weight, axis=[0]))
    return net


def test_export_over_an_export_is_the_old_or_the_new_at_every_moment(pointwise, tmp_path):
    folder = tmp_path / "exported"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="full_graph")  # an export is quiet
        export_model(pointwise(), folder, transforms=TRANSFORMS)
    (folder / "notes.txt").write_text("mine")
    names = {path.name for path in folder.iterdir()}
    old = Predictor(folder)(IMAGE).tolist()
    with states_of(folder, tmp_path / "states") as states:
        export_model(other(pointwise), folder, transforms=TRANSFORMS)
    new = Predictor(folder)(IMAGE).tolist()
    assert new != old
    seen = [Predictor(state)(IMAGE).tolist() for state in states.values()]
    assert len(seen) > 5
    switch = seen.index(new)
    assert seen == [old] * switch + [new] * (len(seen) - switch)
    assert {path.name for path in folder.iterdir()} == names
    assert all((state / "notes.txt").read_text() == "mine" for state in states.values())


def test_export_into_a_folder_of_others_keeps_their_files(pointwise, tmp_path):
    (tmp_path / "model.onnx").write_text("of another program")
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS)
    assert (tmp_path / "model.onnx").read_text() == "of another program"


def test_export_over_what_a_killed_export_left(pointwise, tmp_path):
    folder = tmp_path / "exported"
    export_model(pointwise(), folder, transforms=TRANSFORMS)
    names = {path.name for path in folder.iterdir()}
    with states_of(folder, tmp_path / "states") as states:
        export_model(other(pointwise), folder, transforms=TRANSFORMS)
    new = Predictor(folder)(IMAGE).tolist()
    left = max(states.values(), key=lambda state: len([*state.iterdir()]))
    assert {path.name for path in left.iterdir()} > names
    export_model(other(pointwise), left, transforms=TRANSFORMS)
    # Hidden files bear the number of this process, which has not ended: these stay.
    assert {path.name for path in left.iterdir() if not path.name.startswith(".")} == names
    assert Predictor(left)(IMAGE).tolist() == new


@pytest.mark.skipif(not WITH_ONNX, reason="needs the extra onnx, which scripts/test.sh installs")
def test_int8_model_over_another_is_the_old_or_the_new_at_every_moment(pointwise, tmp_path):
    """As quantize writes it; the networks are float32, which nothing here looks at."""
    folders = {name: tmp_path / name for name in ("exported", "old", "new")}
    for name, net in zip(folders, (pointwise(), pointwise(), other(pointwise))):
        export_model(net, folders[name], transforms=TRANSFORMS, onnx_opset=13)
    folder = folders["exported"]

    def put(name):
        work = tmp_path / "work"
        work.mkdir()
        content = (folders[name] / "model.onnx").read_bytes()
        (work / "model_int8.onnx").write_bytes(content)
        deploy = yaml.safe_load((folder / "deploy.yaml").read_text(encoding="utf-8"))
        deploy["liteseg"]["onnx_int8"] = "model_int8.onnx"
        deploy["liteseg"]["sha256"]["model_int8.onnx"] = hashlib.sha256(content).hexdigest()
        replace_files(folder, work, deploy)
        shutil.rmtree(work)

    def labels(state, precision):
        return Predictor(state, "onnxruntime", precision=precision)(IMAGE).tolist()

    put("old")
    in_float, old = labels(folder, "fp32"), labels(folder, "int8")
    with states_of(folder, tmp_path / "states") as states:
        put("new")
    new = labels(folder, "int8")
    assert new != old
    seen = [labels(state, "int8") for state in states.values()]
    switch = seen.index(new)
    assert len(seen) > 3
    assert seen == [old] * switch + [new] * (len(seen) - switch)
    assert all(labels(state, "fp32") == in_float for state in states.values())
    assert not [path for path in Path(folder).iterdir() if "-export" in path.name]


def test_files_of_other_content_are_staged_under_other_names(tmp_path):
    """What is in use until the last step must not be what the next export writes."""
    tags = set()
    for content in (b"one", b"two"):
        (tmp_path / "model.onnx").write_bytes(content)
        tags.add(_tag(tmp_path, ["model.onnx"]))
    assert len(tags) == 2
