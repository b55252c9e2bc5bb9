"""Exports in Paddle Inference (oneDNN, as shipped) against the network in eager mode."""

from __future__ import annotations

import json
import shutil
import time

import cv2
import numpy as np
import paddle
import pytest
import yaml
from paddleseg.core.infer import aug_inference
from paddleseg.deploy.infer import DeployConfig
from paddleseg.transforms import Compose, Normalize

from liteseg_plugin.cli import main
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.evaluation.verify import spot_check
from liteseg_plugin.export.graph import ExportedNetwork, graph_of
from liteseg_plugin.export.replacing import record_agreement
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import MODEL_FILES, PARAMS_FILE, ExportedModel
from liteseg_plugin.inference.network import evaluation_scale
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.models import UAFM
from liteseg_plugin.system.checksums import file_sha256

TRANSFORMS = [{"type": "Normalize", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}]
ARM_TYPES = [
    "UAFM",
    "UAFM_ChAtten",
    "UAFM_ChAtten_S",
    "UAFM_SpAtten",
    "UAFM_SpAtten_S",
    "UAFMMobile",
    "UAFMMobile_SpAtten",
]
# 97x131 is odd throughout; the 1/32 grids of 96x224 and 136x200 do not divide into 4 bins.
SIZES = [(97, 131), (96, 224), (136, 200)]


@pytest.fixture(scope="module")
def net(build_network, randomized):
    """Return the network that most exports here are of; tests must not change it."""
    net = randomized(build_network("T"), seed=1)
    net.eval()
    return net


@pytest.fixture(scope="module")
def exported(net, made_once):
    """Return the folders of two exports of the network, by output op."""

    def make(folder):
        for output_op in ("none", "argmax"):
            export_model(net, folder / output_op, transforms=TRANSFORMS, output_op=output_op)

    folder = made_once("exports of the writer", make)
    return {output_op: folder / output_op for output_op in ("none", "argmax")}


@pytest.fixture(scope="module")
def predictors(exported):
    """Return predictors of both exports, by output op; loading one takes seconds."""
    return {output_op: Predictor(folder) for output_op, folder in exported.items()}


@pytest.fixture
def copied(exported, tmp_path):
    """Return a folder with an export that a test may spoil."""
    for file in exported["argmax"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def photo(size_hw, seed=0):
    return np.random.default_rng((seed, *size_hw)).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def normalised(image):
    return Compose([Normalize()])({"img": image.astype("float32")})["img"][np.newaxis]


def eager_logits(net, image):
    with paddle.no_grad():
        return net(paddle.to_tensor(normalised(image)))[0].numpy()


def assert_same_logits(logits, expected):
    assert logits.shape == expected.shape
    largest = np.abs(expected).max()
    assert largest > 0.1
    assert np.abs(logits - expected).max() <= 1e-5 * largest


def assert_same_labels(label, expected):
    assert label.shape == expected.shape
    assert len(np.unique(expected)) > 1
    assert (label == expected).mean() >= 0.9999


@pytest.fixture
def small(pointwise, tmp_path):
    """Return a folder with a small export that a test may spoil."""
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS)
    return tmp_path


def spoil(folder, section="Deploy", **changes):
    path = folder / "deploy.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["liteseg"]["sha256"].pop("deploy.yaml", None)  # as somebody who edits it
    content[section].update(changes)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


# --- the same as eager --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.parametrize("arm_type", ARM_TYPES)
def test_export_equals_eager_at_every_size(build_network, randomized, tmp_path, arm_type):
    net = randomized(build_network("T", arm_type=arm_type), seed=1)
    export_model(net, tmp_path, transforms=TRANSFORMS, output_op="none")
    net.eval()
    predictor = Predictor(tmp_path)
    for size_hw in SIZES:
        image = photo(size_hw)
        logits, expected = predictor.run(normalised(image)), eager_logits(net, image)
        assert_same_logits(logits, expected)
        assert_same_labels(logits[0].argmax(axis=0), expected[0].argmax(axis=0))


