"""Many images: resumed after a kill, shared among jobs, with broken ones among them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.validation import read_image
from liteseg_plugin.errors import DataError, LitesegError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference import bulk
from liteseg_plugin.inference.bulk import Shard, segment_in_bulk
from liteseg_plugin.inference.images import find_images

CLASSES = [ClassInfo("dark", (0, 0, 0)), ClassInfo("bright", (255, 0, 0))]


class Darkness:
    """A predictor that counts its images, and refuses those of one row."""

    exported = SimpleNamespace(named_classes=lambda: CLASSES, classes=CLASSES)
    read = staticmethod(read_image)
    shown = staticmethod(lambda image: image)
    tiling = None

    def __init__(self):
        self.seen = 0

    def __call__(self, image):
        if len(image) == 1:
            raise DataError("an image of one row")
        self.seen += 1
        return (image[..., 0] > 127).astype("int32")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(7):
        picture = np.full((8, 8 + number, 3), 30 * number, np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


def manifest(folder, name="manifest.jsonl"):
    """Return the manifest's entries by the image's name; each image has one."""
    entries = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    named = {Path(entry["image"]).name: entry for entry in entries}
    assert len(named) == len(entries)
    return named


def segment(images, out, **options):
    predictor = Darkness()
    return segment_in_bulk(predictor, find_images(str(images)), out, **options), predictor.seen


def test_manifest_names_each_image_and_its_files(images, tmp_path):
    summary, _ = segment(images, tmp_path / "out")
    assert len(summary.done) == 7
    entries = manifest(tmp_path / "out")
    assert [*entries] == [f"{number}.png" for number in range(7)]
    for name, entry in entries.items():
        assert entry["image"] == str(images / name)
        assert (entry["status"], entry["error"]) == ("done", None)
        label, overlay = (cv2.imread(path) for path in entry["outputs"])
        assert label.shape == overlay.shape == cv2.imread(entry["image"]).shape


def test_broken_images_are_skipped_and_tried_again_on_resume(images, tmp_path):
    out = tmp_path / "out"
    (images / "2.png").write_text("not an image")
    cv2.imwrite(str(images / "4.png"), np.zeros((1, 9, 3), np.uint8))
    summary, seen = segment(images, out, skip_errors=True)
    assert (len(summary.done), seen) == (5, 5)
    failed = {name: entry for name, entry in manifest(out).items() if entry["status"] == "failed"}
    assert [*failed] == ["2.png", "4.png"]
    assert "cannot read image" in failed["2.png"]["error"]
    assert failed["4.png"] == {
        "image": str(images / "4.png"),
        "status": "failed",
        "outputs": [],
        "error": "an image of one row",
    }
    assert summary.to_json()["failed"][1] == {
        "image": str(images / "4.png"),
        "error": "an image of one row",
    }

    cv2.imwrite(str(images / "2.png"), np.zeros((8, 8, 3), np.uint8))
    summary, seen = segment(images, out, skip_errors=True, resume=True)
    assert ([Path(result.image).name for result in summary.done], seen) == (["2.png"], 1)
    assert (len(summary.skipped), len(summary.failed)) == (5, 1)
    assert [n for n, entry in manifest(out).items() if entry["status"] == "failed"] == ["4.png"]


def test_broken_image_stops_by_default_and_is_in_the_manifest(images, tmp_path):
    (images / "3.png").write_text("not an image")
    with pytest.raises(DataError, match="cannot read image"):
        segment(images, tmp_path / "out")
    entries = manifest(tmp_path / "out")
    assert [entry["status"] for entry in entries.values()] == [*["done"] * 3, "failed"]


def test_images_that_all_fail_are_an_error(images, tmp_path):
    for path in images.iterdir():
        path.write_text("not an image")
    with pytest.raises(DataError, match="all 7 images failed, the first one: cannot read"):
        segment(images, tmp_path / "out", skip_errors=True)


def test_full_disk_names_the_manifest(images, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(bulk.Entry, "line", lambda entry: "x" * 20000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, limits[1]))  # other files are smaller
    try:
        with pytest.raises(OSError, match=r"cannot write .*manifest\.jsonl: File too large"):
            segment(images, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_resume_repeats_what_is_not_complete(images, tmp_path):
    out = tmp_path / "out"
    summary, _ = segment(images, out)
    Path(summary.done[1].label).unlink()
    overlay = Path(summary.done[2].overlay)
    overlay.write_bytes(overlay.read_bytes()[:-1])
    Path(summary.done[4].label).write_bytes(b"")
    lines = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    (out / "manifest.jsonl").write_text("".join(lines[:3]) + lines[3][:20])  # as a kill leaves it
    summary, seen = segment(images, out, resume=True)
    assert [Path(result.image).name for result in summary.done] == ["1.png", "2.png", "4.png"]
    assert seen == 3
    assert {entry["status"] for entry in manifest(out).values()} == {"done"}
    assert len(manifest(out)) == 7


def test_resume_with_another_list_keeps_the_entries_of_the_first(images, tmp_path):
    lists = [tmp_path / "images" / f"{name}.txt" for name in ("first", "second")]
    lists[0].write_text("0.png\n1.png\n1.png\n")
    lists[1].write_text("1.png\n2.png\n")
    assert len(segment(lists[0], tmp_path / "out")[0].done) == 2
    assert len(segment(lists[1], tmp_path / "out", resume=True)[0].done) == 1
    assert sorted(manifest(tmp_path / "out")) == ["0.png", "1.png", "2.png"]


def test_manifest_of_something_else_is_named(images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.jsonl").write_text("a list\n")
    with pytest.raises(DataError, match=r"line 1 of .*manifest\.jsonl is not of a manifest"):
        segment(images, tmp_path / "out", resume=True)


def test_shards_share_the_images(images, tmp_path):
    seen = []
    for index in range(3):
        summary, _ = segment(images, tmp_path / "out", shard=Shard.parse(f"{index}/3"))
        assert len(manifest(tmp_path / "out", f"manifest_{index}_of_3.jsonl")) == len(summary.done)
        seen += [Path(result.image).name for result in summary.done]
    assert sorted(seen) == [f"{number}.png" for number in range(7)]
    for text in ("3/3", "1", "a/b", "-1/2", "0/0"):
        with pytest.raises(LitesegError, match="--shard must be I/N"):
            Shard.parse(text)


def test_killed_command_resumes_with_each_image_once(
    pointwise, process, killed_at, run, images, tmp_path
):
    model, out = tmp_path / "model", tmp_path / "out"
    export_model(pointwise(), model, transforms=[{"type": "Normalize"}])
    (images / "5.png").write_text("not an image")
    command = ("infer", "--config", model, "--image_path", images, "--save_dir", out)
    flags = ("--device", "cpu", "--on_error", "skip", "--resume")
    moment = killed_at("rename", "*/pseudo_color_prediction/*", 3)
    killed = process("liteseg", *command, *flags, check=False, **moment)
    assert killed.returncode == -signal.SIGKILL, killed.text
    left = len([*(out / "pseudo_color_prediction").glob("[0-9].png")])
    assert 1 <= left < 6

    result = run(*command, *flags, "--json")
    report = json.loads(result.stdout)
    complete = report["skipped"]
    assert 1 <= complete <= left
    assert (len(report["images"]), len(report["failed"])) == (6 - complete, 1)
    entries = manifest(out)
    assert sorted(entries) == [f"{number}.png" for number in range(7)]
    assert [name for name, entry in entries.items() if entry["status"] == "failed"] == ["5.png"]
    assert not [*out.rglob(".*")]
    assert f"{6 - complete} images segmented, {complete} skipped as complete, 1 failed" in (
        result.stderr
    )
