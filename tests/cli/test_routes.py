"""Every way to the plugin's model, as a process; each asserts the module of what was built."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import pickle
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

SCRIPT = Path(__file__).parents[1] / "data" / "paddleseg_script.py"
LABEL_MAPS = "pseudo_color_prediction"
OURS = "liteseg_plugin.models.pp_liteseg.PPLiteSeg"
BUILT = (
    "built PPLiteSeg of liteseg_plugin.models.pp_liteseg",
    "built SPPM of liteseg_plugin.models.sppm",
    "built UAFM_SpAtten of liteseg_plugin.models.uafm",
)


def losses(log: str) -> list[float]:
    return [float(value) for value in re.findall(r"\[TRAIN\].*?loss: ([\d.naif]+)", log)]


def test_script_without_plugin_builds_the_stock_class(process, toy, tmp_path):
    """The control: without it, the tests below could pass on PaddleSeg's own model."""
    backbone = {"type": "STDC1", "pretrained": None}
    model = {"_inherited_": False, "type": "PPLiteSeg", "num_classes": 11, "backbone": backbone}
    config = toy.config(tmp_path, model=model)  # with no key that only the plugin knows
    result = process("python", SCRIPT, config, "build-only", check=False)
    assert "built PPLiteSeg of paddleseg.models.pp_liteseg" in result.stdout


@pytest.mark.smoke
def test_train_writes_log_and_checkpoints(trained):
    assert f"Model: {OURS}" in trained.log
    assert "Config Information" not in trained.log  # without --verbose
    assert "Warning" not in trained.log
    assert re.search(r"Class IoU by name: sky [01]\.\d{4}, building ", trained.log)
    best = rf"Best model: {trained.weights} \(best mIoU 0\.\d{{4}}, iteration 2\)"
    assert re.search(rf"{best}\. Next: liteseg export --run {trained.folder} ", trained.log)
    assert len(losses(trained.log)) == 2
    assert all(math.isfinite(loss) for loss in losses(trained.log))
    for name in ("iter_2/model.pdparams", "iter_2/model.pdopt", "best_model/model.pdparams"):
        assert (trained.folder / name).stat().st_size > 1000


def test_train_resumes(run, trained, tmp_path):
    result = run(
        *("train", "--config", trained.config, "--device", "cpu", "--iters", 3),
        *("--resume_model", trained.folder / "iter_2", "--save_dir", tmp_path, "--log_iters", 1),
        *("--opts", "lr_scheduler.decay_steps=2"),  # as before: other rates would be refused
    )
    assert "iter: 3/3" in result.text
    assert "Other setting than before the resume: iters: 2 -> 3" in result.text
    assert (tmp_path / "iter_3" / "model.pdparams").is_file()


@pytest.mark.smoke
def test_val_prints_json_alone_on_stdout(process, trained):
    result = process(
        *("liteseg", "val", "--config", trained.config, "--model_path", trained.weights, "--json")
    )
    numbers = json.loads(result.stdout)
    assert numbers["model"] == OURS
    assert numbers["images"] == 3
    assert 0 <= numbers["miou"] <= 1
    assert len(numbers["class_iou"]) == 11
    assert f"mIoU: {numbers['miou']:.4f}" in result.stderr


def test_val_takes_scales_and_flips(run, trained):
    result = run(
        *("val", "--config", trained.config, "--model_path", trained.weights, "--json"),
        *("--aug_eval", "--flip_horizontal", "--scales", 0.75, 1.0, 1.25),
    )
    assert json.loads(result.stdout)["test_config"] == {
        "aug_eval": True,
        "scales": [0.75, 1.0, 1.25],
        "flip_horizontal": True,
        "flip_vertical": False,
    }


@pytest.mark.smoke
def test_exported_model_gives_the_labels_of_predict(process, trained, toy, tmp_path):
    images = toy.root / "images"
    exported = tmp_path / "exported"
    weights = ("--config", trained.config, "--model_path", trained.weights)
    process(
        *("liteseg", "predict", *weights, "--image_path", images),
        *("--save_dir", tmp_path / "eager"),
    )
    assert cv2.imread(str(tmp_path / "eager" / "legend.png")).shape[1] == 480
    log = process("liteseg", "export", *weights, "--save_dir", exported).text
    assert f"Exported {OURS}" in log
    assert "Warning" not in log
    assert not re.search(r"^W\d{4} ", log, re.M)  # of Paddle's C++
    deploy = yaml.safe_load((exported / "deploy.yaml").read_text())
    assert (exported / deploy["Deploy"]["model"]).is_file()

    infer = ("--config", exported, "--image_path", images, "--save_dir", tmp_path)
    process("liteseg", "infer", *infer)
    names = sorted(p.stem for p in images.iterdir())
    assert len(names) == 12
    save = tmp_path / "eager"
    found = {
        index
        for name in names
        for index in np.unique(_indices(tmp_path / LABEL_MAPS / f"{name}.png"))
    }
    assert len(found) > 1  # or everything would agree
    for name in names:
        label = cv2.imread(str(tmp_path / LABEL_MAPS / f"{name}.png"), cv2.IMREAD_COLOR)
        eager = tmp_path / "eager" / LABEL_MAPS / f"{name}.png"
        assert label.shape == (96, 128, 3)
        same = _indices(tmp_path / LABEL_MAPS / f"{name}.png") == _indices(eager)
        assert np.mean(same) > 0.999
        assert (label == cv2.imread(str(eager)))[same].all()  # one palette, the data set's
        overlays = (
            cv2.imread(str(d / "added_prediction" / f"{name}.png")) for d in (tmp_path, save)
        )
        assert np.mean((next(overlays) == next(overlays)).all(axis=2)) > 0.999
    files = {path.relative_to(save) for path in save.rglob("*.*")}
    assert len(files) == 2 * 12 + 1 and all((tmp_path / path).is_file() for path in files)


