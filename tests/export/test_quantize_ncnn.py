"""INT8 files for ncnn, run by ncnn, against the arithmetic and against float32."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import numpy as np
import paddle
import pytest
import yaml
from paddle.nn import functional
from pictures import write_images

from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.export.quantize import quantize
from liteseg_plugin.export.quantize_ncnn import NcnnQuantizer
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import (
    NCNN_INT8_FILE,
    NCNN_INT8_REPORT_FILE,
    NCNN_INT8_WEIGHTS_FILE,
    ExportedModel,
    ModelFiles,
)
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.runtimes.ncnn import Ncnn
from liteseg_plugin.serving.demo import Model

pytestmark = pytest.mark.skipif(
    any(find_spec(module) is None for module in ("paddle2onnx", "onnxruntime", "ncnn", "pnnx")),
    reason="needs the extra ncnn, which scripts/test.sh installs",
)
TRANSFORMS = [{"type": "Normalize"}]
SIZE_HW = (48, 64)
INT8_FILES = (NCNN_INT8_FILE, NCNN_INT8_WEIGHTS_FILE)


def files_of_one_layer(folder, kind, settings, weights, biases):
    """Write ncnn's files of one layer in float32."""
    graph = f"7767517\n2 2\nInput in0 0 1 in0\n{kind} layer 1 1 in0 out0 {settings}\n"
    (folder / "a.param").write_text(graph)
    values = np.concatenate([weights.ravel(), biases]).astype("<f4")
    (folder / "a.bin").write_bytes(bytes(4) + values.tobytes())
    return ModelFiles(folder, ncnn=folder / "a.param", ncnn_weights=folder / "a.bin")


def in_int8(files, batches, folder):
    """Return the files with the layer in INT8."""
    NcnnQuantizer(files, batches, folder).write(["layer"], folder)
    names = [folder / name for name in INT8_FILES]
    return ModelFiles(
        folder, ncnn=files.ncnn, ncnn_weights=files.ncnn_weights,
        ncnn_int8=names[0], ncnn_int8_weights=names[1],
    )  # fmt: skip


def rounded(values, scale):
    """Return values as INT8 holds them."""
    return np.clip(np.rint(values * scale), -127, 127) / scale


