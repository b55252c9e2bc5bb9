"""``metrics.csv``: a row when there is something to say, and none of what a resume takes back."""

from __future__ import annotations

import csv

import pytest

from liteseg_plugin.training.log import Metrics, MetricsFile

HEADER = "iteration,loss,lr,batch_cost,reader_cost,ips,miou,accuracy,ema_miou,ema_accuracy"


@pytest.fixture
def path(tmp_path):
    """A file with the iterations 10 and 20, and an evaluation at 20."""
    file = MetricsFile(tmp_path, 0)
    file.add(Metrics(10, loss=0.5, lr=0.01))
    file.add(Metrics(20, loss=0.25, lr=0.005))
    file.add(Metrics(20, miou=0.75, accuracy=0.875))
    file.close()
    return tmp_path / "metrics.csv"


def rows(path):
    with path.open() as file:
        return [(row["iteration"], row["loss"], row["miou"]) for row in csv.DictReader(file)]


def test_rows_have_the_columns_that_they_know(path):
    assert path.read_text().splitlines() == [
        HEADER,
        "10,0.5,0.01,,,,,,,",
        "20,0.25,0.005,,,,,,,",
        "20,,,,,,0.75,0.875,,",
    ]


def test_row_is_there_when_it_was_added(tmp_path):
    file = MetricsFile(tmp_path, 0)
    file.add(Metrics(10, loss=0.5))
    assert rows(tmp_path / "metrics.csv") == [("10", "0.5", "")]
    file.close()


@pytest.mark.parametrize(("iteration", "kept"), [(0, 0), (15, 1), (20, 3), (30, 3)])
def test_resumed_run_drops_what_comes_after(path, iteration, kept):
    before = rows(path)
    file = MetricsFile(path.parent, iteration)
    file.add(Metrics(iteration + 5, loss=0.125))
    file.close()
    assert rows(path) == [*before[:kept], (str(iteration + 5), "0.125", "")]


def test_half_a_row_of_a_kill_is_dropped(path):
    before = rows(path)
    with path.open("a") as file:
        file.write("30,0.1")
    MetricsFile(path.parent, 30).close()
    assert rows(path) == before


def test_other_table_is_set_aside(path, capfd):
    path.write_text("my,own,table\n1,2,3\n")
    MetricsFile(path.parent, 0).close()
    assert path.read_text() == f"{HEADER}\n"
    assert (path.parent / "metrics.csv.old").read_text() == "my,own,table\n1,2,3\n"
    assert "renamed to metrics.csv.old" in capfd.readouterr().out


def test_full_disk_does_not_stop_training(path, capfd):
    file = MetricsFile(path.parent, 20)
    file._file.close()
    file._file = open("/dev/full", "w")
    file.add(Metrics(30, loss=0.1))
    file.add(Metrics(40, loss=0.1))
    file.close()
    said = capfd.readouterr().out
    assert said.count("training continues without it") == 1
    assert "No space left on device" in said