@pytest.mark.smoke
@pytest.mark.parametrize("size_hw", [(64, 64), (33, 70), (32, 32), (30, 70), (70, 30)])
def test_export_equals_eager_for_small_images(net, predictors, size_hw):
    image = photo(size_hw)
    logits = predictors["none"].run(normalised(image))
    assert_same_logits(logits, eager_logits(net, image))


@pytest.mark.smoke
@pytest.mark.parametrize("size_hw", [*SIZES, (1, 1), (3, 40), (7, 9)])
def test_export_argmax_equals_eager(net, predictors, size_hw):
    image = photo(size_hw)
    label = predictors["argmax"](image)
    assert label.dtype == np.int32
    expected = eager_logits(net, image)[0].argmax(axis=0)
    assert label.shape == expected.shape
    assert (label == expected).mean() >= 0.9999
    assert size_hw not in SIZES or len(np.unique(expected)) > 1


def test_export_takes_a_batch(net, predictors):
    images = np.concatenate([normalised(photo((97, 131), seed)) for seed in range(2)])
    with paddle.no_grad():
        expected = net(paddle.to_tensor(images))[0].numpy()
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    assert_same_logits(predictors["none"].run(images), expected)


def test_export_softmax_gives_probabilities(pointwise, tmp_path):
    net = pointwise()
    export_model(net, tmp_path, transforms=TRANSFORMS, output_op="softmax")
    image = photo((96, 160))
    expected = paddle.nn.functional.softmax(paddle.to_tensor(eager_logits(net, image)), axis=1)
    predictor = Predictor(tmp_path)
    np.testing.assert_allclose(predictor.run(normalised(image)), expected.numpy(), atol=1e-5)
    assert_same_labels(predictor(image), expected.numpy()[0].argmax(axis=0))


@pytest.mark.parametrize("size_hw", [(97, 131), pytest.param((136, 200), marks=pytest.mark.slow)])
def test_export_at_fixed_size_equals_eager(net, tmp_path, size_hw):
    export_model(
        net, tmp_path, transforms=TRANSFORMS, output_op="none", input_shape=[1, 3, *size_hw]
    )
    image = photo(size_hw)
    logits = Predictor(tmp_path).run(normalised(image))
    assert_same_logits(logits, eager_logits(net, image))


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("input_shape", "output_op"),
    [
        (None, "none"),
        ([1, 3, 194, 262], "argmax"),
        pytest.param(None, "argmax", marks=pytest.mark.slow),
        pytest.param([1, 3, 194, 262], "none", marks=pytest.mark.slow),
    ],
)
def test_export_at_evaluation_scale_equals_paddleseg_evaluation(
    net, tmp_path, input_shape, output_op
):
    export_model(
        net,
        tmp_path,
        transforms=TRANSFORMS,
        output_op=output_op,
        input_shape=input_shape,
        scale=evaluation_scale({"aug_eval": True, "scales": 0.5}),
    )
    predictor = Predictor(tmp_path)
    for size_hw in [(194, 262)] if input_shape else [(194, 262), (193, 261), (200, 136)]:
        image = photo(size_hw)
        with paddle.no_grad():
            label, logits = aug_inference(
                net, paddle.to_tensor(normalised(image)), trans_info=[], scales=0.5
            )
        if output_op == "none":
            assert_same_logits(predictor.run(normalised(image)), logits.numpy())
        assert_same_labels(predictor(image), label.numpy()[0, 0])
        at_full_size = eager_logits(net, image)  # which is something else
        assert np.abs(at_full_size - logits.numpy()).max() > 0.1


# --- what is written ----------------------------------------------------------------------------


def test_exported_graph_has_no_bilinear_interp_and_no_batch_norm(exported):
    for folder in exported.values():
        (model,) = (path for path in folder.iterdir() if path.name in MODEL_FILES)
        graph = model.read_bytes()
        assert b"conv2d" in graph and b"matmul" in graph
        assert b"interp" not in graph and b"batch_norm" not in graph