def _indices(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path))


@pytest.mark.smoke
def test_run_gives_an_unmodified_script_the_plugin(process, run, toy, tmp_path):
    result = process("liteseg", "run", SCRIPT, toy.config(tmp_path), tmp_path / "out")
    for line in BUILT:
        assert line in result.stdout
    assert len(losses(result.text)) == 2
    assert "mIoU" in result.text
    assert (tmp_path / "out" / "best_model" / "model.pdparams").is_file()
    start = json.loads((tmp_path / "out" / "run.json").read_text())["starts"][0]
    assert start["command"].startswith(str(SCRIPT))
    assert len(losses((tmp_path / "out" / "train.log").read_text())) == 2
    assert "mIoU" in run("val", "--run", tmp_path / "out").text


@pytest.mark.slow
@pytest.mark.smoke
def test_run_serves_two_processes_of_distributed_launch(process, toy, tmp_path):
    result = process(
        *("python", "-m", "paddle.distributed.launch", "--nproc_per_node", 2),
        *("--log_dir", tmp_path / "log", "liteseg", "run", SCRIPT),
        *(toy.config(tmp_path), tmp_path / "out"),
    )
    logs = [(tmp_path / "log" / f"workerlog.{rank}").read_text() for rank in (0, 1)]
    for log in logs:
        for line in BUILT:
            assert line in log
    assert len(losses(logs[0])) == 2
    assert "mIoU" in logs[0] + result.text
    assert (tmp_path / "out" / "iter_2" / "model.pdparams").is_file()


@pytest.mark.slow
@pytest.mark.smoke
def test_autoload_gives_plain_python_the_plugin_until_disabled(process, run, toy, tmp_path):
    config = toy.config(tmp_path)
    process = functools.partial(process, LITESEG_AUTOLOAD="1")  # conftest.py switches it off
    assert "disabled" in run("autoload", "status").stdout
    try:
        assert "enabled" in run("autoload", "enable").stdout
        modules = "import sys; print(*sys.modules)"
        loaded = process("python", "-c", modules).stdout.split()
        kept_out = process("python", "-c", modules, LITESEG_AUTOLOAD="0").stdout.split()
        launched = process(
            *("python", "-m", "paddle.distributed.launch", "--nproc_per_node", 2),
            *("--log_dir", tmp_path / "log", SCRIPT, config, tmp_path / "out"),
        )
        mistake = process("python", SCRIPT, tmp_path / "gone.yml", tmp_path, check=False)
        own = process("liteseg", "run", SCRIPT, config, "build-only", check=False)
        imports = "from liteseg_plugin.weights import load_weights; import liteseg_plugin as plugin"
        process("python", "-c", f"{imports}; plugin.Predictor")
    finally:
        assert "disabled" in run("autoload", "disable").stdout
    logs = [(tmp_path / "log" / f"workerlog.{rank}").read_text() for rank in (0, 1)]
    for line in BUILT:
        assert all(line in log for log in (*logs, own.stdout))
    assert len(losses(logs[0])) == 2
    assert "paddle" not in loaded
    assert "liteseg_plugin.autoload" not in kept_out
    # What every Python start pays for: four small modules and zlib.
    ours = {
        "liteseg_plugin",
        "liteseg_plugin.autoload",
        "liteseg_plugin.integration",
        "liteseg_plugin.integration.import_hook",
    }
    assert ours <= set(loaded)
    bare = process("python", "-c", modules).stdout.split()  # autoload is disabled by now
    # An editable install has a .pth file of its own, which may load the same.
    assert set(loaded) - set(bare) - ours <= {"zlib", "__future__"}
    assert launched.returncode == 0
    assert mistake.returncode == 1
    assert "error: config not found" in mistake.stderr
    assert "Traceback" not in mistake.stderr
    # What is built instead, the first test of this file says; on Paddle 2.6.2 that may be nothing,
    # as a Python that loads zlib after it crashes.
    after = process("python", SCRIPT, config, "build-only", check=False)
    assert "liteseg_plugin" not in after.stdout


