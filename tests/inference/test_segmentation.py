"""Labels with confidence: equal to the network's softmax; outlines, areas, files, flags."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from PIL import Image

from liteseg_plugin import Predictor
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.classes import numbered_classes
from liteseg_plugin.datasets.importing import Options, import_data
from liteseg_plugin.datasets.validation import read_label
from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference.segmentation import (
    Segmentation,
    most_likely,
    require_confidence,
    to_coco,
)
from liteseg_plugin.models.resize import resize

WITH_ONNX = find_spec("paddle2onnx") is not None
RUNTIMES = ("paddle", "onnxruntime", "openvino") if WITH_ONNX else ("paddle",)
NAMES = ("sky", "road", "car", "tree", "pole")


@pytest.fixture(scope="module")
def exports(pointwise, tmp_path_factory):
    """The network, and a function that exports it with an output op, once."""

    class Coarse(pointwise):
        """Its logits have a quarter of the size, as those of PP-LiteSeg, which are resized."""

        def coarse_logits(self, x):
            return [paddle.nn.functional.avg_pool2d(self.conv(x), 4, ceil_mode=True)]

        def forward(self, x):
            return [resize(logit, x.shape[2:]) for logit in self.coarse_logits(x)]

    network, folder = Coarse(), tmp_path_factory.mktemp("exports")
    network.conv.weight.set_value(network.conv.weight * 4)  # sure of some pixels, not of others
    classes = [ClassInfo(name, entry.color_rgb) for name, entry in zip(NAMES, numbered_classes(5))]

    def export(output_op):
        if not (folder / output_op).exists():
            export_model(
                *(network, folder / output_op),
                transforms=[{"type": "Normalize"}],
                output_op=output_op,
                classes=classes,
                onnx_opset=11 if WITH_ONNX else None,
            )
        return folder / output_op

    return network, export


@pytest.fixture(scope="module")
def image():
    """A picture with regions of a few colours, and some noise."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    large = cv2.resize(coarse, (67, 49), interpolation=cv2.INTER_NEAREST)
    return np.clip(large + rng.normal(0, 3, large.shape), 0, 255).astype(np.uint8)


def probabilities(network, predictor, image):
    logits = network(paddle.to_tensor(predictor.preprocess(image)))[0]
    return paddle.nn.functional.softmax(logits, axis=1).numpy()[0]


@pytest.mark.smoke
@pytest.mark.parametrize("output_op", ["confidence", "softmax", "none"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_confidence_is_the_networks_softmax(runtime, output_op, exports, image):
    network, export = exports
    predictor = Predictor(export(output_op), runtime)
    segmentation = predictor.predict(image)
    expected = probabilities(network, predictor, image)
    assert np.abs(segmentation.confidence - expected.max(0)).max() < 1e-3
    assert segmentation.confidence.std() > 0.01
    assert (segmentation.labels == expected.argmax(0)).mean() > 0.999
    assert (segmentation.labels == predictor(image)).all()
    assert segmentation.engine_ms > 0 and [c.name for c in segmentation.classes] == [*NAMES]


@pytest.mark.slow
def test_confidence_of_pp_liteseg(build_network, randomized, image, tmp_path):
    network = randomized(build_network("T", num_classes=5), seed=3)
    network.eval()
    export_model(
        *(network, tmp_path),
        transforms=[{"type": "Normalize"}],
        output_op="confidence",
        onnx_opset=11 if WITH_ONNX else None,
    )
    expected = probabilities(network, Predictor(tmp_path), image).max(0)
    for runtime in RUNTIMES:
        confidence = Predictor(tmp_path, runtime).predict(image).confidence
        assert np.abs(confidence - expected).max() < 1e-3, runtime
        assert confidence.std() > 0.01


def test_most_likely_class_is_argmax_of_large_scores(monkeypatch):
    scores = np.random.default_rng(0).normal(0, 5, (7, 40, 30)).astype("float32")
    monkeypatch.setattr("liteseg_plugin.inference.segmentation._STRIP_PIXELS", 100)
    labels, confidence = most_likely(scores, logits=True)
    exponentials = np.exp(scores - scores.max(0))
    assert (labels == scores.argmax(0)).all() and labels.dtype == np.int32
    assert np.allclose(confidence, (exponentials / exponentials.sum(0)).max(0), atol=1e-6)


def test_export_of_labels_has_no_confidence_and_says_the_way_out(exports, image):
    predictor = Predictor(exports[1]("argmax"))
    segmentation = predictor.predict(image)
    assert segmentation.confidence is None and (segmentation.labels == predictor(image)).all()
    with pytest.raises(ExportError, match="export the model with --output_op confidence"):
        segmentation.confident(0.5)
    with pytest.raises(ExportError, match=r"argmax: the export gives labels only"):
        require_confidence(predictor.exported)


@pytest.fixture()
def ring():
    """A ring of class 1 around class 2, on class 0, with a corner of ignored pixels."""
    labels = np.zeros((20, 30), np.int32)
    labels[4:16, 6:22] = 1
    labels[8:12, 10:18] = 2
    labels[:3, :3] = 255
    image = np.full((20, 30, 3), 100, np.uint8)
    confidence = np.where(labels == 2, np.float32(0.4), np.float32(0.9))
    return Segmentation(image, labels, numbered_classes(3), confidence)


def test_polygons_have_holes_and_areas_are_pixels(ring):
    background, outer, inner = ring.polygons(tolerance=0)
    assert [outline.name for outline in (background, outer, inner)] == ["0", "1", "2"]
    assert sorted(map(tuple, outer.points)) == [(6, 4), (6, 15), (21, 4), (21, 15)]
    assert len(outer.holes) == 1 and outer.area == 12 * 16 - 4 * 8 and inner.area == 4 * 8
    assert ring.areas() == {"0": 600 - 192 - 9, "1": 160, "2": 32}
    assert json.loads(json.dumps(outer.to_json()))["area"] == 160
    assert [o.name for o in ring.polygons(min_area=33)] == ["0", "1"]


def test_tolerance_bounds_how_far_outlines_move():
    rows, columns = np.mgrid[:120, :120]
    disc = ((rows - 60) ** 2 + (columns - 60) ** 2 < 50**2).astype(np.int32)
    image = np.zeros((120, 120, 3), np.uint8)
    found = Segmentation(image, disc, numbered_classes(2))
    exact, coarse = (found.polygons(tolerance=t)[-1].points for t in (0, 3))
    assert len(coarse) < len(exact) / 3
    contour = coarse.astype(np.float32)[:, None]
    far = [abs(cv2.pointPolygonTest(contour, (float(x), float(y)), True)) for x, y in exact]
    assert 0.5 < max(far) <= 3


def test_answers_come_back_as_training_data(ring, tmp_path):
    folder = tmp_path / "corrected"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), ring.image)
    ring.save(folder / "a.json", "a.png", tolerance=0)
    report = import_data(
        *("labelme", folder, tmp_path / "data"),
        unlabelled="ignore",
        ratio=(1, 0, 0),
        progress=False,
    )
    assert report.classes == ["0", "1", "2"]
    assert (read_label(tmp_path / "data/annot/a.png") == ring.labels).all()


