"""``infer --ray``: processes that are killed, Parquet in and out. Two tests start a local Ray."""

from __future__ import annotations

import json
import os
import signal
import threading
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.datasets.validation import read_image
from liteseg_plugin.errors import DataError, LitesegError
from liteseg_plugin.export.writer import export_model

pytestmark = pytest.mark.slow
COUNT = 120
BROKEN = COUNT - 1
FLAGS = ("--device", "cpu", "--on_error", "skip", "--ray", "--ray_workers", 2)


@pytest.fixture(scope="module")
def parquet():
    pytest.importorskip("ray.data", reason="the extra ray is not installed")
    return pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def model(parquet, pointwise, made_once):
    return made_once(
        "pointwise",
        lambda folder: export_model(pointwise(), folder, transforms=[{"type": "Normalize"}]),
    )


@pytest.fixture(scope="module")
def images(parquet, made_once):
    def make(folder):
        rng = np.random.default_rng(0)
        for number in range(COUNT):
            size = (8 + number % 5, 9, 3)
            cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, size, dtype=np.uint8))
        (folder / f"{BROKEN}.png").write_text("not an image")

    return made_once("pictures", make)


@pytest.fixture
def mark(monkeypatch, tmp_path):
    """What the environment of the processes that a test starts has."""
    monkeypatch.setenv("MARK_OF_TEST", str(tmp_path))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # tests beside it would be first
    return f"MARK_OF_TEST={tmp_path}".encode()


def manifest(out):
    entries = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert len({entry["image"] for entry in entries}) == len(entries) == COUNT
    assert [e["image"] for e in entries if e["status"] == "failed"] == [
        e["image"] for e in entries if e["error"]
    ]
    return entries


def predictors(mark):
    """Return the numbers of the processes with a predictor that `mark` was given to."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes()
            if name.startswith(b"ray::MapWorker") and mark in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found


def test_killed_process_leaves_each_image_once(model, images, tmp_path, run, mark):
    out = tmp_path / "out"
    labels = out / "pseudo_color_prediction"
    before, killed, ended = [], [], threading.Event()

    def kill():
        while not any(labels.glob("*.png")):
            if ended.wait(0.005):
                return
        before.extend(labels.glob("*.png"))
        killed.extend(predictors(mark)[:1])
        for process in killed:
            os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = run("infer", "--config", model, "--image_path", images, "--save_dir", out, *FLAGS)
    finally:
        ended.set()
        killer.join()
    assert killed, result.text
    assert 1 <= len(before) < COUNT - 1
    assert len(manifest(out)) == COUNT
    assert {path.stem for path in labels.glob("*.png")} == {*map(str, range(COUNT))} - {str(BROKEN)}
    assert f"{COUNT - 1} images segmented, 0 skipped as complete, 1 failed" in result.text


def test_parquet_of_images_to_parquet_and_resumed(model, images, parquet, tmp_path, run, mark):
    import pyarrow as pa

    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    contents = [(images / f"{number}.png").read_bytes() for number in range(COUNT)]
    rows = [{"bytes": content, "path": None} for content in contents]

    def write(name, some):
        table = pa.table({"image": some})
        parquet.write_table(table, source / f"{name}.parquet", row_group_size=25)

    write("a", rows[: COUNT // 2])
    write("b", rows[COUNT // 2 :])
    command = ("infer", "--config", model, "--image_path", source, "--save_dir", out, *FLAGS)
    command = (*command, "--save_as", "parquet")
    run(*command)
    entries = manifest(out)
    failed = f"{source}/b.parquet:{BROKEN - COUNT // 2}"
    assert [e["image"] for e in entries if e["error"]] == [failed]
    (part,) = (out / "labels").iterdir()
    table = parquet.read_table(part)
    found = dict(zip(table["image"].to_pylist(), table["label"].to_pylist()))
    assert len(found) == len(table) == COUNT - 1
    local = tmp_path / "local"
    run("infer", "--config", model, "--image_path", images, "--save_dir", local, *FLAGS[:4])
    for number in (0, 24, 25, 59, 60, 118):
        name = f"{source}/{'ab'[number // 60]}.parquet:{number % 60}"
        label = np.asarray(Image.open(BytesIO(found[name])))
        expected = np.asarray(Image.open(local / "pseudo_color_prediction" / f"{number}.png"))
        np.testing.assert_array_equal(label, expected)
    assert "has results; give --resume" in run(*command, check=False).text
    assert manifest(out) == entries
    write("b", rows[COUNT // 2 : BROKEN])  # without the broken one: nothing is left to do
    again = run(*command, "--resume")
    assert f"0 images segmented, {COUNT - 1} skipped as complete, 0 failed" in again.text


def test_column_of_paths(parquet, images, tmp_path):
    import pyarrow as pa

    from liteseg_plugin.inference.parquet import find_images

    path = images.parent / "paths.parquet"
    parquet.write_table(pa.table({"file": ["pictures/1.png"], "size": [3]}), path)
    [image], encoded = find_images(str(path), "file")
    assert not encoded
    assert image.name == "pictures/1.png"
    read_image(image.path)
    with pytest.raises(DataError, match=r"no column image .* file \(string\), size \(int64\)"):
        find_images(str(path), "image")
    path.write_text("not Parquet")
    with pytest.raises(DataError, match=r"cannot read .*paths\.parquet"):
        find_images(str(path), "file")


def test_parts_keep_what_the_manifest_names(parquet, tmp_path):
    from liteseg_plugin.inference.parquet import Parts
    from liteseg_plugin.inference.pipeline import SegmentedImage

    def write(keep, *names):
        parts = Parts(tmp_path, keep)
        for name in names:
            assert not [*parts.add(SegmentedImage(name, None, None), b"png")]
        return [files.label for files in parts.flush()]

    [first, _] = write(None, "a", "b")
    [second] = write([first], "c")
    assert [Path(first).name, Path(second).name] == ["part-00000.parquet", "part-00001.parquet"]
    with pytest.raises(LitesegError, match="has results; give --resume"):
        write(None, "d")
    assert write([second], "e") == [str(tmp_path / "labels" / "part-00002.parquet")]
    assert not Path(first).exists()
