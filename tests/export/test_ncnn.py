"""Exports for ncnn, run by ncnn, against the network in eager mode."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import paddle
import pytest
import yaml

from liteseg_plugin.errors import ExportError
from liteseg_plugin.evaluation.verify import spot_check
from liteseg_plugin.export.ncnn import NCNN_FILES
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.inference.predictor import Predictor

TRANSFORMS = [{"type": "Normalize"}]

installed = pytest.mark.skipif(
    any(find_spec(module) is None for module in ("paddle2onnx", "onnxruntime", "ncnn", "pnnx")),
    reason="needs the extra ncnn, which scripts/test.sh installs",
)


def eager(net, images):
    net.eval()
    with paddle.no_grad():
        return net(paddle.to_tensor(images))[0].numpy()


def noise(shape):
    return np.random.default_rng(2).normal(size=shape).astype("float32")


@pytest.mark.slow
@installed
@pytest.mark.parametrize("size_hw", [(97, 131), (128, 128)])
def test_ncnn_equals_eager(build_network, randomized, tmp_path, size_hw):
    net = randomized(build_network("T"), seed=3)
    shape = (1, 3, *size_hw)
    settings = {"output_op": "none", "input_shape": shape, "ncnn": True}
    export_model(net, tmp_path, transforms=TRANSFORMS, **settings)
    images = noise(shape)
    expected = eager(net, images)
    largest = np.abs(expected).max()
    output = Predictor(tmp_path, "ncnn").run(images)
    assert np.abs(output - expected).max() <= 2e-5 * largest
    picture = np.random.default_rng(4).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    predictor = Predictor(tmp_path, "ncnn")
    scores = paddle.to_tensor(eager(net, predictor.preprocess(picture)))
    sure = paddle.nn.functional.softmax(scores, axis=1).max(1).numpy()[0]
    assert np.abs(predictor.predict(picture).confidence - sure).max() < 1e-3
    assert sure.std() > 0.01
    # Weights of half precision change the logits, and few labels.
    half = Predictor(tmp_path, "ncnn", precision="fp16").run(images)
    assert 1e-5 * largest < np.abs(half - expected).max() < 1e-2 * largest
    assert (half.argmax(1) == expected.argmax(1)).mean() >= 0.99


@pytest.fixture(scope="module")
def small(pointwise, made_once):
    """Return the folder of a small export for ncnn that gives labels."""
    settings = {"transforms": TRANSFORMS, "input_shape": (1, 3, 20, 30), "ncnn": True}
    return made_once("ncnn", lambda folder: export_model(pointwise(), folder, **settings))


@installed
def test_ncnn_gives_labels(small, pointwise):
    images = noise((1, 3, 20, 30))
    labels = Predictor(small, "ncnn").run(images)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, eager(pointwise(), images).argmax(1))
    assert spot_check(pointwise(), small, {}).agreement["ncnn"] == 1


@installed
def test_ncnn_export_is_one_of_the_exported_folder(small, pointwise, tmp_path):
    exported = ExportedModel.read(small)
    files = (exported.ncnn, exported.ncnn_weights, exported.ncnn_fp16_weights)
    assert tuple(file.name for file in files) == NCNN_FILES
    for file in small.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / NCNN_FILES[1]).write_bytes(b"other weights")
    with pytest.raises(ExportError, match=r"model_ncnn\.bin is not the exported file"):
        Predictor(tmp_path, "ncnn")
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS)
    assert not {path.name for path in tmp_path.iterdir()}.intersection(NCNN_FILES)
    with pytest.raises(ExportError, match="no ncnn file; export with --format ncnn"):
        Predictor(tmp_path, "ncnn")


@installed
def test_ncnn_refuses_a_graph_that_it_cannot_load(small, tmp_path):
    for file in small.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / NCNN_FILES[0]).write_text("7767517\n1 1\nUnknown a 0 1 in0\n")
    description = yaml.safe_load((tmp_path / "deploy.yaml").read_text())
    del description["liteseg"]["sha256"]
    (tmp_path / "deploy.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(ExportError, match=r"ncnn cannot load .*model_ncnn\.param"):
        Predictor(tmp_path, "ncnn")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_shape": None}, "add --input_shape 1 3 H W"),
        ({"input_shape": (2, 3, 20, 30)}, "one image at a time"),
        ({"output_op": "softmax"}, "must be argmax or none, got 'softmax'"),
    ],
)
def test_ncnn_refuses_what_it_cannot_do(pointwise, tmp_path, changes, reason):
    settings = {"input_shape": (1, 3, 20, 30), "ncnn": True, **changes}
    with pytest.raises(ExportError, match=reason):
        export_model(pointwise(), tmp_path, transforms=TRANSFORMS, **settings)


@pytest.mark.skipif(find_spec("paddle2onnx") is None, reason="needs the extra onnx")
def test_missing_converter_says_how_to_install_it(monkeypatch, pointwise, tmp_path):
    monkeypatch.setattr("liteseg_plugin.export.ncnn.find_spec", lambda name: None)
    settings = {"input_shape": (1, 3, 20, 30), "ncnn": True}
    with pytest.raises(ExportError, match="pnnx is not installed: pip install --no-deps pnnx"):
        export_model(pointwise(), tmp_path, transforms=TRANSFORMS, **settings)
    assert not list(tmp_path.iterdir())  # nothing half exported


@installed
def test_missing_ncnn_says_which_extra(monkeypatch, small):
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(ExportError, match=r"ncnn is not installed: .*\[ncnn\]"):
        Predictor(small, "ncnn")
