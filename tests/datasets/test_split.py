from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.datasets import toy_street
from liteseg_plugin.datasets.lists import read_list
from liteseg_plugin.datasets.split import split_folder
from liteseg_plugin.errors import DataError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """Return a function that makes a folder of pictures and masks."""

    def make(names, images="images", labels="annot", suffix=""):
        root = tmp_path / "mine"
        for sub, ending in ((images, ".jpg"), (labels, f"{suffix}.png")):
            for name in names:
                path = root / sub / f"{name}{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
        return root

    return make


def lists(root):
    return {n: (root / f"{n}.txt").read_text().splitlines() for n in ("train", "val", "test")}


def test_split_writes_lists_that_hold_each_pair_once(run, folder):
    root = folder([f"{i:03d}" for i in range(20)], labels="masks", suffix="_mask")
    (root / "images" / "alone.png").write_bytes(b"")
    command = ("data", "split", root, "--labels", "masks", "--label_suffix", "_mask")
    made = json.loads(run(*command, "--json").stdout)
    assert (made["train"], made["val"], made["test"]) == (16, 2, 2)
    assert made["without_label"] == ["images/alone.png"] and made["without_image"] == []
    found = lists(root)
    lines = [line for lines in found.values() for line in lines]
    assert sorted(lines) == [f"images/{i:03d}.jpg masks/{i:03d}_mask.png" for i in range(20)]
    assert found["train"] == sorted(found["train"])


def test_same_seed_same_lists(folder):
    root = folder([f"{i:03d}" for i in range(50)])
    split_folder(root, seed=3)
    first = lists(root)
    split_folder(root, seed=3, overwrite=True)
    assert lists(root) == first
    split_folder(root, seed=4, overwrite=True)
    assert lists(root) != first


def test_subfolders_are_paired_by_their_path(folder):
    root = folder(["a/1", "b/1", "a/2", "b/2"])
    split_folder(root, ratio=(0.5, 0.5, 0))
    lines = [*(root / "train.txt").open(), *(root / "val.txt").open()]
    assert "images/a/1.jpg annot/a/1.png\n" in lines and len(lines) == 4
    assert not (root / "test.txt").exists()


def test_sequences_stay_together(folder):
    root = folder([f"{video}_{i:04d}" for video in "abcdefghij" for i in range(5)])
    split_folder(root, keep_sequences=True)
    found = lists(root)
    videos = [{line.split("/")[1][0] for line in lines} for lines in found.values()]
    assert sum(map(len, videos)) == 10 and set.union(*videos) == set("abcdefghij")
    assert {name: len(lines) for name, lines in found.items()} == {"train": 40, "val": 5, "test": 5}


def test_lists_that_are_there_are_kept(folder):
    root = folder("abcde")
    (root / "val.txt").write_text("mine")
    with pytest.raises(DataError, match=r"val\.txt already exist; --overwrite"):
        split_folder(root)
    assert not (root / "train.txt").exists()
    assert (root / "val.txt").read_text() == "mine"


@pytest.mark.parametrize("ratio", [(1.0,), (0.5, 0.4), (0.5, 0.4, 0.4), (1.2, -0.1, -0.1)])
def test_ratio_is_two_or_three_shares(folder, ratio):
    with pytest.raises(ValueError, match="train, val and test, or of train and val, and sum to 1"):
        split_folder(folder("ab"), ratio=ratio)


def test_two_shares_are_those_of_train_and_val(run, folder):
    root = folder("abcde")
    made = json.loads(run("data", "split", root, "--ratio", 0.8, 0.2, "--json").stdout)
    assert (made["train"], made["val"], made["test"]) == (4, 1, 0)
    assert not (root / "test.txt").exists()


def test_unpaired_names_draw_the_suffix_that_pairs_them(folder):
    root = folder(["a", "sub/b"], suffix="_gt mask")
    Image.new("L", (2, 2)).save(root / "annot" / "a_other.png")
    with pytest.raises(DataError, match=r"; --label_suffix '_gt mask' pairs 2 images with a label"):
        split_folder(root)
    with pytest.raises(
        DataError,
        match=r"name is the image's with _gtmask: 2 images, 0 labels, .*"
        r"; --label_suffix '_gt mask' pairs 2 images",
    ):
        split_folder(root, label_suffix="_gtmask")
    for path in (root / "annot").rglob("*.png"):
        path.rename(path.with_name(f"label_{path.name}"))
    with pytest.raises(DataError, match="; --label_suffix gives what a label's name adds"):
        split_folder(root)


def test_folders_that_cannot_be_split(folder, tmp_path):
    with pytest.raises(DataError, match=r"folder not found: .*images"):
        split_folder(tmp_path)
    root = folder("ab")
    for flag in ("images", "labels"):
        with pytest.raises(DataError, match=f"; .* has annot, images: --{flag} takes the name"):
            split_folder(root, **{flag: "masks"})
    with pytest.raises(DataError, match=r"folder not found: .*gone/images; there is no .*gone"):
        split_folder(tmp_path / "gone")
    with pytest.raises(DataError, match=r"2 pairs are too few for a test list of 0\.1"):
        split_folder(root)
    with pytest.raises(
        DataError, match=r"no image .* has a label .* e\.g\. images/a\.jpg; --label_suffix '' "
    ):
        split_folder(root, label_suffix="_mask")
    (root / "images" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="two files with one name"):
        split_folder(root)


def test_each_list_gets_something_where_it_can(folder):
    made = split_folder(folder("abc"))
    assert (made.train, made.val, made.test) == (1, 1, 1)


def test_separator_in_a_name(folder):
    root = folder(["my street", *"bcdefghij"])
    with pytest.raises(DataError, match=r"is in the name images/my street\.jpg; rename"):
        split_folder(root)
    split_folder(root, separator=",")
    assert "images/my street.jpg,annot/my street.png" in str(lists(root))
    assert read_list(root / "val.txt", root, separator=",")[1] == []
    for separator in " ;":
        faults = read_list(root / "val.txt", root, separator=separator)[1]
        assert "; ',' separates them: --separator, or separator in a config" in faults[0].message


def test_template_trains_after_two_changed_lines(run, tmp_path):
    root = tmp_path / "mine"
    toy_street.generate(tmp_path / "toy", train=8, val=0, test=0, resolution_wh=(64, 48))
    root.mkdir()
    (tmp_path / "toy/images").rename(root / "images")
    (tmp_path / "toy/annot").rename(root / "masks")
    run("data", "split", root, "--labels", "masks", "--ratio", 0.75, 0.25, 0)

    config = tmp_path / "mine.yml"
    run("config", "copy", "pp_liteseg_stdc1_custom", config)
    text = config.read_text(encoding="utf-8")
    assert text.count("data/custom") == 2 and text.count("num_classes: 11") == 3
    # Not for the user: a crop that trains within a second.
    text = text.replace("data/custom", str(root)).replace("[512, 512]", "[64, 64]")
    config.write_text(text, encoding="utf-8")
    trained = run(
        *("train", "--config", config, "--device", "cpu", "--batch_size", 2),
        *("--iters", 1, "--log_iters", 1, "--do_eval", "--save_dir", tmp_path / "out"),
        *("--opts", "model.backbone.pretrained=None"),
    )
    assert "#Images: 2 mIoU" in trained.text
    assert (tmp_path / "out/best_model/model.pdparams").is_file()
