"""A run keeps its settings: its folder stands for config and weights, and a resume compares."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import yaml
from paddle.optimizer import lr

from liteseg_plugin.cli._output import ignore_noise
from liteseg_plugin.errors import ConfigError, TrainingError, WeightsError
from liteseg_plugin.integration.config import load
from liteseg_plugin.training import changes
from liteseg_plugin.training.run import DataList, RunRecord, Start, TrainedRun, logged

CONFIG = {
    "batch_size": 4,
    "iters": 100,
    "train_dataset": {
        "dataset_root": "data",
        "transforms": [{"type": "RandomPaddingCrop", "crop_size": [64, 64]}, {"type": "Normalize"}],
    },
    "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01, "warmup_iters": 10},
    "model": {"type": "PPLiteSeg", "backbone": {"type": "STDC1", "pretrained": "a.pdparams"}},
}
FLAGS = {"save_interval": 10, "precision": "fp32", "num_workers": 2, "save_dir": "out"}


class Data:
    """A data set of three images."""

    dataset_root = "data"

    def __init__(self, folder="data", images=3):
        self.dataset_root = folder
        self.file_list = [(f"{folder}/{n}.png", f"{folder}/label_{n}.png") for n in range(images)]

    def __len__(self):
        return len(self.file_list)


@pytest.fixture
def record():
    """The record of a run that starts."""
    return RunRecord.of(CONFIG, FLAGS, [Data(), Data(images=1)], Start.now(None, "cpu"))


def changed(record, section=None, **values):
    """Return the record with other values in the config, or in a section of it."""
    new = {**record.config[section], **values} if section else values
    return replace(record, config={**record.config, **({section: new} if section else new)})


def test_record_is_read_as_written(record, tmp_path):
    record.write(tmp_path)
    assert RunRecord.read(tmp_path) == record
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["settings"] == {"save_interval": 10, "precision": "fp32", "num_workers": 2}
    assert document["starts"][0]["versions"]["liteseg_plugin"]
    assert document["val_list"]["images"] == 1
    assert yaml.safe_load((tmp_path / "config.yml").read_text()) == CONFIG


def test_record_of_a_resume_keeps_the_starts_before(record, tmp_path):
    (tmp_path / "iter_7").mkdir()
    resumed = replace(record, starts=(Start.now(tmp_path / "iter_7", "cpu"),))
    resumed.write(tmp_path, record)
    assert [start.iteration for start in RunRecord.read(tmp_path).starts] == [0, 7]


def test_config_of_the_user_is_kept_beside(record, tmp_path, capfd):
    (tmp_path / "config.yml").write_text("_base_: mine.yml\n")
    record.write(tmp_path)
    record.write(tmp_path)
    assert (tmp_path / "config.yml.old").read_text() == "_base_: mine.yml\n"
    assert "renamed to config.yml.old" in capfd.readouterr().out


def test_folder_without_a_record_is_not_compared(record, tmp_path, capfd):
    (tmp_path / "other").mkdir()
    changes.begin(tmp_path, tmp_path / "other" / "iter_2", record, allow_changes=False)
    assert "other has no run.json: settings are not compared" in capfd.readouterr().out
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"run\.json is not the record of a run"):
        changes.begin(tmp_path, tmp_path / "iter_2", record, allow_changes=False)


def test_list_moves_with_its_folder(tmp_path):
    assert DataList.of(Data("data")) == DataList.of(Data(str(tmp_path)))
    assert DataList.of(Data()) != DataList.of(Data(images=2))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda r: changed(r, batch_size=8), "batch_size: 4 -> 8"),
        (
            lambda r: changed(r, "lr_scheduler", learning_rate=0.1),
            "lr_scheduler.learning_rate: 0.01 -> 0.1",
        ),
        (
            lambda r: changed(r, "lr_scheduler", warmup_iters=20),
            "lr_scheduler.warmup_iters: 10 -> 20",
        ),
        (
            lambda r: changed(r, iters=200),
            "lr_scheduler.decay_steps: 90 -> 190 (from iters, unless --opts "
            "lr_scheduler.decay_steps=90)",
        ),
        (lambda r: changed(r, optimizer={"type": "SGD"}), "optimizer.type: (not set) -> SGD"),
        (
            lambda r: changed(r, "train_dataset", transforms=[{"type": "Normalize"}]),
            "train_dataset.transforms[0].type: RandomPaddingCrop -> Normalize",
        ),
        (
            lambda r: replace(r, settings={**r.settings, "precision": "bf16"}),
            "--precision: fp32 -> bf16",
        ),
        (
            lambda r: replace(r, settings={**r.settings, "num_workers": 0}),
            "--num_workers: 2 -> 0",  # which draws from the global random state
        ),
        (lambda r: replace(r, processes=2), "processes: 1 -> 2"),
        (
            lambda r: replace(r, train_list=DataList(2, "0123456789")),
            "-> 2 images, SHA-256 01234567",
        ),
    ],
)
def test_resume_refuses_what_changes_results(record, tmp_path, capfd, change, line):
    record.write(tmp_path)
    now = change(record)
    with pytest.raises(TrainingError) as refused:
        changes.begin(tmp_path, tmp_path / "iter_2", now, allow_changes=False)
    assert line in str(refused.value)
    assert f"--config {tmp_path}/config.yml" in str(refused.value)
    assert RunRecord.read(tmp_path) == record
    changes.begin(tmp_path, tmp_path / "iter_2", now, allow_changes=True)
    assert line in capfd.readouterr().out
    assert RunRecord.read(tmp_path).config == now.config


def test_changes_that_change_results_come_first(record):
    now = replace(changed(record, iters=7), processes=2)
    broken = [change.breaks for change in changes.compare(record, now)]
    assert broken == sorted(broken, reverse=True)
    assert len(set(broken)) == 2


def test_edited_config_of_the_run_is_noticed(record, tmp_path):
    record.write(tmp_path)
    path = tmp_path / "config.yml"
    path.write_text(path.read_text().replace("learning_rate: 0.01", "learning_rate: 0.1"))
    now = replace(record, config=yaml.safe_load(path.read_text()))
    with pytest.raises(TrainingError, match=r"learning_rate: 0\.01 -> 0\.1"):
        changes.begin(tmp_path, tmp_path / "iter_2", now, allow_changes=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: replace(r, settings={**r.settings, "save_interval": 5}), "save_interval"),
        (lambda r: replace(r, settings={**r.settings, "num_workers": 4}), "num_workers"),
        (lambda r: changed(r, "train_dataset", dataset_root="moved"), "dataset_root"),
        (
            lambda r: changed(changed(r, "lr_scheduler", decay_steps=90), iters=200),
            "iters: 100 -> 200",
        ),
        (lambda r: changed(r, "train_dataset", cache_gb=3), None),
        (lambda r: changed(r, "model", backbone={"type": "STDC1"}), None),
        (lambda r: replace(r, val_list=None), None),
    ],
)
def test_resume_goes_on_where_results_stay(record, tmp_path, capfd, change, said):
    record.write(tmp_path)
    changes.begin(tmp_path, tmp_path / "iter_2", change(record), allow_changes=False)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]


def test_log_holds_what_was_printed_and_the_error(tmp_path, capfd):
    with pytest.raises(TrainingError), logged(tmp_path):
        print("hello")
        raise TrainingError("the disk is full")
    first, *lines = (tmp_path / "train.log").read_text().splitlines()
    assert first.startswith("$ ")
    assert lines == ["hello", "error: the disk is full"]
    assert capfd.readouterr().out == "hello\n"
    with logged(tmp_path):
        print("again")
    assert (tmp_path / "train.log").read_text().splitlines()[-1] == "again"


def test_log_that_cannot_be_written_is_told_before_the_training(tmp_path):
    (tmp_path / "train.log").mkdir()
    with pytest.raises(TrainingError, match=r"cannot write .*/train\.log: .*[Dd]irectory"):
        with logged(tmp_path):
            pytest.fail("it trained")


def test_full_disk_under_the_log_does_not_stop_training(tmp_path, capfd):
    (tmp_path / "train.log").symlink_to("/dev/full")
    with logged(tmp_path):
        print("one")
        print("two")
    said = capfd.readouterr().out
    assert said.count("going on without it") == 1
    assert said.splitlines()[-2:] == ["one", "two"]


def test_run_stands_for_its_best_weights_else_its_newest(tmp_path):
    with pytest.raises(ConfigError, match="there is no such folder"):
        TrainedRun.read(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"has no config\.yml, .* give --config and"):
        TrainedRun.read(tmp_path)
    (tmp_path / "config.yml").write_text("iters: 1")
    with pytest.raises(WeightsError, match="no weights: neither best_model nor a checkpoint"):
        TrainedRun.read(tmp_path)
    for number in (9, 10):
        (tmp_path / f"iter_{number}").mkdir()
    assert str(TrainedRun.read(tmp_path)) == (
        f"{tmp_path}/iter_10/model.pdparams (not evaluated, iteration 10)"
    )
    assert TrainedRun.read(tmp_path).next_step().endswith(f". Next: liteseg val --run {tmp_path}")
    with pytest.raises(ConfigError, match=f"is inside a run; give --run {tmp_path}"):
        TrainedRun.read(tmp_path / "iter_10")
    best = tmp_path / "best_model"
    best.mkdir()
    (best / "model.pdparams").touch()
    (best / "best.json").write_text('{"miou": 0.25, "iteration": 9}')
    run = TrainedRun.read(tmp_path)
    assert run.next_step().endswith(
        f"liteseg export --run {tmp_path} --save_dir {tmp_path}/exported"
    )
    assert (run.weights, run.miou, run.iteration) == (best / "model.pdparams", 0.25, 9)
    assert "best mIoU 0.2500, iteration 9" in str(run)
    (best / "best.json").unlink()  # PaddleSeg's loop writes none
    run = TrainedRun.read(tmp_path)
    assert (run.weights, run.miou) == (best / "model.pdparams", None)
    assert str(run).endswith("(mIoU and iteration unknown)")


def test_noise_of_a_resume_with_a_warm_up_is_silent():
    schedule = lr.LinearWarmup(lr.PolynomialDecay(0.1, 10), 5, 0.0, 0.1)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        schedule.set_state_dict(schedule.state_dict())
        assert len(heard) == 1
        ignore_noise()
        schedule.set_state_dict(schedule.state_dict())
    assert len(heard) == 1


def test_train_keeps_what_the_commands_then_take(run, fails, trained, tmp_path):
    stored = trained.folder / "config.yml"
    assert load(str(stored)).dic == load(str(trained.config)).dic
    start = json.loads((trained.folder / "run.json").read_text())["starts"][0]
    assert start["command"].startswith("liteseg train --config")
    log = (trained.folder / "train.log").read_text()
    assert log.startswith(f"$ {start['command']}\n")
    assert log.count("[TRAIN] epoch") == 2
    said = run("val", "--run", trained.folder, "--verbose").text
    assert "Config Information" in said
    assert "Use the following config to build model" in said
    assert "Class IoU by name: sky 0." in said
    assert f"Run {trained.folder}: {trained.weights} (best mIoU 0." in said
    assert "[EVAL] #Images: 3" in said
    for command in ("val", "export", "predict"):
        image = ["--image_path", tmp_path] if command == "predict" else []
        assert "give --run FOLDER, or" in fails(command, *image)
        assert "remove --config and" in fails(
            command, *image, "--run", trained.folder, "--config", stored
        )


def test_resume_under_other_settings_is_refused_before_training(fails, trained, tmp_path):
    said = fails(
        *("train", "--config", trained.config, "--device", "cpu", "--batch_size", 4),
        *("--resume_model", trained.folder, "--save_dir", tmp_path),
    )
    assert "batch_size: 2 -> 4" in said
    assert "--allow_changes" in said
