"""Training curves from logs of real and of made-up runs."""

from __future__ import annotations

import json

import cv2
import pytest

from liteseg_plugin.cli import main
from liteseg_plugin.visualization import curves as curves_module

TRAIN = (
    "2026-11-20 08:35:30 [INFO]\t[TRAIN] epoch: 1, iter: {}/60, loss: {}, lr: 0.002838, "
    "batch_cost: 1.0628, reader_cost: 0.00461, ips: 3.7637 samples/sec | ETA 00:02:28\n"
)
EVAL = "[EVAL] #Images: 101 mIoU: {} Acc: 0.8917 Kappa: 0.8708 Dice: 0.8362\n"
BEST = "[EVAL] The model with the best validation mIoU ({}) was saved at iter {}.\n"


@pytest.fixture()
def curves(run, tmp_path):
    """Run the command; return its document."""

    def curves(*runs):
        figure = tmp_path / "curves.png"
        document = json.loads(run("curves", *runs, "--save", figure, "--json").stdout)
        assert cv2.imread(str(figure)).std() > 5
        return document["runs"]

    return curves


def test_curves_of_a_resumed_log(curves, tmp_path):
    log = tmp_path / "_train$.log"
    log.write_text(
        TRAIN.format(20, 3.5)
        + TRAIN.format(40, "nan")
        + EVAL.format(0.21)
        + EVAL.format(0.11)  # of the averaged weights
        + BEST.format("0.2100", 45)
        + TRAIN.format(60, 9.5)
        + TRAIN.format(20, 3.25)  # resumed from iteration 10, say
        + TRAIN.format(40, 3.0)
        + EVAL.format(0.25)
    )
    [run] = curves(log)
    assert run["loss"] == [[20, 3.25], [40, 3.0]]
    assert run["miou"] == [[40, 0.25]]
    assert run["lr"] == [[20, 0.002838], [40, 0.002838]]


def test_curves_keep_what_is_no_number_as_a_gap(curves, tmp_path):
    (tmp_path / "a.txt").write_text(
        TRAIN.format(20, 3.5)
        + TRAIN.format(40, "nan")
        + EVAL.format(0.21)
        + BEST.format("0.2100", 45)
    )
    [run] = curves(tmp_path / "a.txt")
    assert run["loss"] == [[20, 3.5], [40, None]]
    assert run["miou"] == [[45, 0.21]]


def test_curves_of_several_runs_by_folder(curves, tmp_path):
    for name, loss in (("one", 3.5), ("two", 2.5)):
        (tmp_path / name / "log").mkdir(parents=True)
        (tmp_path / name / "log" / "workerlog.0").write_text(TRAIN.format(20, loss))
        (tmp_path / name / "other.log").write_text(TRAIN.format(20, 99))
    runs = curves(tmp_path / "one", tmp_path / "two")
    assert [run["loss"] for run in runs] == [[[20, 3.5]], [[20, 2.5]]]


def test_logs_of_evaluations_are_not_curves(curves, tmp_path, capsys):
    (tmp_path / "val.log").write_text(EVAL.format(0.75))
    (tmp_path / "train.log").write_text(TRAIN.format(20, 3.5) + EVAL.format(0.25))
    (tmp_path / "val_2.log").write_text(EVAL.format(0.875))
    [run] = curves(tmp_path)
    assert run["files"] == [str(tmp_path / "train.log")]
    assert run["miou"] == [[20, 0.25]]
    assert main(["curves", str(tmp_path / "val.log"), "--save", str(tmp_path / "c.png")]) == 1
    assert f"no line of PaddleSeg's training in {tmp_path / 'val.log'}" in capsys.readouterr().err


def test_first_evaluation_before_the_first_line_of_training(curves, tmp_path):
    """Where --log_iters is longer than --save_interval."""
    (tmp_path / "a.log").write_text(
        EVAL.format(0.21) + BEST.format("0.2100", 10) + TRAIN.format(20, 3.5)
    )
    [run] = curves(tmp_path / "a.log")
    assert run["miou"] == [[10, 0.21]]


def test_curves_of_a_real_run(run, trained, tmp_path):
    (tmp_path / "train.log").write_text(trained.log)
    figure = tmp_path / "new" / "curves.svg"
    result = run("curves", tmp_path, "--save", figure)
    assert "at iteration 2" in result.text
    assert "best mIoU" in result.text
    assert figure.read_text().startswith("<?xml")


def test_curves_of_a_folder_come_from_its_metrics(trained, tmp_path):
    """With all digits, where the log rounds."""
    points = curves_module.read(trained.folder)
    assert points.files == [str(trained.folder / "metrics.csv")]
    (tmp_path / "train.log").write_text(trained.log)
    logged = curves_module.read(tmp_path)
    assert [at for at, _ in points.loss] == [1, 2]
    assert [at for at, _ in points.miou] == [2]
    for curve, digits in (("loss", 4), ("lr", 6), ("miou", 4)):
        rounded = [(at, round(value, digits)) for at, value in points.points(curve)]
        assert rounded == logged.points(curve)


def test_curves_of_another_table(capsys, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("iteration,loss,lr\n1,2,3\n")
    assert main(["curves", str(path), "--save", str(tmp_path / "curves.png")]) == 1
    assert f"{path} lacks the columns miou" in capsys.readouterr().err


def test_log_of_a_run_holds_no_moving_bar(trained):
    """PaddleSeg's evaluation draws one over itself, which fills a log."""
    assert "[EVAL] #Images: 3" in trained.log
    assert "\r" not in trained.log
    assert "\b" not in trained.log


def test_curves_of_visualdl_records(curves, tmp_path):
    visualdl = pytest.importorskip("visualdl")
    with visualdl.LogWriter(str(tmp_path)) as writer:
        for iteration in (10, 20):
            writer.add_scalar("Train/loss", 1 / iteration, iteration)
        writer.add_scalar("Evaluate/mIoU", 0.5, 20)
    [run] = curves(tmp_path)
    assert [point[0] for point in run["loss"]] == [10, 20]
    assert run["loss"][1][1] == pytest.approx(0.05)
    assert run["miou"] == [[20, 0.5]]
    assert run["lr"] == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.txt", b"\x89PNG\x00\xff[TRAIN] nothing", "no line of PaddleSeg's training in {path}"),
        ("vdlrecords.1.log", b"\x05\x00\x00\x00nonsense", "cannot read VisualDL's records {path}"),
        ("empty.log", b"", "no line of PaddleSeg's training in {path}"),
    ],
)
def test_curves_of_something_else(capsys, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    assert main(["curves", str(path), "--save", str(tmp_path / "curves.png")]) == 1
    assert message.format(path=path) in capsys.readouterr().err
    assert not (tmp_path / "curves.png").exists()


def test_curves_without_a_run_or_a_format(capsys, tmp_path):
    assert main(["curves", str(tmp_path / "gone"), "--save", "curves.png"]) == 1
    assert f"log or folder not found: {tmp_path / 'gone'}" in capsys.readouterr().err
    assert main(["curves", str(tmp_path), "--save", "curves.png"]) == 1
    assert f"no line of PaddleSeg's training in {tmp_path}" in capsys.readouterr().err
    (tmp_path / "a.log").write_text(TRAIN.format(20, 1))
    assert main(["curves", str(tmp_path), "--save", str(tmp_path / "a.xyz")]) == 1
    assert "Format 'xyz' is not supported" in capsys.readouterr().err
