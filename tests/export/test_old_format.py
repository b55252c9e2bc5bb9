"""Exports in Paddle 2's format, which FLAGS_enable_pir_api=0 asks any Paddle for."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import ExportedModel, ModelFiles
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.runtimes.paddle import PaddleInference

CONFIG = "pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k"
HAS_OPENVINO = hasattr(paddle.inference.Config, "enable_openvino_engine")


@pytest.fixture(scope="module")
def export(process, run, build_network, randomized, made_once):
    """Return a function that exports in Paddle 2's format, and for reference in this Paddle's."""

    def export(name, arm_type, *flags):
        def make(folder):
            net = randomized(build_network("T", arm_type=arm_type), seed=1)
            paddle.save(net.state_dict(), f"{folder}/model.pdparams")
            command = ["export", "--config", CONFIG, "--model_path", folder / "model.pdparams"]
            command += ["--opts", f"model.arm_type={arm_type}", *flags, "--save_dir"]
            run(*command, folder / "new")
            process("liteseg", *command, folder / "old", cwd=folder, FLAGS_enable_pir_api="0")
            # Where Paddle's OpenVINO leaves compiled models, if nobody prevents it.
            assert not (folder / "__cache__").exists()

        folder = made_once(f"old format, {name}", make)
        old, new = (ExportedModel.read(folder / name) for name in ("old", "new"))
        assert old.model.name == "model.pdmodel"
        reference = PaddleInference(new, "cpu", 1, accelerated=False)
        return SimpleNamespace(files=old, run=reference.run)

    return export


@pytest.fixture(scope="module")
def labels(export):
    """Return an export of labels, of any size, with an evaluation scale of 0.5."""
    onnx = ("--format", "onnx") if find_spec("paddle2onnx") else ()
    return export("labels", "UAFM_SpAtten", *onnx)


def batch(count, height, width):
    return np.random.default_rng(2).normal(size=(count, 3, height, width)).astype("float32")


def agreement(output, expected):
    assert output.shape == expected.shape and len(np.unique(expected)) > 1
    return (output == expected).mean()


@pytest.mark.smoke
def test_labels_are_those_of_the_usual_format_in_every_runtime(labels):
    for name in catalog.installed_for(labels.files):
        engine = catalog.create(name, labels.files, "cpu", 2)
        for shape in ((1, 96, 224), (2, 97, 131), (1, 64, 64), (3, 33, 200)):
            images = batch(*shape)
            assert agreement(engine.run(images), labels.run(images)) >= 0.9999, (name, shape)


def test_paddle_inference_runs_it_in_openvino_if_it_has_it(labels, monkeypatch):
    images = batch(1, 97, 131)
    expected = labels.run(images)
    engine = PaddleInference(labels.files, "cpu", 1)
    assert engine.with_onednn is not HAS_OPENVINO
    assert agreement(engine.run(images), expected) >= 0.9999
    if HAS_OPENVINO:
        engine = PaddleInference(labels.files, "cpu", 1, "bf16")
        # Of noise in a network of random weights, bfloat16 changes many labels.
        assert 0.75 <= agreement(engine.run(images), expected)
    monkeypatch.delattr(paddle.inference.Config, "enable_openvino_engine", raising=False)
    engine = PaddleInference(labels.files, "cpu", 1)
    assert engine.with_onednn
    assert agreement(engine.run(images), expected) >= 0.9999


@pytest.mark.skipif(not HAS_OPENVINO, reason="this Paddle has no OpenVINO")
def test_many_shapes_run_in_onednn_as_openvino_keeps_memory_for_each(labels, monkeypatch):
    monkeypatch.setattr(PaddleInference, "MOST_SHAPES", 2)
    engine = PaddleInference(labels.files, "cpu", 1)
    kinds = []
    for width in (96, 128, 96, 160, 96):
        images = batch(1, 64, width)
        assert agreement(engine.run(images), labels.run(images)) >= 0.9999
        kinds.append(engine.with_onednn)
    assert kinds == [False, False, False, True, True]


@pytest.mark.slow
def test_what_openvino_cannot_convert_runs_in_onednn(export):
    shape = ("--input_shape", "2", "3", "97", "131")
    confidence = export("confidence", "UAFM_ChAtten", "--output_op", "confidence", *shape)
    engine = PaddleInference(confidence.files, "cpu", 1)
    assert engine.with_onednn  # no converter for reciprocal
    images = batch(2, 97, 131)
    output, expected = engine.run(images), confidence.run(images)
    assert agreement(output[:, 0], expected[:, 0]) >= 0.9999
    np.testing.assert_allclose(output[:, 1], expected[:, 1], atol=1e-5)


def test_a_truncated_file_is_an_error(labels, tmp_path):
    for file in (labels.files.model, labels.files.params):
        (tmp_path / file.name).write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    model, params = labels.files.model.name, labels.files.params.name
    files = ModelFiles(tmp_path / model, tmp_path / params)
    with pytest.raises(ExportError, match=r"cannot load .*model\.pdmodel"):
        PaddleInference(files, "cpu", 1)
