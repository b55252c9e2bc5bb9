"""Exports whose transforms change the size of images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liteseg_plugin import Predictor
from liteseg_plugin.errors import DataError, TooLargeError
from liteseg_plugin.export.writer import export_model

NORMALIZE = {"type": "Normalize"}


@pytest.fixture
def exported(pointwise, tmp_path):
    """Return a function that exports with transforms, and returns the predictor."""

    def export(*transforms, **settings):
        folder = tmp_path / "exported"
        export_model(pointwise(), folder, transforms=[*transforms, NORMALIZE], **settings)
        return Predictor(folder, "paddle")

    return export


def photo(*size_hw):
    return np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


@pytest.mark.parametrize("output_op", ["argmax", "confidence", "none"])
def test_padding_is_cut_off_again(exported, output_op):
    image = photo(24, 40)
    expected = exported()(image)
    assert len(np.unique(expected)) > 1
    predictor = exported({"type": "Padding", "target_size": [64, 48]}, output_op=output_op)
    found = predictor.predict(image)
    np.testing.assert_array_equal(found.labels, expected)
    np.testing.assert_array_equal(predictor(image), expected)
    assert output_op == "argmax" or found.confidence.shape == expected.shape
    square = exported({"type": "PaddingByAspectRatio", "aspect_ratio": 1})
    np.testing.assert_array_equal(square(image), expected)


def test_padding_behind_resizing_is_cut_off_first(exported):
    image = cv2.resize(photo(6, 10), None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    expected = exported()(image)
    half = {"type": "Resize", "target_size": [40, 24], "interp": "NEAREST"}
    predictor = exported(half, {"type": "Padding", "target_size": [64, 64]})
    np.testing.assert_array_equal(predictor(image), expected)


def test_image_that_a_transform_does_not_take(exported):
    predictor = exported({"type": "Padding", "target_size": [32, 32]})
    with pytest.raises(DataError, match=r"not take an image of 40 x 24 pixels: The size of image"):
        predictor(photo(24, 40))
    with pytest.raises(DataError, match="not take an image of 1000 x 1 pixels"):
        exported({"type": "ResizeByLong", "long_size": 64})(photo(1, 1000))


def test_images_are_resized_independently(exported):
    predictor = exported({"type": "ResizeByShort", "short_size": 64, "max_size": 128})
    assert predictor.preprocess(photo(100, 100)).shape == (1, 3, 64, 64)
    assert predictor.preprocess(photo(20, 200)).shape == (1, 3, 12, 120)
    assert predictor.preprocess(photo(100, 100)).shape == (1, 3, 64, 64)


def test_thin_image_does_not_take_all_memory(exported):
    predictor = exported({"type": "ResizeByShort", "short_size": 512})
    with pytest.raises(TooLargeError, match="after ResizeByShort is too large: 4194304 x 512"):
        predictor(photo(1, 8192))


def test_one_image_fills_a_batch_of_fixed_size(exported):
    image = photo(24, 40)
    expected = exported()(image)
    predictor = exported(input_shape=(3, 3, 24, 40))
    output = predictor.run(predictor.preprocess(image))
    assert output.shape == (1, 24, 40)
    np.testing.assert_array_equal(output[0], expected)
    for labels in predictor.batch([image] * 4):
        np.testing.assert_array_equal(labels, expected)


def test_folder_may_have_the_name_of_a_file(pointwise, tmp_path):
    export_model(pointwise(), tmp_path / "street.onnx", transforms=[NORMALIZE])
    assert Predictor(tmp_path / "street.onnx", "paddle")(photo(8, 8)).shape == (8, 8)
