"""PaddleSeg's evaluation of samples that cannot be read, without a replacement of anything."""

from __future__ import annotations

import os

import numpy as np
import paddle
import pytest
from paddle import nn
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


class Network(nn.Layer):
    """Gives its input for logits, of as many classes as there are images."""

    def forward(self, x):
        return [paddle.concat([x, x], axis=1)[:, :5]]


UNREADABLE = (0, 4)
OPTIONS = ({}, {"is_slide": True, "crop_size": [64, 64], "stride": [9, 9]})


@pytest.mark.parametrize("unreadable", UNREADABLE)
@pytest.mark.parametrize("options", OPTIONS)
def test_sample_that_cannot_be_read_is_an_error(unreadable, options, workers=0):
    samples = Samples(unreadable, DataError("cannot read image 4.png: truncated"))
    with pytest.raises(DataError, match=r"^cannot read image 4\.png: truncated$"):
        evaluate(Network(), samples, num_workers=workers, **options)


def test_sample_that_a_worker_process_cannot_read_is_an_error(process):
    """In a process of its own: a fork of this one may wait for a lock of an engine's thread."""
    result = process(
        *("python", "-c", "import test_validation_samples as t; t.with_a_worker_process()"),
        PYTHONPATH=os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]),
    )
    assert result.stdout.splitlines()[-1] == "4 errors"


def with_a_worker_process():
    repair()
    cases = [(unreadable, options) for unreadable in UNREADABLE for options in OPTIONS]
    for case in cases:
        test_sample_that_cannot_be_read_is_an_error(*case, workers=1)
    print(f"{len(cases)} errors")


def test_other_error_of_a_sample_names_its_type(pointwise):
    with pytest.raises(DataError, match="cannot read a sample: KeyError: 'img'"):
        evaluate(pointwise(), Samples(2, KeyError("img")))


def test_empty_data_set_is_an_error(pointwise):
    with pytest.raises(DataError, match="no images to evaluate on"):
        evaluate(pointwise(), [])


def test_numbers_are_those_of_paddleseg(pointwise):
    network = pointwise()
    ours, theirs = evaluate(network, Samples()), core.evaluate(network, Samples())
    for mine, other in zip(ours, theirs):
        np.testing.assert_array_equal(mine, other)
    assert not network._forward_pre_hooks
