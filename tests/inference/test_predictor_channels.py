"""Exports of models for grey images, four bands and 16 bits, in every runtime."""

from __future__ import annotations

import cv2
import numpy as np
import paddle
import pytest
import yaml

from liteseg_plugin import Predictor
from liteseg_plugin.datasets.image_compose import compose
from liteseg_plugin.datasets.image_format import ImageFormat
from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import DEPLOY_FILE, ExportedModel
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.runtimes.tensorrt_network import fix_and_fold

FORMATS = {"grey": ImageFormat(1), "four": ImageFormat(4, 65535, (3, 0, 1))}


@pytest.fixture(scope="module")
def exports(pointwise, tmp_path_factory):
    """Return folder, network and images, by name."""
    made = {}
    for name, image_format in FORMATS.items():
        network = pointwise(image_format.channels)
        folder = tmp_path_factory.mktemp(name)
        normalize = [{"type": "Normalize", "mean": [0.4], "std": [0.3]}]
        export_model(
            network, folder, transforms=normalize, image_format=image_format, onnx_opset=13
        )
        shape = (24, 32) if image_format.channels == 1 else (24, 32, image_format.channels)
        values = np.random.default_rng(0).integers(0, image_format.max_value + 1, shape)
        made[name] = folder, network, values.astype(image_format.dtype)
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_every_runtime_gives_the_networks_labels(exports, name, tmp_path):
    folder, network, image = exports[name]
    normalised = (image.astype("float32") / FORMATS[name].max_value - 0.4) / 0.3
    planes = np.atleast_3d(normalised).transpose(2, 0, 1)[np.newaxis]
    expected = network(paddle.to_tensor(planes))[0].numpy().argmax(1)[0]
    assert len(np.unique(expected)) > 1
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), image if image.ndim == 2 else image[..., [2, 1, 0, 3]])
    export = ExportedModel.read(folder)
    for runtime in catalog.installed_for(export):
        predictor = Predictor(export, runtime, "cpu")
        for given in (image, path, np.atleast_3d(image)):
            # Less than 1: a pixel may lie between two labels.
            assert (predictor(given) == expected).mean() > 0.997
        assert predictor.predict(image).overlay().shape == (24, 32, 3)


def test_deploy_file_says_what_images_the_model_takes(exports):
    folder, _, _ = exports["four"]
    deploy = yaml.safe_load((folder / DEPLOY_FILE).read_text())
    assert deploy["Deploy"]["input_shape"] == [-1, 4, -1, -1]
    assert deploy["liteseg"]["image"] == {
        "channels": 4,
        "max_value": 65535,
        "channel_order": "as stored",
        "shown_bands": [3, 0, 1],
    }


def test_grey_model_takes_colours_as_opencv_converts_them(exports):
    folder, _, _ = exports["grey"]
    predictor = Predictor(folder)
    colours = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    grey = cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(predictor(colours), predictor(grey))


@pytest.mark.parametrize(
    "given", [np.zeros((24, 32, 3), "uint16"), np.zeros((24, 32, 4), "uint8"), np.zeros((24, 32))]
)
def test_other_arrays_are_refused(exports, given):
    predictor = Predictor(exports["four"][0])
    with pytest.raises(DataError, match=r"must be \(H, W, 4\) of uint16, .* got an array \(24, 32"):
        predictor(given)


def test_a_picture_of_three_channels_is_refused_by_name(exports, tmp_path):
    path = tmp_path / "street.png"
    cv2.imwrite(str(path), np.zeros((24, 32, 3), "uint8"))
    with pytest.raises(DataError, match=r"street\.png: it has 3 channels of 8-bit .*4 channels"):
        Predictor(exports["four"][0])(path)


def test_input_shape_of_other_channels_is_refused(pointwise, tmp_path):
    with pytest.raises(ExportError, match="must be N 4 H W"):
        export_model(
            pointwise(4),
            tmp_path,
            transforms=[],
            image_format=FORMATS["four"],
            input_shape=[1, 3, 8, 8],
        )


def test_the_onnx_file_is_folded_for_tensorrt(exports):
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    model = onnx.load(str(exports["four"][0] / "model.onnx"))
    folded = fix_and_fold(model, (2, 4, 24, 32))
    extents = folded.graph.input[0].type.tensor_type.shape.dim
    assert [extent.dim_value for extent in extents] == [2, 4, 24, 32]


def test_shown_bands_can_be_chosen(exports):
    from liteseg_plugin.datasets import image_compose

    _, _, image = exports["four"]
    chosen = image_compose.showing(compose([], FORMATS["four"]), (2, 2, 2))
    shown = image_compose.shown(chosen, image)
    assert (shown == shown[..., :1]).all()
    np.testing.assert_array_equal(shown[..., 0], (image[..., 2] / 65535 * 255).round())
