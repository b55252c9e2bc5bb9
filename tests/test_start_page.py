"""The page for new users runs as it stands, on fewer and smaller pictures."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from pages import blocks, check_printed

PAGE = Path(__file__).parents[1] / "docs" / "start.md"
SMALL = {  # flags that make a command quick; the last of two equal flags counts
    "toy": ("--train", "24", "--val", "4", "--test", "2", "--size", "96", "72"),
    "config": ("--iters", "12", "--batch_size", "2"),
    "train": ("--save_interval", "6"),
}


def _run(language, block, run, capfd):
    if language == "python":
        capfd.readouterr()
        exec(block, {})
        return capfd.readouterr().out
    printed = ""
    for line in block.splitlines():
        words = shlex.split(line)
        if words[0] == "liteseg":
            name = words[2] if words[1] == "data" else words[1]
            result = run(*words[1:], *SMALL.get(name, ()))
            printed += result.stdout + result.stderr
        else:
            subprocess.run(words, check=True)
    return printed


@pytest.mark.slow
def test_page_from_photos_to_a_model_runs_and_prints_what_it_says(
    run, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    found = blocks(PAGE.read_text(encoding="utf-8"))
    assert [language for language, _ in found].count("text") > 8
    printed = ""
    for language, block in found:
        if language != "text":
            printed = _run(language, block, run, capfd)
            continue
        check_printed(printed, block)
    names = ("check.html", "curves.png", "report/index.html", "test_0000.jpg", "result/legend.png")
    for name in names:
        assert (tmp_path / name).stat().st_size > 1000, name
    for folder in ("added_prediction", "pseudo_color_prediction"):
        assert list((tmp_path / "result" / folder).rglob("*.png"))


def test_pictures_of_the_page_are_small():
    text = PAGE.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert 0 < len(pictures) <= 3
    for picture in pictures:
        assert (PAGE.parent / picture).stat().st_size < 60_000, picture
