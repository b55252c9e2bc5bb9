"""After a power failure at any moment, what is found is the old or the new, whole."""

from __future__ import annotations

import hashlib
import pickle
from contextlib import suppress

import cv2
import numpy as np
import paddle
import pytest
import yaml
from power_loss import PowerLoss

from liteseg_plugin.datasets.importing import import_data
from liteseg_plugin.datasets.relabel import relabel
from liteseg_plugin.export.replacing import replace_files
from liteseg_plugin.system.checksums import check_sum, read_sums
from liteseg_plugin.training import checkpoint
from liteseg_plugin.training.state import Best
from liteseg_plugin.weights import fetching, read_state_dict
from liteseg_plugin.weights.converting import convert


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def weights(value):
    return {"w": paddle.full([4], value)}


def value_of(path):
    [value] = set(read_state_dict(path)["w"].tolist())
    return value


def test_double_loses_what_is_not_forced(root, tmp_path, monkeypatch):
    (root / "old").write_text("old")
    disk = PowerLoss(root, monkeypatch)
    (root / "made").write_text("new")
    (root / "made").rename(root / "new")
    found = [{p.name: p.read_text() for p in f.iterdir()} for f in disk.write(tmp_path / "after")]
    assert found == [{"old": "old"}, {"old": "old", "made": ""}, {"old": "old", "new": ""}]


def test_checkpoints_of_a_training(root, tmp_path, monkeypatch):
    files = {"model.pdparams": weights(1.0), "model.pdopt": weights(1.0)}
    checkpoint.save(root / "iter_1", files, {"iteration": 1})
    best = root / "best_model" / "model.pdparams"
    checkpoint.save_best(best, weights(1.0), Best(0.1, 1))
    disk = PowerLoss(root, monkeypatch)
    new = {name: weights(2.0) for name in files}
    checkpoint.save_best(best, weights(2.0), Best(0.2, 2))
    checkpoint.save(root / "iter_2", new, {"iteration": 2})
    checkpoint.save(root / "iter_2", new, {"iteration": 2})  # again
    checkpoint.prune(root, 2, 1)
    newest, scores = set(), set()
    for folder in disk.write(tmp_path / "after"):
        found = checkpoint.prepare(folder, "auto")
        [value] = {value_of(found / name) for name in files}
        assert checkpoint.read_json(found / "training.json") == {"iteration": int(value)}
        newest.add((found.name, value))
        kept = folder / "best_model"
        scores.add((value_of(kept / "model.pdparams"), checkpoint.read_best(kept).miou))
    assert newest == {("iter_1", 1.0), ("iter_2", 2.0)}
    # New weights may have the old, lower score, and are then evaluated as any others.
    assert scores == {(1.0, 0.1), (2.0, 0.1), (2.0, 0.2)}


@pytest.mark.parametrize("names", [("model.json", "model.pdiparams"), ("model_int8.onnx",)])
@pytest.mark.parametrize("over", [True, False])
def test_export_and_quantised_model(root, tmp_path, monkeypatch, names, over):
    keys = {"model.json": "model", "model.pdiparams": "params", "model_int8.onnx": "onnx_int8"}

    def write(value, names):
        complete = tmp_path / f"complete{value}{len(names)}"
        complete.mkdir()
        contents = {name: f"{name} {value}".encode() for name in names}
        for name, content in contents.items():
            (complete / name).write_bytes(content)
        described.update({name: hashlib.sha256(c).hexdigest() for name, c in contents.items()})
        deploy = {"Deploy": {"value": value}, "liteseg": {"sha256": dict(described)}}
        for name in described:
            section = "liteseg" if name.endswith("onnx") else "Deploy"
            deploy[section][keys[name]] = name
        replace_files(root, complete, deploy)

    described = {}
    write(1, [*keys] if over else ["model.json", "model.pdiparams"])
    disk = PowerLoss(root, monkeypatch)
    write(2, names)
    values = set()
    for folder in disk.write(tmp_path / "after"):
        deploy = yaml.safe_load((folder / "deploy.yaml").read_text())
        assert deploy["liteseg"]["sha256"].pop("deploy.yaml")  # of what it says, not of a file
        for name, expected in deploy["liteseg"]["sha256"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
        named = {deploy[s].get(k) for s in deploy for k in keys.values()} - {None}
        assert named == deploy["liteseg"]["sha256"].keys()
        values.add(deploy["Deploy"]["value"])
    assert values == {1, 2}


def test_download_and_conversion(root, tmp_path, monkeypatch):
    content = pickle.dumps({"w": np.ones(4, "float32")}, protocol=4)
    part = root / "file.part"
    part.write_bytes(content)
    disk = PowerLoss(root, monkeypatch)
    fetching._place(part, root, {"file": "0" * 64})
    convert(str(root / "model.pdparams"), root / "other.pdparams")
    complete = 0
    for folder in disk.write(tmp_path / "after"):
        for name in ("model.pdparams", "other.pdparams"):
            path = folder / name
            if path.exists():
                check_sum(path)
                assert value_of(path) == 1
                complete += 1
        with suppress(FileNotFoundError):
            assert (folder / "model.pdparams").stat()
            assert "model.pdparams" in read_sums(folder)
    assert complete > 2


def test_imported_and_relabelled_data(root, tmp_path, monkeypatch, run):
    """New folders are absent or whole; a config that is written again is the old or the new."""
    source = tmp_path / "source"
    for name in ("a", "b"):
        for kind in ("images", "labels"):
            (source / kind).mkdir(parents=True, exist_ok=True)
            picture = np.full((8, 8, 3), (255, 0, 0) if name == "a" else (0, 0, 255), np.uint8)
            cv2.imwrite(str(source / kind / f"{name}.png"), picture)
    config = root / "config.yml"
    config.write_text("old")
    disk = PowerLoss(root, monkeypatch)
    (source / "colors.txt").write_text("name,r,g,b\nred,255,0,0\nblue,0,0,255\n")
    import_data("colors", source, root / "data", ratio=(1, 0, 0), workers=1, progress=False)
    relabel(root / "data" / "annot", root / "changed", {0: 5}, workers=1)
    run("config", "copy", "pp_liteseg_stdc1_camvid_960x720_10k", config, "--overwrite")
    expected = {folder: contents(root / folder) for folder in ("data", "changed")}
    assert [len(files) for files in expected.values()] == [6, 2]
    new = config.read_bytes()
    seen = set()
    for folder in disk.write(tmp_path / "after"):
        assert (folder / "config.yml").read_bytes() in (b"old", new)
        for name, files in expected.items():
            if (folder / name).exists():
                assert contents(folder / name) == files
                seen.add(name)
    assert seen == expected.keys()


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
