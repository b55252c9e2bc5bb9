from __future__ import annotations

import contextlib

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from liteseg_plugin.models.resize import (
    _bilinear_matrix,
    _nearest_matrix,
    _pooling_matrix,
    adaptive_avg_pool,
    bilinear_matrices,
    global_max_pool,
    max_over_channels,
    mean_over_channels,
    plain_operators,
    resize,
    sample,
    spatial_size,
)

BILINEAR_PAIRS = [
    (1, 1),
    (1, 7),
    (2, 4),
    (4, 2),
    (3, 97),
    (4, 30),
    (12, 30),
    (30, 4),
    (23, 713),
    (45, 713),
    (713, 45),
    (713, 357),
    (90, 180),
    (360, 720),
    (97, 97),
    (131, 1),
]
POOLING_PAIRS = [
    (1, 1),
    (1, 4),
    (3, 2),
    (4, 4),
    (5, 4),
    (23, 4),
    (23, 6),
    (30, 1),
    (30, 2),
    (30, 4),
    (32, 4),
    (713, 3),
    (713, 4),
]


def unit_rows(length):
    """Return an image for each row, 1 there and 0 elsewhere: (1, length, length, 1)."""
    return paddle.eye(length).reshape([1, length, length, 1])


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (2, 4, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]),
        (4, 2, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
        (3, 2, [[0.75, 0.25, 0], [0, 0.25, 0.75]]),
        (1, 3, [[1], [1], [1]]),
    ],
)
def test_bilinear_matrix_by_hand(source, target, expected):
    np.testing.assert_allclose(_bilinear_matrix(source, target).numpy(), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("source", "bins", "expected"),
    [
        (4, 2, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
        (3, 2, [[0.5, 0.5, 0], [0, 0.5, 0.5]]),
        (5, 3, [[0.5, 0.5, 0, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 0.5, 0.5]]),
        (1, 2, [[1], [1]]),
    ],
)
def test_pooling_matrix_by_hand(source, bins, expected):
    np.testing.assert_allclose(_pooling_matrix(source, bins).numpy(), expected, atol=1e-7)


def test_pooling_matrix_of_30_rows_overlaps():
    cells = [np.flatnonzero(row) for row in _pooling_matrix(30, 4).numpy()]
    assert [(cell[0], cell[-1] + 1) for cell in cells] == [(0, 8), (7, 15), (15, 23), (22, 30)]


@pytest.mark.parametrize(("source", "target"), BILINEAR_PAIRS)
def test_bilinear_matrix_equals_interpolate(source, target):
    kernel = F.interpolate(unit_rows(source), [target, 1], mode="bilinear")
    expected = kernel.numpy()[0, :, :, 0].T
    matrix = _bilinear_matrix(source, target).numpy()
    assert matrix.shape == (target, source)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    # Weights are as exact as the sampled positions, which are float32 numbers up to `source`.
    ulp = np.spacing(np.float32(source))
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=max(1e-6, ulp))


@pytest.mark.parametrize(("source", "bins"), POOLING_PAIRS)
def test_pooling_matrix_equals_adaptive_avg_pool(source, bins):
    # The columns are pooled too, from one pixel to `bins` equal ones.
    expected = F.adaptive_avg_pool2d(unit_rows(source), bins).numpy()[0, :, :, 0].T
    matrix = _pooling_matrix(source, bins).numpy()
    assert matrix.shape == (bins, source)
    np.testing.assert_allclose(matrix, expected, atol=1e-7)


class Everything(nn.Layer):
    """All functions of the module in one graph; maps take the size of ``like``."""

    def __init__(self, mode="bilinear"):
        super().__init__()
        self._mode = mode

    def forward(self, x, like):
        size_hw = spatial_size(like)
        pools = [adaptive_avg_pool(x, bins) for bins in (1, 2, 4)]
        maps = [resize(y, size_hw, self._mode) for y in (x, *pools)]
        return (*maps, *pools, global_max_pool(x), sample(x, size_hw), *over_channels(x))


class Fixed(Everything):
    def forward(self, x):
        bigger = tuple(2 * extent + 1 for extent in spatial_size(x))
        pools = [adaptive_avg_pool(x, bins) for bins in (1, 2, 4)]
        maps = [resize(y, bigger, self._mode) for y in (x, *pools)]
        return (*maps, *pools, global_max_pool(x), sample(x, bigger), *over_channels(x))


def over_channels(x):
    return mean_over_channels(x), max_over_channels(x)


def traced(layer, folder, *shapes):
    spec = [
        paddle.static.InputSpec(shape, "float32", name) for name, shape in zip(("x", "y"), shapes)
    ]
    paddle.jit.save(paddle.jit.to_static(layer, spec), f"{folder}/layer")
    return paddle.jit.load(f"{folder}/layer")


