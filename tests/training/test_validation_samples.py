"""PaddleSeg's evaluation of samples that cannot be read, without a replacement of anything."""

from __future__ import annotations

import numpy as np
import pytest
from paddle.io import Dataset
from paddleseg import core

from liteseg_plugin.errors import DataError
from liteseg_plugin.integration.registry import repair
from liteseg_plugin.training.validation import evaluate


class Samples(Dataset):
    """Five images, of which one raises."""

    num_classes, ignore_index = 5, 255

    def __init__(self, unreadable=None, error=None):
        self.unreadable, self.error = unreadable, error

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index == self.unreadable:
            raise self.error
        image = np.random.default_rng(index).random((3, 16, 24), "float32")
        return {"img": image, "label": np.full((1, 16, 24), index, "uint8"), "trans_info": []}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("unreadable", [0, 4])
@pytest.mark.parametrize(
    "options", [{}, {"is_slide": True, "crop_size": [64, 64], "stride": [9, 9]}]
)
def test_sample_that_cannot_be_read_is_an_error(pointwise, workers, unreadable, options):
    repair()
    samples = Samples(unreadable, DataError("cannot read image 4.png: truncated"))
    with pytest.raises(DataError, match=r"^cannot read image 4\.png: truncated$"):
        evaluate(pointwise(), samples, num_workers=workers, **options)


def test_other_error_of_a_sample_names_its_type(pointwise):
    with pytest.raises(DataError, match="cannot read a sample: KeyError: 'img'"):
        evaluate(pointwise(), Samples(2, KeyError("img")))


def test_empty_data_set_is_an_error(pointwise):
    with pytest.raises(DataError, match="no images to evaluate on"):
        evaluate(pointwise(), [])


def test_numbers_are_those_of_paddleseg(pointwise):
    repair()
    network = pointwise()
    ours, theirs = evaluate(network, Samples()), core.evaluate(network, Samples())
    for mine, other in zip(ours, theirs):
        np.testing.assert_array_equal(mine, other)
    assert not network._forward_pre_hooks
