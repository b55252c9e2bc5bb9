from __future__ import annotations

import json
import pickle

import pytest

from liteseg_plugin.weights import read_state_dict


@pytest.mark.smoke
def test_verify_tells_the_trained_network_from_another(process, run, trained, exported, tmp_path):
    weights = ("--config", trained.config, "--model_path", trained.weights)
    report = json.loads(process("liteseg", "verify", exported.folder, *weights, "--json").stdout)
    assert set(report["runtimes"]) == set(exported.runtimes)
    assert report["ok"]
    assert report["exported_weights"] is None
    assert report["images"] == 3
    for result in report["runtimes"].values():
        assert result["agreement"] >= 0.9999
        assert result["miou"] == pytest.approx(report["miou"], abs=1e-3)
    validated = json.loads(run("val", *weights, "--json").stdout)
    assert report["miou"] == pytest.approx(validated["miou"], abs=1e-6)

    other = read_state_dict(trained.weights)
    name = "seg_heads.0.conv_out.weight"
    other[name] = other[name][::-1].copy()  # the classes in another order
    (tmp_path / "other.pdparams").write_bytes(pickle.dumps(other))
    result = run(
        *("verify", exported.folder, "--config", trained.config, "--json"),
        *("--model_path", tmp_path / "other.pdparams", "--runtime", "paddle"),
        check=False,
    )
    report = json.loads(result.stdout)
    assert result.returncode == 1
    assert not report["ok"]
    assert report["runtimes"]["paddle"]["agreement"] < 0.9
    assert report["exported_weights"] == str(trained.weights)
    assert f"The export is of other weights: {trained.weights}. Give these" in result.stderr


def test_verify_without_an_int8_model_says_how_to_create_one(run, trained, exported):
    weights = ("--config", trained.config, "--model_path", trained.weights)
    result = run("verify", exported.folder, *weights, "--precision", "int8", check=False)
    assert result.returncode == 1
    assert f"; create one with liteseg quantize {exported.folder}" in result.stderr


@pytest.mark.slow
def test_verify_of_logits_behind_padding(run, trained, tmp_path):
    padding = '[{"type":"Padding","target_size":[512,384]},{"type":"Normalize"}]'
    config = ("--config", trained.config, "--opts", f"val_dataset.transforms={padding}")
    weights = ("--model_path", trained.weights)
    run("export", *config, *weights, "--save_dir", tmp_path, "--output_op", "none")
    report = json.loads(run("verify", tmp_path, *config, *weights, "--json").stdout)
    assert report["ok"]
    assert report["runtimes"]["paddle"]["agreement"] >= 0.9999
