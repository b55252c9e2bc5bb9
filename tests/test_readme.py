"""The README says what the records say, and names files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from liteseg_plugin.weights import RELEASED

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("weights", RELEASED, ids=lambda w: w.name)
def test_readme_row_is_the_record(weights):
    ms = "-" if weights.miou_ms_flip is None else f"{weights.miou_ms_flip:.2f}"
    cells = (
        f"{weights.model} ({weights.backbone})",
        weights.dataset,
        weights.iterations,
        "{}x{}".format(*weights.train_wh),
        "{}x{}".format(*weights.test_wh),
        f"{weights.miou:.2f}",
        f"{weights.miou_flip:.2f}",
        ms,
        f"[{weights.name}]({weights.url})",
    )
    assert "|" + "|".join(map(str, cells)) + "|" in README.splitlines()


def test_readme_names_files_that_exist():
    named = re.findall(r"(?:scripts|docs|configs)/[\w./-]+\.(?:sh|md|yml)", README)
    assert len(named) > 5
    missing = [name for name in named if not (REPOSITORY / name).exists()]
    assert not missing


def test_readme_fits_two_screens():
    assert len(README.splitlines()) <= 130
