"""Progress bars: tqdm's on a terminal, few lines in a log."""

from __future__ import annotations

import io
import sys

import pytest
import tqdm.std

from liteseg_plugin.system import progress


@pytest.fixture
def work(monkeypatch):
    """Go through items with a progress bar, on a clock on which each takes so many seconds."""

    def work(items, seconds, **options):
        now = [0.0]
        monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
        options.setdefault("total", items)
        for _ in progress.progress_bar(iter(range(items)), unit="image", **options):
            now[0] += seconds

    return work


def test_log_gets_a_line_every_thirty_seconds(work, capsys):
    work(1000, 0.5, desc="report")
    lines = capsys.readouterr().err.splitlines()
    assert not any("\r" in line or line.isspace() or not line for line in lines)
    assert all(line.startswith("report: ") for line in lines)
    assert "0/1000" in lines[0]
    assert "100%" in lines[-1]
    assert "1000/1000" in lines[-1]
    assert 10 <= len(lines) <= 500 / 30 + 3


def test_log_of_little_work_has_a_first_and_a_last_line(work, capsys):
    work(200, 0.1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "200/200" in lines[1]


def test_log_of_work_without_a_known_end(work, capsys):
    work(100, 1, total=None)
    assert capsys.readouterr().err.splitlines()[-1].startswith("100image [")


def test_terminal_gets_a_moving_bar(work, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    work(20, 0.5)
    assert terminal.getvalue().count("\r") >= 20
    assert terminal.getvalue().count("\n") == 1


def test_bar_in_place_of_paddlesegs_ends_with_its_target(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    bar = progress.ProgressBar(target=60, verbose=1)
    for done in range(1, 61):
        now[0] += 2
        bar.update(done, [("batch_cost", 0.5)])
    lines = capsys.readouterr().err.splitlines()
    assert "60/60" in lines[-1]
    assert 4 <= len(lines) <= 7
