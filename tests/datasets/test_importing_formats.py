"""Each format of ``liteseg data import``: its layout, its shapes, its rules of drawing."""

from __future__ import annotations

import base64
import json
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin.datasets.importing import Options, drawing, import_data
from liteseg_plugin.datasets.importing.files import read_table
from liteseg_plugin.datasets.validation import read_label
from liteseg_plugin.errors import DataError

SIZE_HW = (10, 20)
with_pycocotools = pytest.mark.skipif(
    find_spec("pycocotools") is None, reason="needs the extra coco, which scripts/test.sh installs"
)


@pytest.fixture()
def source(tmp_path):
    """Return a function that writes a file of the source: an image, an array, a text, JSON."""

    def source(name, content=None):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            rng = np.random.default_rng(len([*(tmp_path / "source").rglob("*")]))
            Image.fromarray(rng.integers(0, 255, (*SIZE_HW, 3), np.uint8)).save(path)
        elif isinstance(content, np.ndarray):
            Image.fromarray(content).save(path)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")
        return path

    source.root = tmp_path / "source"
    return source


@pytest.fixture()
def imported(source, tmp_path):
    """Import the source; return the report and a function that reads a label."""

    def imported(format_name, path=None, ratio=(1, 0, 0), options=None, **arguments):
        dest = tmp_path / f"dest{len([*tmp_path.iterdir()])}"
        arguments = {"ratio": ratio, "progress": False, **arguments}
        options = Options(**(options or {}))
        report = import_data(format_name, path or source.root, dest, options=options, **arguments)
        return report, lambda name="a": read_label(dest / "annot" / f"{name}.png")

    return imported


def box(left, top, right, bottom):
    """Return a label (H, W) of bool of these pixels, the last row and column excluded."""
    mask = np.zeros(SIZE_HW, bool)
    mask[top:bottom, left:right] = True
    return mask


# --- drawing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "pixels"),
    [
        (drawing.polygon([[2, 3], [5, 3], [5, 6], [2, 6]]), box(2, 3, 6, 7)),
        (drawing.rectangle([[5, 6], [2, 3]]), box(2, 3, 6, 7)),
        (drawing.rectangle([[-5, -6], [2, 3]]), box(0, 0, 3, 4)),
        (drawing.line([[2, 5], [9, 5]], 3), box(2, 4, 10, 7)),
        (drawing.placed(lambda: np.ones((4, 3)), 18, -2), box(18, 0, 20, 2)),
        (drawing.whole_points_polygon([[0.1, 0.3], [0.25, 0.3], [0.25, 0.6]]), None),
    ],
)
def test_shapes_cover_these_pixels(draw, pixels):
    mask = draw(SIZE_HW)
    if pixels is None:
        pixels = np.zeros(SIZE_HW, np.uint8)
        cv2.fillPoly(pixels, [np.array([[2, 3], [5, 3], [5, 6]])], 1)
    assert (mask.astype(bool) == pixels.astype(bool)).all()


def test_circle_has_the_area_of_its_radius():
    mask = drawing.circle([[50, 50], [50, 80]])((100, 100))
    assert mask[50, 20] and mask[50, 80] and not mask[50, 19] and not mask[50, 81]
    assert mask.sum() == pytest.approx(np.pi * 30.5**2, rel=0.01)


# --- labelme -------------------------------------------------------------------------------------


def test_labelme_masks_and_lines_are_drawn(source, imported):
    source("a.png")
    mask = np.array([[0, 1, 1], [0, 1, 0]], np.uint8) * 255
    encoded = base64.b64encode(cv2.imencode(".png", mask)[1].tobytes()).decode()
    shapes = [
        {"label": "line", "points": [[2, 5], [9, 5]], "shape_type": "linestrip"},
        {"label": "m", "points": [[4, 1], [6, 2]], "shape_type": "mask", "mask": encoded},
    ]
    source("a.json", {"imagePath": "a.png", "shapes": shapes})
    report, label = imported("labelme", options={"line_width": 1})
    assert report.classes == ["background", "line", "m"]
    assert (label()[5] == 1).tolist() == box(2, 5, 10, 6)[5].tolist()
    assert np.argwhere(label() == 2).tolist() == [[1, 5], [1, 6], [2, 5]]


