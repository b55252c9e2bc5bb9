"""Models that others exported: PaddleSeg's class, and a small network with its weak points."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import yaml
from paddleseg.models.pp_liteseg import PPLiteSeg as StockPPLiteSeg

from liteseg_plugin.cli import main
from liteseg_plugin.errors import ExportError
from liteseg_plugin.evaluation.benchmark_exports import export_as_paddleseg
from liteseg_plugin.export import third_party
from liteseg_plugin.export.fixed_shape import fix_shape
from liteseg_plugin.export.onnx import DEFAULT_OPSET
from liteseg_plugin.runtimes.paddle import PaddleInference
from liteseg_plugin.system.checksums import file_sha256

installed = pytest.mark.skipif(
    any(package not in {d.metadata["Name"] for d in metadata.distributions()}
        for package in ("paddle2onnx", "onnxruntime")),
    reason="needs the extra onnx, which scripts/test.sh installs",
)  # fmt: skip

# Pooling into 4 cells and resizing to the feature's size, as in PaddleSeg's context module.
_SMALL = """
import sys
from liteseg_plugin.integration import registry
import paddle
from paddle import nn

registry.repair()  # for FLAGS_enable_pir_api=0

class Small(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2D(3, 8, 3, padding=1), nn.Conv2D(16, 5, 1)

    def forward(self, x):
        feature = nn.functional.relu(self.conv(x))
        pooled = nn.functional.adaptive_avg_pool2d(feature, 4)
        pooled = nn.functional.interpolate(pooled, paddle.shape(feature)[2:], mode="bilinear")
        return paddle.argmax(self.out(paddle.concat([feature, pooled], 1)), 1, dtype="int32")

paddle.seed(1)
net = Small()
net.eval()
spec = [paddle.static.InputSpec([-1, 3, -1, -1], "float32", "x")]
paddle.jit.save(paddle.jit.to_static(net, spec), sys.argv[1])
"""


def export_small(folder, old_format):
    environment = {**os.environ, **({"FLAGS_enable_pir_api": "0"} if old_format else {})}
    # A file: Paddle reads the source of what it traces.
    script = folder / "small.py"
    script.write_text(_SMALL)
    subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(folder / "model")],
        env=environment,
        check=True,
        capture_output=True,
    )
    script.unlink()


@pytest.fixture(scope="module", params=["this Paddle's format", "Paddle 2's format"])
def small(request, made_once, tmp_path_factory):
    """Return the files of a small model of any size, in either format."""
    old_format = request.param == "Paddle 2's format"
    made = made_once(request.param, lambda folder: export_small(folder, old_format))
    folder = shutil.copytree(made, tmp_path_factory.mktemp("small") / "model")
    name = next(path.name for path in folder.iterdir() if path.suffix in (".json", ".pdmodel"))
    return third_party.model_files(folder, name, "model.pdiparams")


@pytest.fixture(scope="module")
def current(made_once):
    """Return the files of the same model, in this Paddle's format."""
    folder = made_once("this Paddle's format", lambda folder: export_small(folder, False))
    name = next(path.name for path in folder.iterdir() if path.suffix in (".json", ".pdmodel"))
    return third_party.model_files(folder, name, "model.pdiparams")


def labels(files, images):
    return PaddleInference(files, "cpu", 1, accelerated=False).run(images)


def test_fixed_model_is_the_same_network(small, tmp_path):
    (small.model.parent / "deploy.yaml").write_text(
        yaml.safe_dump(
            {
                "Deploy": {"model": small.model.name, "transforms": []},
                "liteseg": {
                    "onnx": "model.onnx",
                    "onnx_int8": "model_int8.onnx",
                    "sha256": {"a": "b"},
                },
            }
        )
    )
    before = small.model.read_bytes(), small.params.read_bytes()
    fixed = fix_shape(small, {"x": [1, 3, 40, 64]}, tmp_path / "fixed")
    assert (small.model.read_bytes(), small.params.read_bytes()) == before
    assert fixed.params.read_bytes() == before[1]
    names = {"deploy.yaml", "model.pdiparams", small.model.name}
    assert {file.name for file in (tmp_path / "fixed").iterdir()} == names
    deploy = yaml.safe_load((tmp_path / "fixed" / "deploy.yaml").read_text())
    assert deploy["Deploy"]["input_shape"] == [1, 3, 40, 64]
    sums = {path.name: file_sha256(path) for path in (fixed.model, fixed.params)}
    assert deploy["liteseg"] == {"onnx": None, "sha256": sums}
    (small.model.parent / "deploy.yaml").unlink()
    images = np.random.default_rng(0).normal(size=(1, 3, 40, 64)).astype("float32")
    expected = labels(small, images)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(labels(fixed, images), expected)
    if small.model.suffix == ".json":
        ops = json.loads(fixed.model.read_text())["program"]["regions"][0]["blocks"][0]["ops"]
        shapes = {op["#"]: op["O"][0]["TT"]["D"] for op in ops if op["#"] != "p"}
        assert shapes["1.conv2d"][1] == [1, 5, 40, 64]
        assert shapes["1.argmax"][1] == shapes["1.fetch"][1] == [1, 40, 64]
        assert [t["D"][1] for t in shapes["0.combine"]] == [[1, 8, 40, 64]] * 2


@pytest.mark.slow
@installed
def test_converted_file_is_compared_and_a_wrong_one_is_not_kept(small, tmp_path):
    right = fix_shape(small, {"x": [1, 3, 40, 64]}, tmp_path / "right")
    compared = third_party.convert_and_compare(right, tmp_path / "right.onnx")
    [(shape, result)] = compared.items()
    assert shape == "1x3x40x64"
    assert result.agreement == 1
    assert result.difference < 1e-5
    assert result.classes > 1

    # 30 rows do not divide into 4 cells: the converter makes them 4 windows of equal size.
    wrong = fix_shape(small, {"x": [1, 3, 30, 64]}, tmp_path / "wrong")
    with pytest.raises(ExportError, match=r"wrong and was deleted: at 1x3x30x64 .* of labels"):
        third_party.convert_and_compare(wrong, tmp_path / "wrong.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["right", "right.onnx", "wrong"]


@pytest.mark.slow
@installed
def test_crash_of_the_converted_file_is_one_error(small, tmp_path):
    fixed = fix_shape(small, {"x": [1, 3, 2, 64]}, tmp_path / "fixed")
    with pytest.raises(ExportError, match=r"ONNX Runtime cannot run .* at \(1, 3, 2, 64\)"):
        third_party.convert_and_compare(fixed, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.slow
@installed
def test_commands_take_paddlesegs_export_from_any_size_to_onnx(
    run, build_network, randomized, tmp_path
):
    """The two steps of the seeds, with their flags."""
    network = randomized(build_network("T", num_classes=7, cls=StockPPLiteSeg), seed=5)
    stock, fixed = tmp_path / "stock", tmp_path / "fixed"
    stock.mkdir()
    export_as_paddleseg(network, stock, [-1, 3, -1, -1], onnx=False)
    name = yaml.safe_load((stock / "deploy.yaml").read_text())["Deploy"]["model"]
    result = run(
        *("infer_shape", "--model_dir", stock, "--model_filename", name),
        *("--params_filename", "model.pdiparams", "--save_dir", fixed),
        "--input_shape_dict={'x':[1,3,128,256]}",
    )
    assert f"{fixed / name} takes" in result.stdout
    convert = (
        *("paddle2onnx", "--model_filename", name, "--enable_dev_version", "True"),
        *("--params_filename", "model.pdiparams", "--save_file", tmp_path / "stock.onnx", "--json"),
    )
    report = json.loads(run(*convert, "--model_dir", fixed).stdout)
    assert report["onnx"] == str(tmp_path / "stock.onnx")
    assert report["compared"]["1x3x128x256"]["agreement"] > 0.9999
    assert report["compared"]["1x3x128x256"]["difference"] < 1e-5

    import onnx

    model = onnx.load(str(tmp_path / "stock.onnx"))
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [
        1,
        3,
        128,
        256,
    ]
    assert model.opset_import[0].version == DEFAULT_OPSET

    (tmp_path / "stock.onnx").unlink()
    result = run(*convert, "--model_dir", stock, check=False)  # its size is still open
    assert result.returncode == 1
    assert "fix it first: liteseg infer_shape" in result.stderr
    assert not (tmp_path / "stock.onnx").exists()


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ("{'image':[1,3,8,8]}", r"the inputs of .* are \['x'\], not \['image'\]"),
        ("{'x':[1,4,8,8]}", r"x of .* has shape \[-1, 3, -1, -1\].*\[1, 4, 8, 8\] does not fit"),
        ("{'x':[1,3,8]}", r"\[1, 3, 8\] does not fit"),
        ("{'x':[1,3,-1,8]}", r"numbers of at least 1"),
        ("{'x':[]}", r"numbers of at least 1"),
        ("[1,3,8,8]", r"is shapes by input"),
        ("{'x':__import__('os').getpid()}", r"is shapes by input"),
        ("{'x'", r"is shapes by input"),
    ],
)
def test_shapes_that_cannot_be_are_refused(current, tmp_path, capsys, shapes, said):
    code = main([
        "infer_shape", "--model_dir", str(current.model.parent), "--model_filename",
        current.model.name, "--save_dir", str(tmp_path / "fixed"), "--input_shape_dict", shapes,
    ])  # fmt: skip
    assert code == 1
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "fixed").exists()


@pytest.mark.slow
def test_files_that_cannot_be_are_refused(small, tmp_path):
    shapes = {"x": [1, 3, 8, 8]}
    with pytest.raises(ExportError, match=r"other.json is missing; --model_filename names one of"):
        third_party.model_files(small.model.parent, "other.json", "model.pdiparams")
    with pytest.raises(ExportError, match=r"choose another --save_dir"):
        fix_shape(small, shapes, small.model.parent)
    for name, content in (
        (small.model.name, small.model.read_bytes()[:-100]),
        (small.params.name, small.params.read_bytes()[:100]),
    ):
        folder = tmp_path / "broken"
        folder.mkdir(exist_ok=True)
        for path in (small.model, small.params):
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / name).write_bytes(content)
        broken = third_party.model_files(folder, small.model.name, small.params.name)
        with pytest.raises(ExportError, match=r"(cannot run|crashes on) .*broken"):
            fix_shape(broken, shapes, tmp_path / "fixed")
        assert not (tmp_path / "fixed").exists()