def test_importing_registers_and_does_nothing_else(process):
    code = (
        "import logging, random, sys; before = random.getstate(), len(logging.root.handlers);"
        "import liteseg_plugin;"
        "print((random.getstate(), len(logging.root.handlers)) == before, 'paddle' in sys.modules);"
        "from paddleseg.cvlibs import manager;"
        "print(manager.MODELS['PPLiteSeg'].__module__, manager.LOSSES['OhemCrossEntropyLoss']"
        ".__module__, 'liteseg_plugin.integration.compat' in sys.modules)"
    )
    result = process("python", "-c", code)
    assert result.stdout.split() == [
        *("True", "False"),
        *("liteseg_plugin.models.pp_liteseg", "liteseg_plugin.losses.ohem", "False"),
    ]
    assert "exists already" not in result.stderr  # PaddleSeg's warning of a replaced name


@pytest.mark.smoke
def test_doctor_reports_and_its_json_is_alone_on_stdout(doctor):
    works = {check["name"]: check["works"] for check in doctor["checks"]}
    assert doctor["ok"]
    assert all(works[step] for step in ("train", "val", "predict", "export", "paddle inference"))
    # The extras work together, where they are installed.
    modules = {"onnx": "paddle2onnx", "onnxruntime": "onnxruntime", "openvino": "openvino"}
    for check, module in modules.items():
        assert works[check] == (importlib.util.find_spec(module) is not None), doctor["checks"]
    assert doctor["components"]["PPLiteSeg"] == OURS
    assert {entry["name"] for entry in doctor["compat"]} >= {"zlib-first", "deploy-yaml"}


@pytest.mark.slow
def test_doctor_says_why_nothing_works_where_numpy_is_broken(process, tmp_path):
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text(
        "raise ImportError('numpy.core.multiarray failed to import')"
    )
    result = process("liteseg", "doctor", "--json", check=False, PYTHONPATH=str(tmp_path))
    report = json.loads(result.stdout)
    assert result.returncode == 1
    assert not report["ok"]
    details = {check["name"]: check["detail"] for check in report["checks"]}
    assert "multiarray failed" in details["train"]
    assert "numpy<2" in details["train"]
    assert details["export"] == details["paddle inference"] == details["train"]


@pytest.mark.slow
def test_predict_and_infer_see_the_scale_of_evaluation(run, trained, toy, tmp_path):
    config = toy.config(tmp_path, test_config__aug_eval=True, test_config__scales=0.5)
    weights = ("--config", config, "--model_path", trained.weights)
    picture = toy.root / "images" / "val_0000.png"
    run("predict", *weights, "--image_path", picture, "--save_dir", tmp_path / "p")
    run("export", *weights, "--save_dir", tmp_path / "e")
    run(
        "infer",
        "--config",
        tmp_path / "e",
        "--image_path",
        picture,
        "--save_dir",
        tmp_path,
    )
    eager = _indices(tmp_path / "p" / "pseudo_color_prediction" / "val_0000.png")
    assert len(np.unique(eager)) > 1
    assert np.mean(_indices(tmp_path / LABEL_MAPS / "val_0000.png") == eager) > 0.999

    run("predict", "--config", trained.config, "--model_path", trained.weights,
        "--image_path", picture, "--save_dir", tmp_path / "full")  # fmt: skip
    full = _indices(tmp_path / "full" / "pseudo_color_prediction" / "val_0000.png")
    assert (full != eager).any()


def test_resume_runs_no_code_of_a_checkpoint(run, trained, tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    checkpoint = tmp_path / "iter_2"
    shutil.copytree(trained.folder / "iter_2", checkpoint)
    (checkpoint / "model.pdopt").write_bytes(pickle.dumps(Payload()))
    (checkpoint / "SHA256SUMS").unlink()  # as whoever replaces a file would do
    result = run(
        *("train", "--config", trained.config, "--device", "cpu", "--iters", 3),
        *("--resume_model", checkpoint, "--save_dir", tmp_path / "out"),
        check=False,
    )
    assert result.returncode == 1
    assert "refused to load" in result.stderr
    assert not (tmp_path / "executed").exists()


def test_val_of_another_model_loads_weights_given_by_url(run, toy, tmp_path):
    """They must not be mistaken for a backbone's, and left alone."""
    config = toy.config(tmp_path)
    content = yaml.safe_load(config.read_text())
    content["model"] = {"_inherited_": False, "type": "BiSeNetV2", "num_classes": 11}
    content["loss"] = {"_inherited_": False, "types": [{"type": "CrossEntropyLoss"}]}
    content["loss"]["coef"] = [1] * 5
    config.write_text(yaml.safe_dump(content))
    url = "https://example.invalid/model.pdparams"
    result = run("val", "--config", config, "--model_path", url, check=False)
    assert result.returncode == 1
    assert f"cannot download {url}" in result.stderr