# --- COCO ----------------------------------------------------------------------------------------


@with_pycocotools
def test_coco_draws_polygons_run_lengths_and_crowds(source, imported):
    from pycocotools import mask

    source("train2017/a.png")
    source("train2017/b.png")
    compressed = mask.encode(np.asfortranarray(box(12, 0, 15, 4).astype(np.uint8)))
    rings = [[2, 3, 6, 3, 6, 7, 2, 7], [8, 3, 9, 3, 9, 7, 8, 7]]
    annotations = [
        {"category_id": 9, "segmentation": rings},
        {"category_id": 4, "segmentation": {**compressed, "counts": compressed["counts"].decode()}},
        {"category_id": 4, "segmentation": {"size": [10, 20], "counts": [0, 200]}, "iscrowd": 1},
        {"category_id": 4, "segmentation": [[1, 1, 2, 2]]},
        {"category_id": 4, "segmentation": [], "bbox": [1, 1, 2, 2]},
        {"category_id": 4, "segmentation": {"size": [10, 20], "counts": [0, 100]}},
        {"category_id": 4, "segmentation": {"size": [20, 10], "counts": [0, 200]}},
        {"category_id": 5, "segmentation": [[1, 1, 9, 1, 9, 9]]},
    ]
    annotations = [{"id": i, "image_id": 1, **entry} for i, entry in enumerate(annotations)]
    document = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 20, "height": 10},
            {"id": 2, "file_name": "b.png", "width": 20, "height": 10},
            {"id": 3, "file_name": "gone.png", "width": 20, "height": 10},
        ],
        "categories": [{"id": 9, "name": "nine"}, {"id": 4, "name": "four"}],
        "annotations": [*annotations, {"image_id": 7, "category_id": 4, "segmentation": []}],
    }
    file = source("annotations/instances_train2017.json", document)
    report, label = imported("coco", file)
    assert report.classes == ["background", "four", "nine"]
    nine = box(2, 3, 6, 7) | box(8, 3, 9, 7)
    assert ((label("train2017/a") == 2) == nine).all()
    assert (label("train2017/a")[~nine] == 1).all()  # the crowd is below
    assert report.shapes == {"nine": 1, "four": 2} and report.images == 2
    assert sorted(note.kind for note in report.notes) == [
        *("few-points", "missing-image", "missing-image", "no-outline", "no-shapes"),
        *("run-lengths", "size", "unknown-name"),
    ]
    assert {Path(n.file).name for n in report.notes} == {"a.png", "b.png", file.name}
    assert imported("coco")[0].shapes == report.shapes  # a folder as well as a file


@with_pycocotools
def test_coco_files_may_number_their_classes_differently(source, imported):
    square = [[2, 3, 6, 3, 6, 7, 2, 7]]
    for split, name, ids in (("train", "a", {"cat": 1, "dog": 2}), ("val", "b", {"dog": 1})):
        source(f"{split}/{name}.png")
        document = {
            "images": [{"id": 1, "file_name": f"{name}.png", "width": 20, "height": 10}],
            "categories": [{"id": number, "name": label} for label, number in ids.items()],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": square}],
        }
        source(f"annotations/instances_{split}.json", document)
    report, label = imported("coco")
    assert report.classes == ["background", "cat", "dog"]
    assert ((label("train/a") == 1) == box(2, 3, 6, 7)).all()
    assert ((label("val/b") == 2) == box(2, 3, 6, 7)).all()


# --- YOLO ----------------------------------------------------------------------------------------