def test_deploy_yaml_is_true(pointwise, tmp_path):
    classes = [ClassInfo(str(i), (i, i, i)) for i in range(5)]
    path = export_model(
        pointwise(),
        tmp_path / "new" / "folder",
        transforms=TRANSFORMS,
        classes=classes,
        provenance={"weights_sha256": "0" * 64},
    )
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    deploy, own = content["Deploy"], content["liteseg"]
    assert path == tmp_path / "new" / "folder" / "deploy.yaml"
    assert (path.with_name(deploy["model"])).is_file() and deploy["params"] == PARAMS_FILE
    assert path.with_name(PARAMS_FILE).is_file()
    assert deploy["transforms"] == TRANSFORMS
    assert deploy["input_shape"] == [-1, 3, -1, -1]  # as PaddleSeg writes it
    assert (deploy["output_op"], deploy["output_dtype"]) == ("argmax", "int32")
    assert own["classes"] == [{"name": str(i), "color": [i, i, i]} for i in range(5)]
    assert own["evaluation_scale"] == 1.0
    assert own["provenance"]["weights_sha256"] == "0" * 64
    assert own["provenance"]["paddle"] == paddle.__version__
    assert Predictor(path.parent).exported.classes == classes
    assert not [p.name for p in path.parent.iterdir() if p.name.startswith(".")]


def test_deploy_yaml_is_read_by_paddleseg(exported):
    for folder in exported.values():
        config = DeployConfig(str(folder / "deploy.yaml"))
        paddle.jit.load(config.model.rsplit(".", 1)[0])
        with open(config.params, "rb") as params:
            assert params.read(1)
        image = photo((20, 30))
        transformed = config.transforms({"img": image.astype("float32")})["img"]
        np.testing.assert_array_equal(transformed[np.newaxis], normalised(image))


def test_export_replaces_what_was_there(pointwise, exported, tmp_path):
    stale = [*MODEL_FILES, PARAMS_FILE, "deploy.yaml"]
    for name in [*stale, "notes.txt"]:
        (tmp_path / name).write_text("of before", encoding="utf-8")
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in exported["argmax"].iterdir()} | {"notes.txt"}
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "of before"
    Predictor(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "eval", "train with frozen backbone"])
def test_export_leaves_network_as_it_was(build_network, randomized, tmp_path, mode):
    net = randomized(build_network("T", arm_type="UAFM_ChAtten"), seed=1)
    net.eval() if mode == "eval" else net.train()
    if mode == "train with frozen backbone":
        net.backbone.eval()
    training = {name: layer.training for name, layer in net.named_sublayers(include_self=True)}
    own = net.seg_heads[0].forward  # as somebody may have replaced it
    net.seg_heads[0].forward = own
    before = {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}
    transforms = [dict(t) for t in TRANSFORMS]
    export_model(net, tmp_path, transforms=transforms)
    assert transforms == TRANSFORMS
    after = {name: layer.training for name, layer in net.named_sublayers(include_self=True)}
    assert {name for name in training if training[name] != after[name]} == set()
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name], err_msg=name)
    assert paddle.in_dynamic_mode()
    replaced = [n for n, layer in net.named_sublayers() if "forward" in vars(layer)]
    assert replaced == ["seg_heads.0"] and net.seg_heads[0].forward is own
    logits = net(paddle.to_tensor(np.repeat(normalised(photo((64, 96))), 2, axis=0)))
    assert len(logits) == (1 if mode == "eval" else 3)
    logits[0].mean().backward()
    assert net.seg_heads[0].conv_out.weight.grad is not None


# --- predictor ----------------------------------------------------------------------------------


def test_predictor_takes_folder_or_deploy_yaml(exported):
    image = photo((96, 160))
    folder = exported["argmax"]
    by_folder, by_file = Predictor(str(folder)), Predictor(folder / "deploy.yaml", threads=1)
    np.testing.assert_array_equal(by_folder(image), by_file(image))
    assert len(by_folder.engine_ms) == 1
    by_folder(image)
    assert len(by_folder.engine_ms) == 2


