"""Pictures of any size in tiles, joined as PaddleSeg joins its sliding window."""

from __future__ import annotations

import argparse
import json

import cv2
import numpy as np
import paddle
import pytest
from paddleseg.core import infer

from liteseg_plugin.cli.flags import windows
from liteseg_plugin.errors import DataError, ExportError, LitesegError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference import tiles
from liteseg_plugin.inference.bulk import segment_in_bulk
from liteseg_plugin.inference.images import InputImage
from liteseg_plugin.inference.network import segment_by
from liteseg_plugin.inference.pipeline import Extras
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.inference.tiled import segment_preprocessed
from liteseg_plugin.inference.tiles import Tiling, cut

MIDDLE = {"type": "Normalize"}


class Blurred(paddle.nn.Layer):
    """A network whose logits depend on where a tile ends: a wide convolution with zero padding."""

    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 5, 9, padding=4)
        weight = np.random.default_rng(1).normal(0, 0.2, self.conv.weight.shape)
        self.conv.weight.set_value(weight.astype("float32"))

    def forward(self, x):
        return [self.conv(x)]


@pytest.fixture(scope="module")
def network():
    return Blurred()


@pytest.fixture(scope="module")
def export(network, tmp_path_factory):
    """Return a function that exports the network, each way once."""
    made = {}

    def export(output_op="none", input_shape=None):
        key = output_op, input_shape
        if key not in made:
            made[key] = tmp_path_factory.mktemp("export")
            settings = {"output_op": output_op, "input_shape": input_shape}
            export_model(network, made[key], transforms=[MIDDLE], **settings)
        return made[key]

    return export


def picture(height=90, width=131):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype("float32")
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def preprocessed(image):
    x = (image[..., ::-1].astype("float32") / 255 - 0.5) / 0.5
    return np.ascontiguousarray(x.transpose(2, 0, 1))


def slide(network, image, tiling):
    """Return labels and probabilities of PaddleSeg's sliding window."""
    x = paddle.to_tensor(preprocessed(image)[np.newaxis])
    size = (tiling.width, tiling.height)
    step = [extent - tiling.overlap for extent in size]
    with paddle.no_grad():
        labels, logits = infer.inference(network, x, [], True, step, size)
    scores = paddle.nn.functional.softmax(logits, axis=1).numpy()[0]
    return labels.numpy()[0, 0], scores.max(axis=0)


@pytest.mark.parametrize(
    ("output_op", "input_shape", "overlap"),
    [
        ("none", None, 0),
        ("none", None, 25),  # more than two tiles cover a pixel
        ("none", (1, 3, 32, 48), 8),
        ("softmax", (2, 3, 32, 48), 8),
    ],
)
def test_tiles_are_blended_as_paddlesegs_sliding_window(
    network, export, output_op, input_shape, overlap
):
    tiling = Tiling(48, 32, overlap)
    predictor = Predictor(export(output_op, input_shape), tiling=tiling)
    image = picture()
    found = predictor.predict(image)
    labels, confidence = slide(network, image, tiling)
    assert len(np.unique(labels)) == 5
    assert (found.labels == labels).mean() >= 0.9999
    np.testing.assert_allclose(found.confidence, confidence, atol=1e-3)
    np.testing.assert_array_equal(predictor(image), found.labels)
    assert found.engine_ms > 0
    whole = Predictor(export())(image)
    assert (whole != labels).any()  # the tiles matter


@pytest.mark.parametrize("size", [(20, 131), (90, 30), (20, 30)])
def test_picture_smaller_than_a_tile(network, export, size):
    tiling, image = Tiling(48, 32, 8), picture(*size)
    labels, _ = slide(network, image, tiling)
    np.testing.assert_array_equal(Predictor(export(), tiling=tiling)(image), labels)
    fixed = Predictor(export("none", (1, 3, 32, 48)), tiling=tiling)(image)
    assert fixed.shape == size
    assert (fixed == labels).mean() > 0.6  # its missing part repeats the border


def test_labels_are_cut_in_the_middle_of_overlaps():
    tiling = Tiling(4, 3, 2)
    places = []

    def tile(rows, columns):
        places.append((rows.start, columns.start))
        shape = rows.stop - rows.start, columns.stop - columns.start
        return np.full((1, *shape), len(places) - 1, "int32")

    strips = list(cut(tiling, (4, 7), tile))
    assert places == [(0, 0), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]
    np.testing.assert_array_equal(
        np.concatenate([strip.labels for strip in strips]),
        [[0, 0, 0, 1, 2, 2, 2]] * 2 + [[3, 3, 3, 4, 5, 5, 5]] * 2,
    )
    assert [strip.top for strip in strips] == [0, 2]
    assert strips[0].confidence is None


