from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin import cli
from liteseg_plugin.datasets import toy_street
from liteseg_plugin.datasets.check import (
    PIXELS_PER_KEPT,
    DataSet,
    Split,
    check,
    from_folder,
)
from liteseg_plugin.datasets.lists import Pair
from liteseg_plugin.errors import DataError


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("clean") / "street"
    return toy_street.generate(root, train=4, val=2, test=1, resolution_wh=(64, 48), progress=False)


@pytest.fixture
def street(clean, tmp_path):
    """Return a copy of the data set to spoil."""
    return shutil.copytree(clean, tmp_path / "street")


def look(root, **options):
    return check(from_folder(root, **options), progress=False).to_json()


def kinds(entries):
    return sorted({entry["kind"] for entry in entries})


def one(entries, kind):
    (entry,) = [entry for entry in entries if entry["kind"] == kind]
    return entry


def test_kept_pixels_are_those_of_the_loss():
    from liteseg_plugin.losses import ohem

    assert ohem.PIXELS_PER_KEPT == PIXELS_PER_KEPT


def test_clean_data_set(run, clean):
    result = run("data", "check", clean, "--json", "--batch_size", 8)
    report = json.loads(result.stdout)
    assert report["ok"] and report["errors"] == []
    assert report["splits"] == {"train": 4, "val": 2, "test": 1}
    assert report["sizes"] == [{"width": 64, "height": 48, "images": 7}]
    assert report["min_kept"]["value"] == 8 * 64 * 48 // 16
    labels = np.stack([cv2.imread(str(p), -1) for p in sorted((clean / "annot").glob("train_*"))])
    counted = [int((labels == i).sum()) for i in range(11)]
    assert [entry["pixels"]["train"] for entry in report["classes"]] == counted
    shares = [pixels / sum(counted) for pixels in counted]
    mean = sum(share / math.log(1.02 + share) for share in shares)
    for entry, share in zip(report["classes"], shares):
        assert entry["share"] == pytest.approx(share)
        assert entry["weight"] == pytest.approx(1 / math.log(1.02 + share) / mean, abs=1e-3)
    assert report["ignored_share"] == pytest.approx((labels == 255).mean())
    assert report["classes"][3]["name"] == "road"
    assert report["classes"][3]["color"] == [128, 64, 128]
    assert report["images_per_second"] > 0