def test_predictor_resizes_labels_back(pointwise, tmp_path):
    resize = {"type": "Resize", "target_size": [160, 96]}
    export_model(pointwise(), tmp_path, transforms=[resize, *TRANSFORMS])
    label = Predictor(tmp_path)(photo((97, 131)))
    assert label.shape == (97, 131) and label.dtype == np.int32


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), "uint8"),
        np.zeros((8, 8, 4), "uint8"),
        np.zeros((8, 8, 3), "float32"),
        np.zeros((0, 8, 3), "uint8"),
    ],
)
def test_predictor_refuses_what_is_no_image(predictors, image):
    with pytest.raises(
        DataError, match=r"an image must be \(H, W, 3\) of uint8 in BGR, .* got an array \("
    ):
        predictors["argmax"](image)


def test_predictor_takes_images_of_different_sizes_together(exported):
    predictor = Predictor(exported["argmax"])
    images = [photo((64, 96)), photo((97, 131)), photo((64, 96), seed=1), photo((96, 64))]
    singly = [predictor(image) for image in images]
    runs = len(predictor.engine_ms)
    together = predictor.batch(images)
    assert len(predictor.engine_ms) - runs == 3  # two of them have one size
    for label, alone in zip(together, singly):
        assert label.shape == alone.shape
        assert (label == alone).mean() >= 0.9999
    assert predictor.batch([]) == []


def test_predictor_fills_up_a_fixed_batch(pointwise, tmp_path):
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS, input_shape=[2, 3, 24, 32])
    images = [photo((24, 32), seed) for seed in range(3)]
    labels = Predictor(tmp_path).batch(images)
    open_size = tmp_path / "open"
    export_model(pointwise(), open_size, transforms=TRANSFORMS)
    for label, image in zip(labels, images):
        np.testing.assert_array_equal(label, Predictor(open_size)(image))


def test_predictor_says_which_size_a_fixed_export_takes(pointwise, tmp_path):
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS, input_shape=[1, 3, 24, 32])
    with pytest.raises(DataError, match="the export takes 1x3x24x32, not 1x3x32x24"):
        Predictor(tmp_path)(photo((32, 24)))


def test_predictor_refuses_a_shape_that_is_not_the_models(pointwise, tmp_path):
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS, input_shape=[1, 3, 24, 32])
    spoil(tmp_path, input_shape=[1, 3, 32, 24])
    with pytest.raises(
        ExportError, match=r"says input_shape 1x3x32x24, the model in .* takes 1x3x2"
    ):
        Predictor(tmp_path)
    for wrong in ([1, 3, 32], [1, 4, 24, 32], "large", [1, 3, 0, 32]):
        spoil(tmp_path, input_shape=wrong)
        with pytest.raises(ExportError, match=r"is not the deploy\.yaml of an export"):
            Predictor(tmp_path)


# --- errors -------------------------------------------------------------------------------------


def test_export_refuses_unknown_output_op(pointwise, tmp_path):
    with pytest.raises(ExportError, match=r"unknown output_op 'max'; choose one of \('argmax'"):
        export_model(pointwise(), tmp_path, transforms=TRANSFORMS, output_op="max")


@pytest.mark.parametrize(
    "input_shape", [[1, 3, 64], [1, 1, 64, 64], [1, 3, 0, 64], [1, None, 64, 64], [1, 3, -1, -1]]
)
def test_export_refuses_input_shape(pointwise, tmp_path, input_shape):
    with pytest.raises(ExportError, match="input_shape must be N 3 H W, each at least 1, got"):
        export_model(pointwise(), tmp_path, transforms=TRANSFORMS, input_shape=input_shape)
    assert list(tmp_path.iterdir()) == []


class Untraceable(paddle.nn.Layer):
    def forward(self, x):
        raise ValueError("this network gives no logits")


