"""What fuzzing found, and that the targets of scripts/fuzz.py tell bad from good."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz.py"
LONG = "9" * 5000  # more digits than Python reads

FOUND = [
    ("records", b"iteration,loss,lr,miou\n\n,\n3\n"),
    ("records", f"iteration,loss,lr,miou\n{LONG},1,1,1\n".encode()),
    ("records", f"[TRAIN] epoch: 1, iter: {LONG}/20, loss: 0.5000, lr: 0.1\n".encode()),
    ("annotations", b"\3names: [a, b]\ntrain: \xc4\n---0 0.1 0.1 0.9 0.1 0.9 0.9\n"),
    ("annotations", b"\3names: {a: b}\n---0 0.1 0.1 0.9 0.1 0.9 0.9\n"),
    ("annotations", b"\3names: 3\ntrain: 3\n---0 0.1 0.1 0.9 0.1 0.9 0.9\n"),
    ("annotations", "\3names: [a]\n---\u00b2 0.1 0.1 0.9 0.1 0.9 0.9\n".encode()),
    ("lists", b"0-65535=1 1-99999999999999=0 5=0-99999999999999"),
    ("configs", b"_base_: /dev/zero\n"),
]


@pytest.fixture(scope="module")
def fuzz():
    specification = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["fuzz"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def folder(fuzz, tmp_path):
    for name, content in fuzz.IN_FOLDER.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(("target", "data"), FOUND)
def test_found_inputs_give_the_error_that_is_documented(fuzz, folder, target, data):
    fuzz.TARGETS[target](data, folder)


def test_seeds_of_every_target_pass(fuzz, folder):
    for name, target in fuzz.TARGETS.items():
        inputs = [*fuzz.seeds(name), b"", b"\xff\0"]
        assert len(inputs) > 2
        for data in inputs:
            target(data, folder)


def test_another_error_ends_a_target(fuzz, folder, monkeypatch):
    from liteseg_plugin.datasets import lists

    monkeypatch.setattr(lists, "read_list", lambda *args, **kwargs: [][0])
    with pytest.raises(IndexError):
        fuzz.TARGETS["lists"](b"a b", folder)


@pytest.mark.parametrize("target", ["lists", "configs", "deploy", "sums", "commands", "records"])
def test_any_text_gives_a_value_or_the_error(fuzz, tmp_path_factory, target):
    hypothesis = pytest.importorskip("hypothesis", reason="the extra dev has it")
    folder = tmp_path_factory.mktemp("fuzz")
    for name, content in fuzz.IN_FOLDER.items():
        (folder / name).write_bytes(content)
    words = sorted({word for seed in fuzz.seeds(target) for word in seed.decode().split()})
    part = hypothesis.strategies.one_of(
        hypothesis.strategies.sampled_from(words), hypothesis.strategies.text(max_size=9)
    )
    separators = hypothesis.strategies.sampled_from([" ", "\n", "\n  ", ": ", "="])

    @hypothesis.settings(max_examples=50, deadline=None, database=None)
    @hypothesis.given(hypothesis.strategies.lists(hypothesis.strategies.tuples(part, separators)))
    def check(parts):
        text = "".join(map("".join, parts))
        fuzz.TARGETS[target](text.encode("utf-8", "surrogatepass"), folder)

    check()