@pytest.fixture(scope="module")
def open_graphs(tmp_path_factory):
    shape = [None, 3, None, None]
    return {
        mode: traced(Everything(mode), tmp_path_factory.mktemp(mode), shape, shape)
        for mode in ("bilinear", "nearest")
    }


def feature(size_hw, batch=2):
    values = np.random.default_rng(3).normal(0, 2, (batch, 3, *size_hw))
    return paddle.to_tensor(values.astype("float32"))


def assert_equal_results(results, expected):
    assert len(results) == len(expected) == 11
    for result, wanted in zip(results, expected):
        assert result.shape == wanted.shape
        np.testing.assert_allclose(result.numpy(), wanted.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("source_hw", "target_hw"),
    [
        ((30, 40), (60, 80)),
        ((23, 13), (97, 131)),
        ((5, 7), (30, 4)),
        ((1, 1), (9, 5)),
        ((1, 6), (1, 11)),
        ((4, 6), (4, 6)),
        ((6, 5), (1, 9)),
    ],
)
def test_traced_resize_equals_eager_at_every_size(open_graphs, mode, source_hw, target_hw):
    arguments = feature(source_hw), feature(target_hw, batch=1)
    assert_equal_results(open_graphs[mode](*arguments), Everything(mode)(*arguments))


@pytest.mark.parametrize("operators", [contextlib.nullcontext, plain_operators])
@pytest.mark.parametrize("source_hw", [(30, 23), (1, 1), (1, 5), (8, 12)])
def test_traced_resize_equals_eager_at_fixed_size(tmp_path, source_hw, operators):
    x = feature(source_hw)
    with operators():
        graph = traced(Fixed(), tmp_path, [2, 3, *source_hw])
    assert_equal_results(graph(x), Fixed()(x))


def test_bilinear_matrices_compose_resizings_in_turn():
    x = feature((23, 30))
    sizes = [(23, 30), (97, 60), (41, 131)]
    rows, columns = bilinear_matrices(*sizes)
    composed = paddle.matmul(paddle.matmul(rows, x), columns, transpose_y=True)
    expected = resize(resize(x, sizes[1]), sizes[2])
    np.testing.assert_allclose(composed.numpy(), expected.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("target_hw", [(12, 15), (17, 23), (46, 61), (1, 9)])
def test_sample_equals_interpolate(target_hw):
    x = feature((23, 30))
    expected = F.interpolate(x, list(target_hw), mode="bilinear").numpy()
    np.testing.assert_allclose(sample(x, target_hw).numpy(), expected, rtol=0, atol=1e-5)


def test_eager_results_are_paddle_kernels():
    x = feature((30, 23))
    assert spatial_size(x) == (30, 23)
    size_hw = (60, 50)
    expected = F.interpolate(x, [60, 50], mode="bilinear", align_corners=False)
    np.testing.assert_array_equal(resize(x, size_hw).numpy(), expected.numpy())
    expected = F.interpolate(x, [60, 50], mode="nearest")
    np.testing.assert_array_equal(resize(x, size_hw, "nearest").numpy(), expected.numpy())
    np.testing.assert_array_equal(global_max_pool(x).numpy()[..., 0, 0], x.numpy().max((2, 3)))


def test_global_max_pool_gives_first_of_equal_maxima_the_gradient():
    x = paddle.to_tensor([[[[1.0, 3.0], [3.0, 2.0]]]], stop_gradient=False)
    global_max_pool(x).sum().backward()
    assert x.grad.tolist() == [[[[0, 1], [0, 0]]]]


PEAK_OF_MANY_CALLS = """
import gc, re
from pathlib import Path
from liteseg_plugin.models.resize import max_over_channels
import paddle

def peak_mb(calls):
    for _ in range(calls):
        x = paddle.ones([1, 64, 256, 256])  # 16 MB
        x.stop_gradient = False
        max_over_channels(x * 1)
        gc.collect()
    # Not ru_maxrss: a new process begins with that of the process which started it.
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

before = peak_mb(5)
print(peak_mb(20) - before)
"""


@pytest.mark.slow
def test_max_over_channels_frees_its_input_without_a_backward(process):
    """In a process of its own, whose peak no other test has raised."""
    grown = process("python", "-c", PEAK_OF_MANY_CALLS).stdout.split()[-1]
    assert float(grown) < 100  # MB; what is never freed would be 320 or more


@pytest.mark.parametrize("source", [1, 2, 5, 30])
@pytest.mark.parametrize("target", [1, 3, 7, 64])
def test_nearest_matrix_equals_interpolate(source, target):
    x = paddle.arange(source, dtype="float32").reshape([1, 1, source, 1])
    expected = F.interpolate(x, [target, 1], mode="nearest").flatten()
    actual = paddle.matmul(_nearest_matrix(source, target), x.flatten())
    assert actual.tolist() == expected.tolist()