def test_export_that_fails_keeps_the_one_before(copied):
    before = {path.name: file_sha256(path) for path in copied.iterdir()}
    net = Untraceable()
    with pytest.raises(ExportError, match=rf"Paddle {paddle.__version__} cannot trace"):
        export_model(net, copied, transforms=TRANSFORMS)
    assert {path.name: file_sha256(path) for path in copied.iterdir()} == before
    assert net.training


@pytest.mark.parametrize("missing", ["deploy.yaml", "model", "params"])
def test_predictor_names_missing_file(copied, missing):
    deploy = yaml.safe_load((copied / "deploy.yaml").read_text(encoding="utf-8"))["Deploy"]
    path = copied / deploy.get(missing, missing)
    path.unlink()
    what = "is not an exported folder" if missing == "deploy.yaml" else "is incomplete"
    with pytest.raises(ExportError, match=rf"{what}: .*{path.name} is missing"):
        Predictor(copied)


def test_predictor_refuses_folder_that_is_no_export(tmp_path):
    with pytest.raises(ExportError, match="is not an exported folder"):
        Predictor(tmp_path)
    with pytest.raises(ExportError, match="is not an exported folder"):
        Predictor(tmp_path / "absent")


@pytest.mark.parametrize("text", ["", "[1, 2]", "Deploy: {}", "a: [", "Deploy: 3"])
def test_predictor_refuses_other_yaml(copied, text):
    (copied / "deploy.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ExportError, match=r"deploy\.yaml is not the deploy\.yaml of an export"):
        Predictor(copied)


def test_predictor_names_unknown_transform(copied):
    spoil(copied, transforms=[{"type": "Normalise"}])
    with pytest.raises(ExportError, match="Normalise"):
        Predictor(copied)


@pytest.mark.parametrize("key", ["model", "params"])
@pytest.mark.parametrize("prefix", ["../", "", "sub/"])
def test_predictor_refuses_files_outside(copied, tmp_path_factory, key, prefix):
    outside = tmp_path_factory.mktemp("outside") / "model.bin"
    outside.write_bytes(b"secret")
    named = f"{prefix}{outside.parent.name}/model.bin" if prefix else str(outside)
    spoil(copied, **{key: named})
    with pytest.raises(ExportError, match=r"names '.*model\.bin', which is not a file beside it"):
        Predictor(copied)


@pytest.mark.parametrize("lost_bytes", ["all", "half", 1000, 1])
def test_predictor_refuses_truncated_params(copied, lost_bytes):
    path = copied / PARAMS_FILE
    size = path.stat().st_size
    lost = {"all": size, "half": size // 2}.get(lost_bytes, lost_bytes)
    with path.open("r+b") as params:
        params.truncate(size - lost)
    with pytest.raises(ExportError, match=r"model\.pdiparams"):
        Predictor(copied)


# --- from a config ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test_config", "scale"),
    [
        ({}, 1.0),
        ({"aug_eval": False, "scales": [0.5, 1.0]}, 1.0),
        ({"aug_eval": True}, 1.0),
        ({"aug_eval": True, "scales": 0.75}, 0.75),
        ({"aug_eval": True, "scales": [0.5], "flip_horizontal": False}, 0.5),
    ],
)
def test_evaluation_scale_of_one_inference(test_config, scale):
    assert evaluation_scale(test_config) == scale


@pytest.mark.parametrize(
    "changes",
    [{"scales": [0.75, 1.0]}, {"flip_horizontal": True}, {"scales": 0.5, "flip_vertical": True}],
)
def test_evaluation_scale_refuses_averages(changes):
    with pytest.raises(ExportError, match="averages several inferences"):
        evaluation_scale({"aug_eval": True, **changes})


@pytest.mark.smoke
def test_export_with_nearest_resizing_equals_eager(build_network, randomized, tmp_path):
    net = randomized(build_network("T", resize_mode="nearest"), seed=2)
    net.eval()
    export_model(net, tmp_path, transforms=[{"type": "Normalize"}])
    predictor = Predictor(tmp_path)
    for size_hw in [(96, 224), (97, 131)]:
        image = photo(size_hw)
        batch = paddle.to_tensor(image[None, ..., ::-1].transpose(0, 3, 1, 2) / 127.5 - 1.0)
        with paddle.no_grad():
            expected = net(batch.astype("float32"))[0].argmax(axis=1).numpy()[0]
        assert (predictor(image) == expected).mean() >= 0.9999, size_hw


def test_evaluation_scale_refuses_sliding_windows():
    with pytest.raises(ExportError, match="is_slide"):
        evaluation_scale({"is_slide": True, "crop_size": [512, 512], "stride": [256, 256]})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("Deploy", "output_op", "foo"),
        ("liteseg", "evaluation_scale", "half"),
        ("liteseg", "sha256", 3),
        ("Deploy", "model", ""),
    ],
)
def test_predictor_refuses_wrong_values(exported, tmp_path, section, key, value):
    folder = tmp_path / "copy"
    shutil.copytree(exported["argmax"], folder)
    content = yaml.safe_load((folder / "deploy.yaml").read_text())
    content[section][key] = value
    (folder / "deploy.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ExportError):
        Predictor(folder)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("classes", 3, "classes 3 must be a list"),
        ("classes", {"road": [0, 0, 0]}, "must be a list"),
        ("classes", ["road"], "class 'road': it must have a name"),
        ("classes", [{"name": 3, "color": [0, 0, 0]}], "it must have a name"),
        ("classes", [{"name": "road"}], "color"),
        ("classes", [{"name": "road", "color": [0, 0]}], "three whole numbers"),
        ("classes", [{"name": "road", "color": [0, 0, 256]}], "three whole numbers"),
        ("classes", [{"name": "road", "color": [0.5, 0, 0]}], "three whole numbers"),
        ("classes", [{"name": "road", "color": [0, 0, 0]}] * 257, "257 classes"),
        ("evaluation_scale", float("nan"), "not a positive number"),
        ("evaluation_scale", float("inf"), "not a positive number"),
        ("evaluation_scale", 0, "not a positive number"),
        ("evaluation_scale", -0.5, "not a positive number"),
        ("sha256", [["model.json", "0"]], "must be checksums by file name"),
    ],
)
def test_predictor_refuses_values_of_the_plugins_section(small, key, value, reason):
    spoil(small, "liteseg", **{key: value})
    with pytest.raises(ExportError, match=rf"is not the deploy\.yaml of an export.*{reason}"):
        ExportedModel.read(small)