def test_coco_document_has_each_region(ring):
    document = to_coco([ring, ring.confident(0.5)], ["a.png", "b.png"])
    assert [image["file_name"] for image in document["images"]] == ["a.png", "b.png"]
    found = [(a["image_id"], a["category_id"], a["area"]) for a in document["annotations"]]
    assert sorted(found) == [(1, 1, 399), (1, 2, 160), (1, 3, 32), (2, 1, 399), (2, 2, 160)]
    with_hole = document["annotations"][1]["segmentation"]
    assert with_hole["size"] == [20, 30] and sum(with_hole["counts"]) == 600
    assert sum(with_hole["counts"][1::2]) == 160


def test_save_writes_what_the_suffix_says(ring, tmp_path):
    for name in ("a.png", "a.npz", "a.jpg"):
        ring.save(tmp_path / name)
    assert (read_label(tmp_path / "a.png") == ring.labels).all()  # 255, past the palette, too
    content = np.load(tmp_path / "a.npz")
    assert (content["labels"] == ring.labels).all() and content["confidence"].max() > 0.8
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == (20, 30, 3)
    ring.save_confidence(tmp_path / "c.png")
    grey = np.asarray(Image.open(tmp_path / "c.png"))
    assert (np.unique(grey) == [102, 230]).all()
    with pytest.raises(DataError, match="needs image_name"):
        ring.save(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"a\.txt: no image format is '\.txt'; use \.png or \.jpg"):
        ring.save(tmp_path / "a.txt")
    many = Segmentation(ring.image, ring.labels, numbered_classes(256), ring.confidence)
    with pytest.raises(DataError, match="class 255 exists"):
        many.confident(0.5)


def test_infer_writes_confidence_and_polygons_and_ignores_the_unsure(
    run, fails, exports, image, tmp_path
):
    (tmp_path / "in" / "x").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "x" / "a.png"), image)
    command = ("infer", "--image_path", tmp_path / "in", "--device", "cpu", "--config")
    extras = ("--save_confidence", "--min_confidence", 0.6, "--save_polygons")
    out = tmp_path / "out"
    result = run(*command, exports[1]("confidence"), "--save_dir", out, *extras, "--json")
    [files] = json.loads(result.stdout)["images"]
    predicted = Predictor(exports[1]("confidence")).predict(image)
    unsure = predicted.confidence < 0.6
    assert 0 < unsure.sum() < unsure.size
    assert (read_label(files["label"]) == np.where(unsure, 255, predicted.labels)).all()
    assert Path(files["confidence"]) == out / "confidence/x/a.png"
    grey = np.asarray(Image.open(files["confidence"]))
    assert np.abs(grey / 255 - predicted.confidence).max() <= 0.5 / 255 + 1e-6
    document = json.loads(Path(files["polygons"]).read_text(encoding="utf-8"))
    assert {shape["label"] for shape in document["shapes"]} <= {*NAMES, "__ignore__"}
    assert (out / "polygons/x" / document["imagePath"]).resolve() == tmp_path / "in/x/a.png"
    report = import_data(
        *("labelme", out / "polygons", tmp_path / "data"),
        options=Options(images=tmp_path / "in"),
        ratio=(1, 0, 0),
        progress=False,
    )
    assert report.images == 1 and not report.notes
    assert (tmp_path / "data/annot/x/a.png").is_file()
    message = fails(*command, exports[1]("argmax"), "--save_dir", out, "--min_confidence", 0.6)
    assert "--output_op confidence" in message
    message = fails(*command, exports[1]("confidence"), "--min_confidence", 60)
    assert "--min_confidence must be 0 to 1, got 60" in message
