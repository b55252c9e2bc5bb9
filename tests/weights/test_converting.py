"""Conversion to safetensors and back, and the model card."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import paddle
import pytest
import yaml

from liteseg_plugin.errors import WeightsError
from liteseg_plugin.evaluation.model_card import write_card, write_card_of_run
from liteseg_plugin.training.run import TrainedRun
from liteseg_plugin.weights import RELEASED, load_weights, read_state_dict
from liteseg_plugin.weights.converting import convert

safetensors = pytest.importorskip("safetensors", reason="needs safetensors")
NUMPY = {
    "float": np.arange(6, dtype="float32").reshape(2, 3).T,
    "half": np.float16([1, 2]),
    "long": np.int64([[3]]),
    "scalar": np.float64(0.5).reshape(()),
    "empty": np.zeros((0, 3), "float32"),
}


@pytest.fixture
def pdparams(tmp_path):
    path = tmp_path / "model.pdparams"
    paddle.save({name: paddle.to_tensor(array) for name, array in NUMPY.items()}, str(path))
    return path


def test_conversion_there_and_back_is_exact(pdparams, tmp_path):
    there = convert(str(pdparams), tmp_path / "out" / "model.safetensors")
    back = convert(there.path, tmp_path / "back.pdparams")
    assert (there.arrays, there.values, there.widened) == (5, 16 - 6, 0)
    for path in (there.path, back.path):
        read = read_state_dict(path)
        assert read.keys() == NUMPY.keys()
        for name, array in NUMPY.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)
    assert paddle.load(back.path)["half"].dtype == paddle.float16


def test_network_loads_safetensors(pointwise, tmp_path):
    net, other = pointwise(), pointwise()
    path = tmp_path / "model.pdparams"
    paddle.save({k: v * 2 for k, v in net.state_dict().items()}, str(path))
    load_weights(other, convert(str(path), tmp_path / "model.safetensors").path)
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), 2 * tensor.numpy())


def test_bfloat16_becomes_float32(tmp_path):
    path = tmp_path / "model.pdparams"
    paddle.save({"w": paddle.to_tensor([0.1, 3.0]).astype("bfloat16")}, str(path))
    made = convert(str(path), tmp_path / "model.safetensors")
    assert made.widened == 1
    expected = paddle.to_tensor([0.1, 3.0]).astype("bfloat16").astype("float32").numpy()
    np.testing.assert_array_equal(read_state_dict(made.path)["w"], expected)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}", b"\xff" * 64, b'{"w": 1}'])
def test_broken_safetensors_is_an_error(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors is not a safetensors file"):
        read_state_dict(path)


def test_other_names_and_existing_files_are_refused(pdparams, tmp_path):
    with pytest.raises(WeightsError, match=r"model\.pt must end in \.safetensors or \.pdparams"):
        convert(str(pdparams), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="already exists"):
        convert(str(pdparams), pdparams)


def front_matter(path):
    _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_card_of_a_record_has_its_numbers(tmp_path):
    path = write_card(tmp_path / "model.safetensors", RELEASED[2], None)
    assert path.name == "README.md"
    head, body = front_matter(path)
    [result] = head["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(0.7704)
    assert head["license"] == "apache-2.0"
    assert head["pipeline_tag"] == "image-segmentation"
    assert "| 77.04 | 77.73 | 77.46 |" in body
    assert "non-commercial" in body
    assert write_card(tmp_path / "model.safetensors", None, None).name == "model.md"


def test_card_of_a_run_has_its_score_and_its_config(trained, tmp_path):
    run = dataclasses.replace(TrainedRun.read(trained.folder), weights=tmp_path / "w.safetensors")
    for miou in (0.5, 0.25):  # a later training of the run replaces it
        path = write_card_of_run(dataclasses.replace(run, miou=miou))
    assert [*tmp_path.iterdir()] == [path]
    head, body = front_matter(path)
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.25
    assert "mIoU 25.0" in body and "--model_path w.safetensors" in body
    config = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
    assert config["iters"] == 2 and config["train_dataset"]["num_classes"] == 11


def test_command_writes_weights_and_card_with_a_report(run, trained, tmp_path):
    run(
        *("val", "--config", trained.config, "--model_path", trained.weights, "--device", "cpu"),
        *("--report", tmp_path / "report"),
    )
    dest = tmp_path / "out" / "model.safetensors"
    said = run(
        "weights", "convert", trained.weights, dest, "--report", tmp_path / "report", "--json"
    )
    facts = json.loads(said.stdout)
    assert facts["path"] == str(dest)
    head, body = front_matter(tmp_path / "out" / "README.md")
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    [result] = head["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == metrics["miou"]
    assert "license" not in head
    assert body.count("\n| ") == 12  # a row for each of the classes, and the head
    checked = run("weights", "check", dest, "--config", trained.config, "--json")
    assert json.loads(checked.stdout)["ok"]


def test_command_writes_nothing_beside_cards_that_people_wrote(fails, tmp_path):
    paddle.save({"weight": paddle.ones([2])}, str(tmp_path / "a.pdparams"))
    (tmp_path / "out").mkdir()
    for name in ("README.md", "b.md"):
        (tmp_path / "out" / name).write_text("mine")
    dest = tmp_path / "out" / "b.pdparams"
    message = fails("weights", "convert", tmp_path / "a.pdparams", dest)
    assert "b.md already exists; rename or delete it" in message
    assert not dest.exists()
    assert (tmp_path / "out" / "b.md").read_text() == "mine"