def test_yolo_keeps_its_split_and_names_boxes(source, imported):
    for name in ("train/a", "val/b"):
        source(f"images/{name}.png")
    source("images/train/empty.png")
    source(
        "data.yaml", "path: ../somewhere\ntrain: images/train\nval: images/val\nnames: {0: x, 1: y}"
    )
    source("labels/train/a.txt", "1 0.1 0.3 0.25 0.3 0.25 0.6 0.1 0.6\n0 0.5 0.5 0.1 0.1\n\n")
    source("labels/val/b.txt", "0 0.1 0.3 0.25 0.3 0.25\n7 0.1 0.3 0.25 0.3 0.25 0.6\n")
    report, label = imported("yolo", ratio=None)
    assert report.classes == ["background", "x", "y"] and report.split_by == "source"
    assert report.splits == {"train": 2, "val": 1, "test": 0}
    lists = Path(report.dest, "train.txt").read_text(encoding="utf-8").split()
    assert lists[:2] == ["images/train/a.png", "annot/train/a.png"]
    assert ((label("train/a") == 2) == box(2, 3, 6, 7)).all()
    assert sorted((note.kind, Path(note.file).stem) for note in report.notes) == [
        ("box", "a"),
        ("no-shapes", "b"),
        ("no-shapes", "empty"),
        ("not-points", "b"),
        ("unknown-name", "b"),
    ]


def test_yolo_without_data_yaml_takes_numbers_or_classes_txt(source, imported):
    source("images/a.png")
    source("labels/a.txt", "1 0.1 0.3 0.25 0.3 0.25 0.6")
    assert imported("yolo")[0].classes == ["background", "1"]
    source("classes.txt", "cat\ndog\n")
    report, label = imported("yolo")
    assert report.classes == ["background", "cat", "dog"] and label().max() == 2