@pytest.mark.parametrize(
    ("kind", "settings", "shape", "groups"),
    [
        ("Convolution", "0=16 1=3 11=3 4=1 5=1 6=1584", (16, 11, 3, 3), 1),  # by Winograd's method
        ("Convolution", "0=5 1=3 11=1 13=2 5=1 6=165", (5, 11, 1, 3), 1),
        ("ConvolutionDepthWise", "0=11 1=3 11=3 4=1 5=1 6=99 7=11", (11, 1, 3, 3), 11),
        ("InnerProduct", "0=4 1=1 2=176", (4, 44, 1, 1), 1),
    ],
)
def test_layer_in_int8_computes_with_rounded_weights_and_inputs(
    tmp_path, kind, settings, shape, groups
):
    rng = np.random.default_rng(6)
    # Channels of very different sizes, two of practically 0: each needs its own scale.
    weights = rng.normal(size=shape) * 10.0 ** rng.integers(-2, 2, (shape[0], 1, 1, 1))
    weights[1], weights[2] = 0, weights[2] * 1e-40
    biases = rng.normal(size=shape[0])
    size_hw = (2, 2) if kind == "InnerProduct" else (9, 14)
    batches = [rng.normal(size=(1, 11, *size_hw)).astype("f4") * factor for factor in (1, 3)]
    files = files_of_one_layer(tmp_path, kind, settings, weights, biases)
    output = Ncnn(in_int8(files, batches, tmp_path), "cpu", 1, "int8").run(batches[1])

    largest = np.mean([np.abs(batch).max() for batch in batches])
    image = rounded(batches[1], 127 / largest)
    bounds = np.abs(weights).max((1, 2, 3), keepdims=True)
    exact = rounded(weights, 127 / np.where(bounds > 1e-30, bounds, 1))
    if kind == "InnerProduct":
        expected = image.reshape(1, -1) @ exact.reshape(4, -1).T + biases
    else:
        tensors = [paddle.to_tensor(array, "float64") for array in (image, exact, biases)]
        places = {"stride": (2, 1) if shape[2] == 1 else 1, "padding": int(shape[2] > 1)}
        expected = functional.conv2d(*tensors, groups=groups, **places).numpy()
    assert np.abs(output - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(output - Ncnn(files, "cpu", 1).run(batches[1])).max() > 1e-3  # another layer


def test_sums_of_winograd_do_not_overflow(tmp_path):
    """576 products of 127 x 127, times the 576 of the method, need 33 bits."""
    files = files_of_one_layer(
        tmp_path, "Convolution", "0=16 1=3 11=3 5=1 6=9216", np.ones((16, 64, 3, 3)), np.zeros(16)
    )
    image = np.ones((1, 64, 9, 9), "f4")
    output = Ncnn(in_int8(files, [image], tmp_path), "cpu", 1, "int8").run(image)
    np.testing.assert_allclose(output, 576, rtol=1e-5)


class Small(paddle.nn.Layer):
    """Convolutions, a depthwise one, and one of the mean of the image, which ncnn multiplies."""

    def __init__(self):
        super().__init__()
        self.first = paddle.nn.Conv2D(3, 16, 3, padding=1)
        self.depthwise = paddle.nn.Conv2D(16, 16, 3, padding=1, groups=16)
        self.second = paddle.nn.Conv2D(16, 16, 3, padding=1)
        self.mean = paddle.nn.Conv2D(16, 16, 1)
        self.last = paddle.nn.Conv2D(16, 5, 1)

    def forward(self, x):
        x = functional.relu(self.depthwise(functional.relu(self.first(x))))
        x = functional.relu(self.second(x))
        return [self.last(x + functional.relu(self.mean(x.mean((2, 3), keepdim=True))))]


@pytest.fixture(scope="module")
def quantized(randomized, made_once):
    """Return the folder of an export with ONNX and ncnn files, and of images."""

    def make(folder):
        settings = {"input_shape": (1, 3, *SIZE_HW), "onnx_opset": 13, "ncnn": True}
        export_model(randomized(Small(), 5), folder / "model", transforms=TRANSFORMS, **settings)
        images = write_images(folder / "images", 4, SIZE_HW)
        reports = quantize(folder / "model", images, tolerance=0.5, measured_images=2)
        (folder / "models.txt").write_text(" ".join(report.model for report in reports))

    return made_once("quantized_ncnn", make)


@pytest.fixture
def copied(quantized, tmp_path):
    """Return a copy of the export, without checksums."""
    folder = shutil.copytree(quantized / "model", tmp_path / "model")
    without(folder, "sha256")
    return folder


def without(folder, *keys):
    """Remove entries of an export's ``deploy.yaml``."""
    deploy = yaml.safe_load((folder / "deploy.yaml").read_text())
    deploy["liteseg"] = {k: v for k, v in deploy["liteseg"].items() if k not in keys}
    (folder / "deploy.yaml").write_text(yaml.safe_dump(deploy))


def equal_labels(folder, images):
    """Return the share of labels that are float32's."""
    in_float = Predictor(folder, "ncnn")
    in_int8 = Predictor(folder, "ncnn", precision="int8")
    return np.mean([in_float(str(image)) == in_int8(str(image)) for image in images])


def test_labels_are_nearly_those_of_float32(quantized, copied):
    images = sorted((quantized / "images").iterdir())
    assert (quantized / "models.txt").read_text() == f"model_int8.onnx {NCNN_INT8_FILE}"
    assert 0.95 < equal_labels(quantized / "model", images) < 1
    # The scales of five classes and of the input end the file. One that is halved shows.
    path = copied / NCNN_INT8_WEIGHTS_FILE
    content = path.read_bytes()
    scales = np.frombuffer(content[-24:], "<f4") * np.float32([1, 1, 1, 0.5, 1, 1])
    path.write_bytes(content[:-24] + scales.tobytes())
    assert equal_labels(copied, images) < 0.9


def test_export_names_and_checks_the_files(quantized, tmp_path):
    folder = shutil.copytree(quantized / "model", tmp_path / "model")
    exported = ExportedModel.read(folder)
    assert (exported.ncnn_int8.name, exported.ncnn_int8_weights.name) == INT8_FILES
    checksums = yaml.safe_load((folder / "deploy.yaml").read_text())["liteseg"]["sha256"]
    assert checksums.keys() >= {*INT8_FILES, "model_int8.onnx"}
    report = json.loads((folder / NCNN_INT8_REPORT_FILE).read_text())
    assert [layer["weight_shape"] for layer in report["layers"]] == [
        [16, 3, 3, 3], [16, 1, 3, 3], [16, 16, 3, 3], [16, 16, 1, 1], [5, 16, 1, 1]
    ]  # fmt: skip
    sizes = [path.stat().st_size for path in (exported.ncnn_int8_weights, exported.ncnn_weights)]
    assert sizes[0] < 0.4 * sizes[1]
    (folder / NCNN_INT8_FILE).write_text("another graph")
    with pytest.raises(ExportError, match=rf"{NCNN_INT8_FILE} is not the exported file"):
        Predictor(folder, "ncnn", precision="int8")


@pytest.mark.parametrize("end", [-1, -5, -100, 0])
def test_truncated_weights_are_refused(copied, end):
    """With missing scales, ncnn itself crashes."""
    path = copied / NCNN_INT8_WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ExportError, match=rf"{NCNN_INT8_WEIGHTS_FILE} are not a complete graph"):
        Predictor(copied, "ncnn", precision="int8")