def test_every_fault_is_found_and_named(run, street):
    images, labels = street / "images", street / "annot"
    whole = cv2.imread(str(images / "train_0000.png"))
    names = [f"case_{i}" for i in range(9)]
    for name in names:
        noise = np.random.default_rng(len(name + name[-1]) + int(name[-1])).integers(
            0, 256, whole.shape, dtype=np.uint8
        )
        cv2.imwrite(str(images / f"{name}.jpg"), noise)
        shutil.copy(labels / "train_0000.png", labels / f"{name}.png")
    cut = images / "case_0.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    path = labels / "case_1.png"
    path.write_bytes(path.read_bytes()[:100])
    cv2.imwrite(str(labels / "case_2.png"), np.zeros((10, 20), np.uint8))
    wrong = cv2.imread(str(labels / "case_3.png"), -1)
    wrong[0, :5] = 77
    cv2.imwrite(str(labels / "case_3.png"), wrong)
    cv2.imwrite(str(labels / "case_4.png"), np.zeros((48, 64, 3), np.uint8))
    (images / "case_5.jpg").unlink()
    (labels / "case_6.png").unlink()
    shutil.copy(images / "val_0000.png", images / "case_7.jpg")
    (images / "case_8.jpg").write_text("a text")
    with (street / "train.txt").open("a") as listing:
        listing.writelines(f"images/{n}.jpg annot/{n}.png\n" for n in names)
        listing.write("images/lonely.jpg\n")

    result = run("data", "check", street, "--json", check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    report = json.loads(result.stdout)
    errors = report["errors"]
    assert not report["ok"] and len(errors) == 10
    messages = {kind: [e["message"] for e in errors if e["kind"] == kind] for kind in kinds(errors)}
    assert [re.sub(r"[^ ]*/", "", m) for m in sorted(messages["unreadable"])] == [
        f"cannot read image case_0.jpg: {messages['unreadable'][0].split(': ')[1]}",
        "cannot read image case_8.jpg: it is not an image, or is truncated",
        f"cannot read label case_1.png: {messages['unreadable'][1].split(': ')[1]}",
    ]
    assert "truncated" in messages["unreadable"][0]
    missing = "".join(messages["missing"])
    assert f"image not found: {images}/case_5.jpg" in missing
    assert f"label not found: {labels}/case_6.png" in missing
    assert "differ in size: 64x48 and 20x10" in one(errors, "size")["message"]
    assert "77 (5 pixels); with num_classes 11" in one(errors, "label-range")["message"]
    assert one(errors, "label-range")["label"] == str(labels / "case_3.png")
    assert "the label has 3 channels" in one(errors, "label-channels")["message"]
    leak = one(errors, "leak")["message"]
    assert "case_7.jpg (train)" in leak and "val_0000.png (val)" in leak
    assert "line 14 of list" in one(errors, "list")["message"]
    assert "label-range: " in result.stderr  # the human output goes aside


def test_warnings_alone_are_no_failure(run, street):
    for name, value in (("train_0000", 255), ("train_0001", 3)):
        cv2.imwrite(str(street / f"annot/{name}.png"), np.full((48, 64), value, np.uint8))
    shutil.copy(street / "images/train_0002.png", street / "images/twin.png")
    shutil.copy(street / "annot/train_0002.png", street / "annot/twin.jpg")
    with (street / "train.txt").open("a") as listing:
        listing.write("images/twin.png annot/twin.jpg\n")
    shutil.copy(street / "images/train_0003.png", street / os.fsdecode(b"images/\xff.png"))
    report = json.loads(run("data", "check", street, "--json").stdout)
    assert report["ok"]
    assert kinds(report["warnings"]) == [
        *("duplicate", "label-empty", "label-lossy", "label-single-class", "not-listed"),
    ]
    warnings = report["warnings"]
    assert "every pixel is 255" in one(warnings, "label-empty")["message"]
    assert "one class only, 3" in one(warnings, "label-single-class")["message"]
    assert "2 times" in one(warnings, "duplicate")["message"]
    assert "1 images in" in one(warnings, "not-listed")["message"]


def test_classes_that_training_never_sees(street):
    for path in (street / "annot").glob("train_*"):
        label = cv2.imread(str(path), -1)
        label[label == 10] = 9
        cv2.imwrite(str(path), label)
    absent = one(look(street)["warnings"], "class-absent")
    assert absent["message"] == "class 10 (bicyclist) is in no label of train"


def test_number_of_classes_is_found_or_given(street):
    (street / "labels.txt").unlink()
    report = look(street)
    assert report["num_classes"] == 11
    assert "Give --num_classes" in one(report["warnings"], "num-classes")["message"]
    assert "label-range" in kinds(look(street, num_classes=5)["errors"])
    assert look(street, num_classes=11)["ok"]
    assert "label-range" in kinds(look(street, num_classes=11, ignore_index=200)["errors"])
    last = look(street, num_classes=11, ignore_index=-1)["classes"][10]
    assert last["share"] > 0
    with pytest.raises(ValueError, match="num_classes must be 1 to 256"):
        look(street, num_classes=300)


def test_weights_keep_the_size_of_the_loss(street):
    """Three quarters of class 0, a quarter of class 1: 1.7514 and 4.1838, over 2.3595."""
    label = np.zeros((48, 64), np.uint8)
    label[:12] = 1
    for path in (street / "annot").iterdir():
        cv2.imwrite(str(path), label)
    (street / "labels.txt").write_text("ground\nroad\n")
    assert [entry["weight"] for entry in look(street)["classes"]] == [0.742, 1.773]
    assert 0.75 * 0.742 + 0.25 * 1.773 == pytest.approx(1, abs=1e-3)


def test_hostile_files_are_entries(run, street, bomb):
    images = street / "images"
    bomb(images / "train_0000.png")
    wide = np.zeros((2, 100_000, 3), np.uint8)
    cv2.imwrite(str(images / "train_0001.png"), wide)
    cv2.imwrite(str(street / "annot/train_0001.png"), np.zeros((2, 100_000), np.uint8))
    bomb(street / "annot/train_0002.png")
    (images / "train_0003.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    page = street.parent / "page.html"
    result = run("data", "check", street, "--json", "--html", page, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    errors = json.loads(result.stdout)["errors"]
    assert [e["kind"] for e in errors] == ["unreadable"] * 3
    assert "exceeds limit" in errors[0]["message"] and "exceeds limit" in errors[1]["message"]
    assert page.read_text(encoding="utf-8").count("<figure>") == 4


def test_folders_without_lists(run, tmp_path):
    result = run("data", "check", tmp_path, check=False)
    assert result.returncode == 1 and "liteseg data split" in result.stderr
    with pytest.raises(DataError, match="folder not found"):
        from_folder(tmp_path / "gone")
    result = run("data", "check", check=False)
    assert "give a folder to check, or --config" in result.stderr
    (tmp_path / "train.txt").write_text("")
    report = look(tmp_path)
    assert "is empty" in one(report["errors"], "list")["message"] and report["images"] == 0


def test_page_is_one_file_and_escapes_names(street):
    from liteseg_plugin.visualization.check_page import write_page

    nasty = "<script>alert(1)</script>.png".replace("/", "")
    shutil.copy(street / "images/train_0000.png", street / "images" / nasty)
    shutil.copy(street / "annot/train_0000.png", street / "annot/x.png")
    with (street / "train.txt").open("a") as listing:
        listing.write(f"images/{nasty} annot/x.png\n")
    report = check(from_folder(street), progress=False)
    text = write_page(report, street / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text) and "://" not in text
    assert text.count("<figure>") == text.count("alt=") == 8
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    assert "the same picture 2 times" in text


def test_summary_shows_some_and_counts_the_rest(street):
    for path in (street / "annot").glob("*"):
        cv2.imwrite(str(path), np.full((48, 64), 99, np.uint8))
    text = check(from_folder(street), progress=False).text(shown=2)
    assert text.count("label values out of range") == 2
    assert "label-range: 5 more" in text and "errors: 7" in text


def test_palette_label_counts_by_index(street):
    path = street / "annot/train_0000.png"
    label = Image.open(path)
    before = look(street)["classes"]
    label.putpalette(list(range(256)) * 3)
    label.save(path)
    assert Image.open(path).mode == "P"
    assert look(street)["classes"] == before


def test_config_is_checked_in_the_words_of_training(run, street, tmp_path):
    template = Path(__file__).parents[2] / "configs/pp_liteseg/pp_liteseg_stdc1_custom.yml"
    text = template.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "# <--" in line]
    assert len(lines) == 2
    text = text.replace("data/custom", str(street)).replace(
        "../_base_", f"{template.parents[1]}/_base_"
    )
    config = tmp_path / "mine.yml"
    config.write_text(text, encoding="utf-8")
    report = json.loads(run("data", "check", "--config", config, "--json").stdout)
    assert report["ok"] and report["splits"] == {"train": 4, "val": 2}
    assert report["min_kept"]["value"] == 8 * 512 * 512 // 16
    assert report["classes"][0]["name"] == "sky"


def test_label_of_another_depth_is_a_warning(street, deep_label):
    depth, write = deep_label
    write(street / "annot/train_0000.png", np.eye(48, 64, dtype=np.uint8))
    report = look(street)
    assert report["ok"]
    assert [e["message"].partition("the label is a ")[2] for e in report["warnings"]] == (
        []
        if depth in ("4-bit palette", "32-bit", "float")
        else [
            f"{depth} image; the plugin reads its values, but PaddleSeg without it reads others or "
            "stops: save 8-bit labels to train elsewhere"
        ]
    )


def test_turned_image_is_an_error(street):
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("train_0000", "test_0000"):
        path = street / f"images/{name}.png"
        Image.open(path).save(path, exif=exif)
    (street / "test.txt").write_text("images/test_0000.png\n")  # without a label it does no harm
    (error,) = look(street)["errors"]
    assert (
        error["kind"] == "orientation" and "train_0000.png: EXIF orientation 3" in error["message"]
    )


def test_nothing_in_files_gives_the_terminal_orders(street, capsys):
    orders = "\x1b]0;title\x07\x1b[2J"
    names = (street / "labels.txt").read_text().replace("sky", f"sky{orders}")
    (street / "labels.txt").write_text(names)
    (street / "train.txt").write_text(f"images/{orders}.png annot/train_0000.png\n")
    assert cli.main(["data", "check", str(street)]) == 1
    written = "".join(capsys.readouterr())
    assert r"sky\x1b]0;title" in written and r"images/\x1b]0;title\x07\x1b[2J.png" in written
    assert not set(written) & {"\x1b", "\x07"}


def test_names_that_are_no_text(street, capsys):
    """Cityscapes' folders are searched, so no list has to hold such a name."""
    from liteseg_plugin.visualization.check_page import write_page

    pairs = []
    for kind in ("images", "annot"):
        for number, content in enumerate(((street / f"{kind}/train_0000.png").read_bytes(), b"")):
            path = street / kind / os.fsdecode(b"stra\xdfe_%d.png" % number)
            path.write_bytes(content)
            pairs.append(str(path))
    data = DataSet(str(street), [Split("train", [Pair(*pairs[::2]), Pair(*pairs[1::2])])], 255, 11)
    report = check(data, progress=False)
    assert len(report.errors) >= 2  # of the empty files
    json.dumps(report.to_json()).encode()
    print(report.text())
    assert r"stra\udcdfe_1.png" in capsys.readouterr().out
    assert write_page(report, street / "page.html").is_file()


def test_config_whose_padding_stops_training(toy, tmp_path, capsys):
    crop = {"type": "RandomPaddingCrop", "crop_size": [64, 64]}
    config = toy.config(
        tmp_path,
        **{f"{name}_dataset__ignore_index": 254 for name in ("train", "val")},
        train_dataset__transforms=[crop],
        loss__types=[{"type": "CrossEntropyLoss", "ignore_index": 254}] * 3,
    )
    assert cli.main(["data", "check", "--config", str(config)]) == 1
    assert "write label_padding_value: 254 under RandomPaddingCrop" in capsys.readouterr().err