# --- CVAT ----------------------------------------------------------------------------------------

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><labels><label><name>cat</name></label><label><name>dog</name></label></labels></task></meta>
<image id="0" name="a.png" width="20" height="10">{}</image></annotations>"""


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ('<polygon label="dog" points="2.0,3.0;5.0,3.0;5.0,6.0;2.0,6.0"/>', box(2, 3, 6, 7)),
        ('<box label="dog" xtl="2" ytl="3" xbr="5" ybr="6"/>', box(2, 3, 6, 7)),
        ('<box label="dog" xtl="2" ytl="4" xbr="8" ybr="6" rotation="90"/>', box(4, 2, 7, 9)),
        ('<polyline label="dog" points="2,5;9,5"/>', box(2, 5, 10, 6)),
        ('<mask label="dog" rle="1, 2, 3, 2" left="4" top="1" width="4" height="2"/>', None),
        ('<ellipse label="dog" cx="10" cy="5" rx="3" ry="2"/>', None),
    ],
)
def test_cvat_draws_each_shape(shape, pixels, source, imported):
    source("images/a.png")
    source("annotations.xml", CVAT.format(shape))
    report, label = imported("cvat", options={"line_width": 1})
    assert report.classes == ["background", "cat", "dog"] and not report.notes
    if "mask" in shape:
        assert np.argwhere(label() == 2).tolist() == [[1, 5], [1, 6], [2, 6], [2, 7]]
    elif "ellipse" in shape:
        drawn = label() == 2
        assert drawn[5, 7:14].all() and drawn[3:8, 10].all() and not drawn[:, :7].any()
    else:
        assert ((label() == 2) == pixels).all()


def test_cvat_draws_by_z_order_and_names_what_has_no_area(source, imported):
    source("images/a.png")
    whole = '<box label="{}" xtl="0" ytl="0" xbr="19" ybr="9" z_order="{}"/>'
    more = (
        '<points label="dog" points="1,1"/><polygon label="cat" points="1,1;x,2"/><tag label="t"/>'
    )
    bad = '<mask label="cat" rle="1, 2" left="4" top="1" width="4" height="2"/><box label="cat"/>'
    shapes = whole.format("dog", 2) + whole.format("cat", 1) + more + bad
    report, label = imported("cvat", source("annotations.xml", CVAT.format(shapes)))
    assert (label() == 2).all()
    found = sorted(note.kind for note in report.notes)
    assert found == ["not-points", "run-lengths", "shape-type", "unreadable"]


def test_cvat_refuses_masks_that_would_take_all_memory(source, imported):
    source("images/a.png")
    mask = '<mask label="cat" rle="9000000000" left="0" top="0" width="90000" height="100000"/>'
    source("annotations.xml", CVAT.format(mask))
    with pytest.raises(DataError, match="a <mask> is too large: 90000 x 100000 pixels"):
        imported("cvat")


def test_cvat_refuses_entities(source, imported):
    source("images/a.png")
    secret = source("secret.txt", "secret")
    doctype = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]>'
    text = CVAT.format("<box label='&x;'/>").replace("<annotations>", doctype + "<annotations>")
    file = source("annotations.xml", text)
    with pytest.raises(DataError, match=r"annotations.xml has a DOCTYPE.*remove it"):
        imported("cvat", file)
    source("annotations.xml", "<annotations>")
    with pytest.raises(DataError, match=r"annotations.xml is not XML: no element found"):
        imported("cvat")


# --- label images --------------------------------------------------------------------------------

LABEL = box(2, 3, 6, 7).astype(np.uint8) + 2 * box(10, 0, 12, 2).astype(np.uint8)
COLORS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [224, 224, 192]], np.uint8)


def palette_image(path, label):
    image = Image.fromarray(label)
    image.putpalette([*COLORS.ravel().tolist(), *bytes(768 - COLORS.size)])
    image.save(path)


def test_voc_takes_indices_of_a_palette_and_its_lists(source, imported):
    with_void = np.where(box(0, 9, 3, 10), np.uint8(255), LABEL)
    for name in ("a", "b"):
        source(f"JPEGImages/{name}.jpg")
        palette_image(source(f"SegmentationClass/{name}.png"), with_void)
    source("JPEGImages/unlabelled.jpg")
    source("ImageSets/Segmentation/train.txt", "a\n")
    source("ImageSets/Segmentation/val.txt", "b\n")
    report, label = imported("voc", ratio=None)
    assert report.classes[:3] == ["background", "aeroplane", "bicycle"]
    assert len(report.classes) == 21 and (label() == with_void).all()
    assert report.splits == {"train": 1, "val": 1, "test": 0}
    assert [note.kind for note in report.notes] == ["no-annotation"]
    report, label = imported("voc", options={"class_names": ["none", "cat"]})
    assert report.classes == ["none", "cat"] and (label()[0, 10:12] == 255).all()
    assert {note.message for note in report.notes if note.kind == "unknown-name"} == {
        "'value 2' is not a class: its 4 pixels count as outside"
    }


def test_voc_keeps_classes_by_their_names(source, imported):
    source("JPEGImages/a.jpg")
    palette_image(source("SegmentationClass/a.png"), LABEL)
    report, label = imported("voc", options={"class_names": ["bicycle", "person"]})
    assert report.classes == ["bicycle", "person"]
    assert ((label() == 0) == (LABEL == 2)).all()  # a bicycle is VOC's 2
    assert (label()[LABEL != 2] == 255).all()


WITH_COLORS = "cat:128,0,0::\nground:0,0,0::\ndog:0,128,0::\nvoid:224,224,192::\n"


@pytest.mark.parametrize("table", [WITH_COLORS, "ground:::\n\ncat:::\ndog:::"])
def test_voc_takes_colours_of_a_label_map(table, source, imported):
    source("JPEGImages/a.jpg")
    source("SegmentationClass/a.png", COLORS[np.where(box(0, 9, 5, 10), 3, LABEL)])
    source("labelmap.txt", f"# label:color_rgb:parts:actions\n{table}")
    report, label = imported("voc")
    by_name = {name: label() == index for index, name in enumerate(report.classes)}
    assert {*by_name} == {"cat", "dog", "ground"}
    assert (by_name["cat"] == (LABEL == 1)).all() and (by_name["dog"] == (LABEL == 2)).all()
    assert ((label() == 255) == box(0, 9, 5, 10)).all()


def test_colours_need_a_table_and_name_what_it_lacks(source, imported):
    source("images/s 1/a.png")
    source("labels/s 1/a_mask.png", COLORS[LABEL])
    options = {"label_suffix": "_mask"}
    with pytest.raises(DataError, match="has no table of colours"):
        imported("colors", options=options)
    source("class_dict.csv", "name,r,g,b\nroad,0,0,0\ncar,128,0,0\n")
    report, label = imported("colors", options=options)
    assert report.classes == ["road", "car"] and report.unlabelled == "ignore"
    assert (label("s_1/a") == np.where(LABEL == 2, 255, LABEL)).all()
    assert "'colour (0, 128, 0)' is not a class: its 4 pixels count as outside" in report.text()
    Image.fromarray(COLORS[LABEL][:5]).save(source.root / "labels/s 1/a_mask.png")
    with pytest.raises(DataError, match=r"can be used: .*it has 20x5 pixels, its image 20x10"):
        imported("colors", options=options)


@pytest.mark.parametrize(
    "text",
    [
        "road,128,64,128\ncar,0,0,142",
        "128 64 128\troad\n0 0 142\tcar",
        "road: #804080\ncar: #00008e",
    ],
)
def test_tables_of_several_kinds_are_read(text, tmp_path):
    (tmp_path / "t").write_text(f"name,r,g,b\n\n{text}\n", encoding="utf-8")
    found = [(entry.name, entry.color_rgb) for entry in read_table(tmp_path / "t")]
    assert found == [("road", (128, 64, 128)), ("car", (0, 0, 142))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("road\n", "no line like"),
        ("a,1,2,3\nb,1,2,3", "a and b have one colour"),
        ("a,1,2,300", "0 to 255"),
        ("1,2,3", "a name and a colour"),
        ("road,128,64,128,255", "four numbers in a row"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(text, message, tmp_path):
    (tmp_path / "t").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t")


def test_folders_like_cityscapes_keep_names_and_split(source, imported):
    polygon = [[2, 3], [6, 3], [6, 7], [2, 7]]
    for split in ("train", "val"):
        source(f"leftImg8bit/{split}/bern/x_1_leftImg8bit.png")
        objects = [
            {"label": "lawn", "polygon": [[0, 0], [19, 0], [19, 9], [0, 9]]},
            {"label": "mower", "polygon": polygon},
            {"label": "unlabeled", "polygon": [[10, 0], [12, 0], [12, 2]]},
            {"label": "gone", "polygon": polygon, "deleted": 1},
        ]
        document = {"imgWidth": 20, "imgHeight": 10, "objects": objects}
        source(f"gtFine/{split}/bern/x_1_gtFine_polygons.json", document)
    source("leftImg8bit/val/bern/y_leftImg8bit.png")
    report, label = imported("cityscapes", ratio=None)
    assert report.classes == ["lawn", "mower"] and report.split_by == "source"
    drawn = label("train/bern/x_1_leftImg8bit")
    assert ((drawn == 1) == box(2, 3, 7, 8)).all() and drawn[0, 12] == 255
    assert [note.kind for note in report.notes] == ["no-annotation"]
    source("label_colors.txt", "128 0 0 cat\n0 0 0 ground\n0 128 0 dog\n")
    source("gtFine/train/bern/x_1_gtFine_color.png", COLORS[LABEL])
    report, label = imported("cityscapes")
    assert report.classes == ["cat", "ground", "dog"] and report.images == 1
    assert ((label("train/bern/x_1_leftImg8bit") == 0) == (LABEL == 1)).all()
