"""Import of other tools' annotations: what is written, what is dropped, what is refused."""

from __future__ import annotations

import base64
import json
import zlib
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.cli.data import import_
from liteseg_plugin.datasets import camvid, importing, outlines
from liteseg_plugin.datasets.importing import Options, converting, import_data
from liteseg_plugin.datasets.validation import read_label
from liteseg_plugin.errors import DataError

CAMVID = Path(__file__).parents[3] / "shared" / "camvid"
with_pycocotools = pytest.mark.skipif(
    find_spec("pycocotools") is None, reason="pycocotools, of the extra coco, is not installed"
)


def picture(path, width=20, height=10, **options):
    """Write an image; each has other pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(str(path).encode())).integers(
        0, 255, (height, width, 3), np.uint8
    )
    Image.fromarray(pixels).save(path, **options)
    return pixels


def labelme(folder, shapes, name="a", image=True, **changes):
    """Write an image and labelme's file of it; shapes are (label, points, type)."""
    folder.mkdir(parents=True, exist_ok=True)
    if image:
        picture(folder / f"{name}.png")
    content = {
        "imagePath": f"{name}.png",
        "imageData": None,
        "imageHeight": 10,
        "imageWidth": 20,
        "shapes": [
            {"label": label, "points": points, "shape_type": kind} for label, points, kind in shapes
        ],
        **changes,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


BOX = [[2, 3], [5, 3], [5, 6], [2, 6]]


@pytest.fixture()
def imported(tmp_path):
    """Import ``tmp_path/source``; return the report and a function that reads a label."""

    def imported(format_name="labelme", source=None, ratio=(1, 0, 0), options=None, **arguments):
        dest = tmp_path / f"dest{len([*tmp_path.iterdir()])}"
        source = source or tmp_path / "source"
        options = Options(**(options or {}))
        arguments = {"ratio": ratio, "progress": False, "options": options, **arguments}
        report = import_data(format_name, source, dest, **arguments)
        return report, lambda name="a": read_label(dest / "annot" / f"{name}.png")

    return imported


def kinds(report):
    return sorted(note.kind for note in report.notes)


def test_formats_of_the_command_are_those_of_the_package():
    assert (*importing.FORMATS,) == import_.FORMATS


# --- real label maps there and back --------------------------------------------------------------


@pytest.fixture(scope="module")
def real_labels(toy):
    """Images and labels of a few frames of CamVid, or of drawn scenes."""
    root = CAMVID if CAMVID.is_dir() else toy.root
    images = sorted((root / "images").iterdir())[:: 150 if CAMVID.is_dir() else 4]
    return {path: read_label(root / "annot" / f"{path.stem}.png") for path in images}


def write_labelme(folder, labels):
    for path, label in labels.items():
        (folder / path.name).write_bytes(path.read_bytes())
        document = outlines.to_labelme(label, camvid.CLASSES, path.name, tolerance=0)
        (folder / f"{path.stem}.json").write_text(json.dumps(document), encoding="utf-8")


def write_coco(folder, labels):
    names = [f"frames/{path.name}" for path in labels]
    for path, name in zip(labels, names):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(path.read_bytes())
    document = outlines.to_coco([*labels.values()], camvid.CLASSES, names)
    (folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")


def write_yolo(folder, labels):
    for part in ("images", "labels"):
        (folder / part).mkdir()
    (folder / "data.yaml").write_text(f"names: {[*camvid.CLASS_NAMES]}", encoding="utf-8")
    for path, label in labels.items():
        (folder / "images" / path.name).write_bytes(path.read_bytes())
        lines = [
            f"{outline.index} " + " ".join(f"{value:.6f}" for value in points.ravel())
            for outline in outlines.find_outlines(label, camvid.CLASSES, tolerance=0)
            if len(points := outline.points / label.shape[::-1]) > 2
        ]
        (folder / "labels" / f"{path.stem}.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "write", "least"),
    [
        ("labelme", write_labelme, 0.995),
        pytest.param("coco", write_coco, 1, marks=with_pycocotools),
        ("yolo", write_yolo, 0.995),
    ],
)
def test_real_label_maps_come_back(name, write, least, real_labels, imported, tmp_path):
    (tmp_path / "source").mkdir()
    write(tmp_path / "source", real_labels)
    report, label = imported(name, unlabelled="ignore", options={"class_names": camvid.CLASS_NAMES})
    assert report.images == len(real_labels) >= 2
    assert report.classes == [*camvid.CLASS_NAMES]
    below = "frames/" if name == "coco" else ""
    equal = [
        # YOLO's files cannot say that a pixel is ignored, as those in a hole are.
        np.mean((label(below + path.stem) == truth)[(truth != 255) | (name != "yolo")])
        for path, truth in real_labels.items()
    ]
    assert min(equal) >= least, equal


# --- what is written -----------------------------------------------------------------------------


def test_import_passes_the_check_and_says_what_it_did(run, tmp_path):
    for number in range(5):
        labelme(tmp_path / "my files", [("cat", BOX, "polygon")], f"clip a{number}_1")
    dest = tmp_path / "new" / "set"
    text = run("data", "import", "labelme", tmp_path / "my files", dest).stdout
    assert f"{dest}: 5 images (train 3, val 1, test 1)" in text
    assert "classes: 0 background (0), 1 cat (5) (number of shapes)" in text
    assert "outside all shapes: 92.0% of the pixels, now background" in text
    assert "renamed: " in text and "it becomes clip_a0_1" in text
    assert (dest / "labels.txt").read_text(encoding="utf-8") == "background\ncat\n"
    assert json.loads(run("data", "check", dest, "--json").stdout)["errors"] == []
    again = run("data", "import", "labelme", tmp_path / "my files", tmp_path / "b", "--json")
    report = json.loads(again.stdout)
    assert report["splits"] == {"train": 3, "val": 1, "test": 1}
    assert report["notes"][0]["kind"] == "renamed" and len(report["notes"]) == 5


def test_later_shapes_cover_earlier_ones_or_small_ones_cover_large_ones(imported, tmp_path):
    small, large = ("small", BOX, "polygon"), ("large", [[0, 0], [9, 9]], "rectangle")
    labelme(tmp_path / "source", [small, large])
    assert (np.unique(imported()[1]()) == [0, 1]).all()
    report, label = imported(order="area")
    assert report.classes == ["background", "large", "small"]
    assert (label() == 2).sum() == 16 and (label() == 1).sum() == 100 - 16


def test_unlabelled_pixels_are_background_or_ignored(imported, tmp_path):
    labelme(
        tmp_path / "source", [("cat", BOX, "polygon"), ("__ignore__", [[8, 8]] * 2, "rectangle")]
    )
    report, label = imported()
    assert report.classes == ["background", "cat"]
    assert (np.unique(label()) == [0, 1, 255]).all() and label()[8, 8] == 255
    report, label = imported(unlabelled="ignore")
    assert report.classes == ["cat"]
    assert (np.unique(label()) == [0, 255]).all() and (label() == 0).sum() == 16
    labelme(
        tmp_path / "source", [("cat", BOX, "polygon"), ("_background_", [[0, 0]] * 2, "rectangle")]
    )
    assert imported()[0].classes == ["_background_", "cat"]


def test_classes_choose_names_and_their_order(imported, tmp_path):
    labelme(tmp_path / "source", [("dog", BOX, "polygon"), ("bird", [[0, 0], [0, 0]], "rectangle")])
    report, label = imported(options={"class_names": ["fox", "dog"]}, unlabelled="ignore")
    assert report.classes == ["fox", "dog"] and report.shapes == {"dog": 1}
    assert (label() == 1).sum() == 16
    [note] = report.notes
    assert note.kind == "unknown-name" and note.file == str(tmp_path / "source/a.json")
    assert note.message == "'bird' is not a class: its 1 pixels count as outside"


def test_names_that_differ_in_case_are_told(imported, tmp_path):
    labelme(tmp_path / "source", [("Car", BOX, "polygon"), ("car", BOX, "polygon")])
    assert "'Car' and 'car' are separate classes" in imported()[0].text()


def test_subfolders_keep_equal_names_apart(imported, tmp_path):
    labelme(tmp_path / "source" / "x", [("a", BOX, "polygon")])
    labelme(tmp_path / "source" / "y", [("b", BOX, "polygon")])
    report, label = imported()
    assert report.images == 2 and not report.notes
    assert label("x/a").max() == 1 and label("y/a").max() == 2


def test_sequences_stay_together(imported, tmp_path):
    for video in "pqrs":
        for frame in range(3):
            labelme(tmp_path / "source", [("a", BOX, "polygon")], f"{video}{frame}")
    report, _ = imported(ratio=None)
    assert report.split_by == "sequences"
    for split in ("train", "val", "test"):
        lines = Path(report.dest, f"{split}.txt").read_text(encoding="utf-8").splitlines()
        assert len(lines) == {"train": 6, "val": 3, "test": 3}[split]
        assert len({line[len("images/")] for line in lines}) == len(lines) / 3
    for path in (tmp_path / "source").glob("[qrs]*"):
        path.unlink()
    report, _ = imported(ratio=None)
    assert report.split_by == "images" and "hold neighbours of training frames" in report.text()


# --- what is dropped -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "kind", "problem", "message"),
    [
        (BOX[:2], "polygon", "few-points", "shape 2 (b): it has 2 points; it needs 3"),
        ([[30, 1], [33, 1], [33, 4]], "polygon", "outside", "it covers no pixel of the picture"),
        ([[1e300, 1], [3, 1], [3, 4]], "polygon", "outside", "not finite, or far outside"),
        ([["x", 1], [3, 1]], "rectangle", "not-points", "not pairs of numbers"),
        ([[3, 3]], "point", "shape-type", "a point has no area"),
        ([[3, 3], [4, 4]], "mask", "unreadable", "its mask is not a PNG"),
    ],
)
def test_shapes_that_cannot_be_drawn_are_named(points, kind, problem, message, imported, tmp_path):
    file = labelme(tmp_path / "source", [("a", BOX, "polygon"), ("b", points, kind)])
    report, label = imported()
    [note] = report.notes
    assert (note.kind, note.file) == (problem, str(file)) and message in note.message
    assert (label() == 1).sum() == 16 and report.shapes == {"a": 1}


def test_images_and_files_that_cannot_be_used_are_named(imported, tmp_path):
    source = tmp_path / "source"
    labelme(source, [("a", BOX, "polygon")])
    labelme(source, [("a", BOX, "polygon")], "gone", image=False)
    labelme(source, [("a", BOX, "polygon")], "size", imageWidth=21)
    labelme(source, [], "empty")
    labelme(source, [("a", BOX, "polygon")], "twice", imagePath="a.png")
    (source / "broken.json").write_text("{", encoding="utf-8")
    (source / "other.json").write_text("[]", encoding="utf-8")
    labelme(source, [("a", BOX, "polygon")], "cut")
    (source / "cut.png").write_bytes((source / "cut.png").read_bytes()[:100])
    picture(source / "new.png")
    report, _ = imported(unlabelled="ignore")
    assert report.images == 1
    assert {(note.kind, Path(note.file).name) for note in report.notes} == {
        ("missing-image", "gone.json"),
        ("unreadable", "size.json"),
        ("no-shapes", "empty.png"),
        ("duplicate-name", "a.png"),
        ("unreadable", "broken.json"),
        ("unreadable", "other.json"),
        ("unreadable", "cut.json"),
        ("no-annotation", "twice.png"),
        ("no-annotation", "new.png"),
    }
    text = report.text()
    assert "size.png has 20x10 pixels, its annotation says 21x10" in text
    assert "no shape can be drawn" in text
    assert imported()[0].images == 2  # with a background, an image without shapes is kept


def test_an_image_that_two_folders_have_is_not_guessed(imported, tmp_path):
    source = tmp_path / "source"
    labelme(source, [("a", BOX, "polygon")])
    for folder in ("x", "y"):
        picture(source / folder / "b.png")
    labelme(source / "z", [("a", BOX, "polygon")], "b", image=False, imagePath="C:\\there\\b.png")
    report, _ = imported()
    assert "duplicate-name" in kinds(report) and "name the subfolder" in report.text()
    (source / "y/b.png").unlink()
    assert imported()[0].images == 2  # the only image of that name is the one


def test_embedded_image_serves_where_the_file_is_missing(imported, tmp_path):
    pixels = picture(tmp_path / "elsewhere.png")
    data = base64.b64encode((tmp_path / "elsewhere.png").read_bytes()).decode()
    labelme(tmp_path / "source", [("a", BOX, "polygon")], image=False, imageData=data)
    report, label = imported()
    assert (cv2.imread(f"{report.dest}/images/a.png")[..., ::-1] == pixels).all()
    assert (label() == 1).sum() == 16
    assert not list(Path(report.dest).rglob("embedded"))


@pytest.mark.parametrize(("size", "turned"), [((20, 10), True), ((10, 20), False)])
def test_exif_orientation_is_told_and_removed(size, turned, imported, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 10 wide and 20 high, shown 20 wide and 10 high
    labelme(
        *(tmp_path / "source", [("a", BOX, "polygon")]),
        imageWidth=size[0],
        imageHeight=size[1],
    )
    stored = picture(tmp_path / "source/a.png", 10, 20, exif=exif)
    report, label = imported()
    assert kinds(report) == ["orientation"]
    assert ("turned upright" in report.text()) is turned
    saved = Image.open(f"{report.dest}/images/a.png")
    assert not saved.getexif() and saved.size == size == label().shape[::-1]
    expected = np.rot90(stored, -1) if turned else stored
    assert (np.asarray(saved) == expected).all()


# --- what is refused -----------------------------------------------------------------------------


def test_import_is_written_whole_or_not_at_all(imported, tmp_path, monkeypatch):
    labelme(tmp_path / "source", [("a", BOX, "polygon")])

    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(converting, "split_folder", fail)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="disk full"):
        imported()
    assert sorted(tmp_path.rglob("*")) == before


def test_command_refuses_with_one_line(fails, run, tmp_path):
    source = tmp_path / "source"
    labelme(source, [("a", BOX, "polygon")])
    command = ("data", "import", "labelme", source)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert "already exists; choose another DEST" in fails(*command, tmp_path / "full")
    assert "is inside" in fails(*command, source / "new")
    assert "and sum to 1" in fails(*command, tmp_path / "n", "--ratio", 1, 1, 0)
    assert "too few for a val list" in fails(*command, tmp_path / "n")
    assert "different names, got a twice" in fails(*command, tmp_path / "n", "--classes", "a", "a")
    assert "not found" in fails("data", "import", "coco", tmp_path / "gone", tmp_path / "n")
    (source / "a.png").unlink()
    assert "a.json: its image a.png is not found" in fails(*command, tmp_path / "n")
    assert not (tmp_path / "n").exists()
    with pytest.raises(DataError, match="no usable file of labelme"):
        import_data("labelme", tmp_path / "full", tmp_path / "n")