def test_changed_deploy_yaml_is_refused_if_it_says_something_else(small):
    path = small / "deploy.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text("# kept\n" + yaml.safe_dump(content, indent=4), encoding="utf-8")
    ExportedModel.read(small)
    content["Deploy"]["transforms"][0]["mean"] = [0.5, 0.5, 0.25]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ExportError, match=r"damaged or was edited.* remove the line deploy\.yaml"):
        ExportedModel.read(small)
    del content["liteseg"]["sha256"]["deploy.yaml"]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    ExportedModel.read(small)


def test_agreement_is_recorded_with_and_without_checksums(small):
    path = small / "deploy.yaml"
    for has_checksums in (True, False):
        record_agreement(ExportedModel.read(small), {"paddle": 1.0})
        ExportedModel.read(small)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert content["liteseg"]["agreement"] == {"paddle": 1.0}
        assert ("deploy.yaml" in content["liteseg"].get("sha256", {})) is has_checksums
        del content["liteseg"]["agreement"]
        content["liteseg"].pop("sha256", None)
        path.write_text(yaml.safe_dump(content), encoding="utf-8")


def test_predictor_refuses_aliases_that_expand(small):
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    with (small / "deploy.yaml").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines))
    with pytest.raises(ExportError, match=r"deploy\.yaml.* aliases .* expand to more than"):
        ExportedModel.read(small)


def test_predictor_says_where_deploy_yaml_is_not_utf8(small):
    path = small / "deploy.yaml"
    path.write_bytes(path.read_bytes() + "# Größe\n".encode("cp1252"))
    with pytest.raises(ExportError, match=r"deploy\.yaml is not UTF-8: byte 0xf6 .*save as UTF-8"):
        ExportedModel.read(small)


