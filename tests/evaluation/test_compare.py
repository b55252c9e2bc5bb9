"""Two evaluations made by hand, side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import os

import pytest

from liteseg_plugin.cli import main
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.evaluation.compare import compare
from liteseg_plugin.evaluation.result import Evaluation, ImageScore

NAMES = ("road", "sky")


def evaluation(miou=0.5, image_mious=(0.25, 0.5, 0.75)):
    return Evaluation(
        model="model.pdparams",
        runtime="paddle",
        config="config.yml",
        test_config={},
        classes=[ClassInfo(name, (1, 2, 3)) for name in NAMES],
        **dict.fromkeys(("miou", "accuracy", "kappa", "dice", "precision", "recall"), miou),
        **{f"class_{name}": [0.5, 0.5] for name in ("iou", "dice", "precision", "recall")},
        iou_of_absent=0.0,
        boundary_f1=None,
        class_boundary_f1=[None, 0.5],
        boundary_tolerance=0.0075,
        confusion_matrix=[[2, 1, 0], [1, 2, 0], [0, 0, 0]],
        images=len(image_mious),
        seconds=1.0,
        image_scores=[
            ImageScore(f"{i}.png", f"{i}_label.png", miou, miou, None)
            for i, miou in enumerate(image_mious)
        ],
    )


@pytest.fixture()
def reports(tmp_path):
    """Write two evaluations; return their folders."""

    def reports(before, after):
        for name, numbers in (("a", before), ("b", after)):
            (tmp_path / name).mkdir(exist_ok=True)
            numbers.save(tmp_path / name)
        return tmp_path / "a", tmp_path / "b"

    return reports


def test_noise_is_neither_better_nor_worse(reports):
    before = evaluation()
    after = evaluation(0.5 - 1e-9, (0.25 - 4e-5, 0.5 + 4e-5, 0.7499))
    comparison = compare(*reports(before, after))
    worse, better = comparison.changed_images()
    assert ([change.name for change in worse], better) == (["2.png"], [])
    text = comparison.text()
    assert "3 images in both: 0 got better, 1 worse" in text
    assert "-0.00" not in text
    assert "-0.01" in text
    # The document keeps all digits.
    assert comparison.to_json()["scores"][0]["difference"] == pytest.approx(-1e-9)


def test_page_goes_where_it_is_told(reports, tmp_path):
    page = tmp_path / "new" / "folder" / "page.HTML"
    folders = reports(evaluation(), evaluation(0.75))
    assert compare(*folders).write_page(page) == page
    assert "25.00" in page.read_text()
    with pytest.raises(ValueError, match=r"page\.pdf would be HTML; name it page\.html"):
        compare(*folders).write_page(tmp_path / "page.pdf")


@pytest.mark.parametrize(
    "command",
    [("compare", "a", "b", "--save", "x/page.pdf"), ("data", "check", "a", "--html", "x/page.pdf")],
)
def test_page_of_another_format_is_refused_before_the_work(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2
    assert "x/page.pdf would be HTML; name it page.html" in capsys.readouterr().err


@contextlib.contextmanager
def unread_output():
    """Let standard output be a pipe whose reader has ended."""
    reader, writer = os.pipe()
    kept = os.dup(1)
    os.close(reader)
    os.dup2(writer, 1)
    try:
        with open(1, "w", closefd=False) as stream, contextlib.redirect_stdout(stream):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(writer)


@pytest.mark.parametrize("length", [5, 9000])  # less and more than is buffered
def test_pipe_that_nobody_reads(reports, tmp_path, capfd, length):
    long = [ImageScore(str(i) * length, "", i / 9, 1.0, None) for i in range(3)]
    after = dataclasses.replace(evaluation(), image_scores=long)
    before = dataclasses.replace(after, image_scores=[dataclasses.replace(s, miou=1) for s in long])
    folders = map(str, reports(before, after))
    page = tmp_path / "page.html"
    with unread_output():
        assert main(["compare", *folders, "--save", str(page)]) == 141
    assert capfd.readouterr().err == ""
    assert long[0].image in page.read_text()
