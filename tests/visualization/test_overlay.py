from __future__ import annotations

import numpy as np
import pytest

from liteseg_plugin.errors import DataError
from liteseg_plugin.visualization.overlay import (
    colorize,
    indexed_image,
    legend_bar,
    overlay,
    side_by_side,
    write_image,
)

CLASSES = [{"name": "road", "color": [128, 64, 32]}, {"name": "sky", "color": [0, 0, 255]}]


def test_colorize_gives_bgr_and_black_without_a_class():
    label = np.array([[0, 1, 255]])
    assert colorize(label, CLASSES).tolist() == [[[32, 64, 128], [255, 0, 0], [0, 0, 0]]]


def test_label_image_holds_up_to_8_bits():
    label = np.array([[0, 255]], np.int32)
    assert np.array(indexed_image(label, CLASSES)).tolist() == [[0, 255]]
    with pytest.raises(DataError, match="class 256 does not fit a label image, which is 8-bit"):
        indexed_image(label + 1, CLASSES)


def test_overlay_blends_classes_and_leaves_other_pixels():
    image = np.full((1, 3, 3), 100, np.uint8)
    blended = overlay(image, np.array([[0, 1, 255]]), CLASSES, weight=0.5, legend=False)
    assert blended.tolist() == [[[66, 82, 114], [178, 50, 50], [100, 100, 100]]]
    assert (image == 100).all()


def test_overlay_lists_the_classes_that_occur_below():
    image = np.zeros((40, 200, 3), np.uint8)
    one = overlay(image, np.zeros((40, 200), int), CLASSES)
    assert one.shape[0] > 40 and one.shape[1] == 200
    bar = one[40:].reshape(-1, 3)
    assert (bar == [32, 64, 128]).all(1).any()
    assert not (bar == [255, 0, 0]).all(1).any()


def test_legend_takes_more_rows_where_it_is_narrow():
    assert legend_bar(CLASSES, 40).shape[0] > legend_bar(CLASSES, 400).shape[0]


def test_side_by_side_sets_images_in_a_row():
    images = [np.zeros((10, 20, 3), np.uint8)] * 3
    assert side_by_side(images, "abc", scale=2).shape == (10 * 2 + 26, 3 * 40 + 2 * 6, 3)


def test_write_image_says_what_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_image(tmp_path / "nowhere" / "a.png", np.zeros((2, 2, 3), np.uint8))