@pytest.mark.parametrize("output_op", ["softmax", "none", "argmax"])
def test_predictor_refuses_an_output_that_is_not_the_graphs(pointwise, tmp_path, output_op):
    made = "argmax" if output_op != "argmax" else "none"
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS, output_op=made)
    spoil(tmp_path, output_op=output_op)
    wanted = "labels" if output_op == "argmax" else "scores"
    with pytest.raises(
        ExportError, match=rf"says output_op '{output_op}', which gives {wanted} .* gives \(1, "
    ):
        Predictor(tmp_path)(photo((24, 32)))


def test_predictor_refuses_scores_of_other_classes(pointwise, tmp_path):
    classes = [ClassInfo(str(i), (i, i, i)) for i in range(5)]
    export_model(pointwise(), tmp_path, transforms=TRANSFORMS, output_op="softmax", classes=classes)
    Predictor(tmp_path)(photo((24, 32)))
    spoil(tmp_path, "liteseg", classes=[entry.to_json() for entry in classes[:4]])
    with pytest.raises(ExportError, match=r"names 4 classes, the model in .* gives scores of 5"):
        Predictor(tmp_path)(photo((24, 32)))


def test_export_refuses_more_classes_than_label_images_hold(pointwise, tmp_path):
    classes = [ClassInfo(str(i), (0, 0, 0)) for i in range(257)]
    with pytest.raises(ExportError, match="257 classes; label images are 8-bit"):
        export_model(pointwise(), tmp_path, transforms=TRANSFORMS, classes=classes)


@pytest.mark.smoke
@pytest.mark.parametrize("scale", [0.5, 0.75])
@pytest.mark.parametrize("fixed", [True, False])
def test_evaluation_scale_rounds_odd_sizes_as_paddleseg_does(pointwise, tmp_path, scale, fixed):
    size_hw = (33, 47)  # half of each, and three quarters of each, round up
    net = pointwise()
    net.eval()
    shape = [1, 3, *size_hw] if fixed else None
    export_model(net, tmp_path, transforms=TRANSFORMS, scale=scale, input_shape=shape)
    image = photo(size_hw)
    with paddle.no_grad():
        expected, _ = aug_inference(net, paddle.to_tensor(normalised(image)), [], scales=scale)
    assert_same_labels(Predictor(tmp_path)(image), expected.numpy()[0, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_spot_check_refuses_scores_that_are_not_finite(pointwise, tmp_path, value):
    net = pointwise()
    net.conv.bias.set_value(np.full(5, value, "float32"))
    export_model(net, tmp_path, transforms=TRANSFORMS)
    with pytest.raises(ExportError, match="the trained network gives NaN or infinity on noise"):
        spot_check(net, tmp_path, {})


def test_infer_gives_a_rate_when_the_clock_stands_still(small, tmp_path, monkeypatch, capsys):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), photo((24, 32)))
    monkeypatch.setattr(time, "perf_counter", lambda: 7.0)
    command = ["infer", "--config", str(small), "--image_path", str(path), "--json"]
    assert main([*command, "--save_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    rate = json.loads(printed[printed.index("{\n") :])["images_per_second"]
    assert 0 < rate < float("inf")


def test_code_of_unknown_layers_is_converted(build_network):
    class Branching(UAFM):
        def _fuse(self, low, high):
            return low if low.mean() > 1e9 else low + high

    net = build_network("T")
    assert type(graph_of(net, "none")) is not ExportedNetwork
    net.ppseg_head.arm_list[0] = Branching(256, 64, 32)
    assert type(graph_of(net, "none")) is ExportedNetwork


def test_what_paddlesegs_deploy_yaml_leaves_out_has_defaults(small):
    path = small / "deploy.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    del content["liteseg"], content["Deploy"]["input_shape"]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    exported = ExportedModel.read(small)
    assert exported.input_shape == (None, 3, None, None)
    assert exported.scale == 1.0