def test_layers_that_hurt_stay_in_float(copied, quantized):
    images = sorted((quantized / "images").iterdir())
    report = json.loads((copied / NCNN_INT8_REPORT_FILE).read_text())
    changes = sorted(layer["changed_alone"] for layer in report["layers"])
    [_, stricter] = quantize(copied, images, tolerance=changes[2], measured_images=2)
    kept = [layer.name for layer in stricter.layers if layer.precision == "int8"]
    assert len(kept) == 3
    assert (copied / NCNN_INT8_FILE).read_text().count(" 8=1\n") == 3
    assert stricter.agreement > stricter.agreement_all


def test_demo_offers_int8_where_there_are_files(copied):
    assert {"ncnn int8", "onnxruntime int8"} <= {*Model(copied, "cpu").engines}
    without(copied, "ncnn_int8")
    assert "ncnn int8" not in Model(copied, "cpu").engines


def test_new_export_takes_the_files_away(pointwise, copied):
    export_model(pointwise(), copied, transforms=TRANSFORMS)
    names = {path.name for path in copied.iterdir()}
    assert not names & {*INT8_FILES, NCNN_INT8_REPORT_FILE}


def test_what_is_missing_is_named(copied, tmp_path):
    without(copied, "onnx", "onnx_int8", "ncnn_int8", "ncnn_int8_weights")
    with pytest.raises(ExportError, match="has no INT8 model; create it with liteseg quantize"):
        Predictor(copied, "ncnn", precision="int8")
    with pytest.raises(DataError, match="calibration needs images, but there are none"):
        quantize(copied, [])
    with pytest.raises(DataError, match="the export takes 1x3x48x64, not 1x3x20x30"):
        quantize(copied, write_images(tmp_path / "images", 1, (20, 30)))
    weights = copied / "model_ncnn.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ExportError, match=r"ncnn cannot load .*model_ncnn\.param with"):
        quantize(copied, write_images(tmp_path / "others", 1, SIZE_HW))