@pytest.mark.parametrize(("seconds", "shown"), [(0, True), (60, False)])
def test_only_pictures_that_take_seconds_have_a_bar(monkeypatch, capsys, seconds, shown):
    monkeypatch.setattr(tiles, "_BAR_SECONDS", seconds)
    [*cut(Tiling(4, 3, show_progress=True), (3, 8), lambda *_: np.zeros((1, 3, 4), "int32"))]
    assert ("0/2" in capsys.readouterr().err) == shown


@pytest.mark.parametrize("output_op", ["argmax", "confidence"])
def test_export_without_logits_joins_labels(export, output_op):
    image = picture()
    whole = Predictor(export()).predict(image)
    found = Predictor(export(output_op), tiling=Tiling(48, 32, 12)).predict(image)
    # Six pixels from the edge of a tile, the convolution of nine pixels does not see it.
    np.testing.assert_array_equal(found.labels, whole.labels)
    if output_op == "confidence":
        np.testing.assert_allclose(found.confidence, whole.confidence, atol=1e-3)
    else:
        assert found.confidence is None


def test_tiles_that_cannot_be_are_refused(export, tmp_path, network):
    with pytest.raises(DataError, match=r"takes pictures of 48 x 32 .* give --tile 48 32"):
        Predictor(export("none", (1, 3, 32, 48)), tiling=Tiling(32, 48))
    with pytest.raises(LitesegError, match=r"--overlap must be from 0 to less .* got 32"):
        Tiling(48, 32, 32)
    with pytest.raises(LitesegError, match="--tile must be at least 1 1, got 0 5"):
        Tiling(0, 5)
    resize = {"type": "Resize", "target_size": [64, 64]}
    export_model(network, tmp_path, transforms=[resize, MIDDLE])
    with pytest.raises(ExportError, match="resize or pad pictures, which tiles do not allow"):
        Predictor(tmp_path, tiling=Tiling(48, 32))(picture())


def test_trained_network_runs_the_same_tiles(network):
    image, tiling = picture(), Tiling(48, 32, 8)
    settings = {"is_slide": True, "crop_size": [48, 32], "stride": [40, 24]}
    labels = segment_by(network, settings)({"img": preprocessed(image), "trans_info": []})
    assert (labels == slide(network, image, tiling)[0]).mean() >= 0.9999


def test_evaluation_runs_the_same_tiles_on_preprocessed_pictures(network, export):
    image, tiling = picture(), Tiling(48, 32, 8)
    predictor = Predictor(export(), tiling=tiling)
    x = predictor.preprocess(image)
    labels = segment_preprocessed(predictor, tiling, x, image.shape[:2])
    np.testing.assert_array_equal(labels, predictor(image))
    with pytest.raises(ExportError, match="resize or pad pictures"):
        segment_preprocessed(predictor, tiling, x, (45, 66))


def test_tile_flags_become_paddlesegs_sliding_window():
    flags = argparse.ArgumentParser()
    windows.add_augmentation(flags, "--aug_eval")
    windows.add_tiles(flags)
    args = flags.parse_args(["--tile", "64", "48"])
    settings = {"is_slide": True, "crop_size": [64, 48], "stride": [58, 42]}
    assert windows.augmentation(args, "aug_eval", {}) == settings
    for test_config, more in (({"aug_eval": True}, []), ({}, ["--is_slide"])):
        args = flags.parse_args(["--tile", "64", "48", *more])
        with pytest.raises(LitesegError, match="--tile runs a sliding window of its own"):
            windows.augmentation(args, "aug_eval", test_config)


def test_files_of_tiles_are_those_of_the_whole_picture(export, tmp_path):
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, picture())
    extras = Extras(confidence=True, polygons=True, min_confidence=0.3)
    kinds = {}
    for kind, tiling in (("whole", None), ("tiled", Tiling(200, 200, 8))):
        predictor = Predictor(export(), tiling=tiling)
        folder = tmp_path / kind
        found = [InputImage(path, "a.png")]
        [files] = segment_in_bulk(predictor, found, folder, extras=extras).done
        kinds[kind] = [cv2.imread(p, -1) for p in files.written()[:3]]
        kinds[kind].append(json.loads((folder / "polygons" / "a.json").read_text())["shapes"])
    for whole, tiled in zip(*kinds.values()):
        np.testing.assert_array_equal(whole, tiled)
