"""Evaluation, its report, and two of them side by side, through the real commands."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import cv2
import numpy as np
import paddle
import pytest
import yaml

from liteseg_plugin.cli import main
from liteseg_plugin.errors import DataError
from liteseg_plugin.evaluation.compare import compare
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import INT8_FILE, ONNX_FILE

SCORES = ("miou", "accuracy", "kappa", "class_iou", "class_precision")
HOSTILE = '<script>alert("$\\frac{x}$")</script>'


class Page(HTMLParser):
    """What a browser would load and run, and what a reader of the screen would get."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.ids = [], "", []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(path):
    """The page needs no network, no script and no mouse."""
    page = Page(path)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    assert all(image["alt"] for image in page.of("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.of("div"):
        if "tabindex" in attributes:  # what scrolls has a name and takes the focus
            assert attributes.get("aria-label") or attributes["aria-labelledby"] in ids
    assert len(page.of("th")) > 10
    assert "prefers-color-scheme: dark" in path.read_text(encoding="utf-8")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
    return page


@pytest.fixture(scope="module")
def report(run, trained, tmp_path_factory):
    """A report on the trained network, and what the command printed."""
    folder = tmp_path_factory.mktemp("reports") / "trained"
    result = run(
        *("val", "--config", trained.config, "--model_path", trained.weights, "--json"),
        *("--report", folder, "--worst", 2),
    )
    return SimpleNamespace(folder=folder, numbers=json.loads(result.stdout), text=result.text)


def test_report_has_the_numbers_of_plain_evaluation(run, trained, report):
    weights = ("--config", trained.config, "--model_path", trained.weights)
    plain = json.loads(run("val", *weights, "--json").stdout)
    for name in SCORES:
        np.testing.assert_allclose(report.numbers[name], plain[name], atol=1e-6, err_msg=name)
    assert report.numbers["images"] == plain["images"] == 3
    written = json.loads((report.folder / "metrics.json").read_text())
    assert written == {"format": 1, **report.numbers}
    assert f"mIoU: {plain['miou']:.4f} Acc: {plain['accuracy']:.4f}" in report.text
    percents = f"mIoU {plain['miou']:.2%}, Accuracy {plain['accuracy']:.2%}, ".replace("%", "")
    assert f"\n3 images, in %: {percents}" in report.text
    assert report.text.count("Boundary F1") == 1


@pytest.mark.slow
def test_two_processes_evaluate_each_image_once(process, trained, report, tmp_path):
    """Three images do not divide by two processes."""
    launched = process(
        *("liteseg", "launch", "--nproc_per_node", 2, "--log_dir", tmp_path / "log"),
        *("val", "--config", trained.config, "--json"),
        *("--model_path", trained.weights, "--device", "cpu", "--report", tmp_path / "report"),
    )
    numbers = json.loads((tmp_path / "report" / "metrics.json").read_text())
    expected = json.loads((report.folder / "metrics.json").read_text())
    assert {**numbers, "seconds": 0} == {**expected, "seconds": 0}
    assert "#Images: 3 " in launched.text


def test_report_page_shows_numbers_and_the_worst_images(report, toy):
    page = check_page(report.folder / "index.html")
    scores = sorted(report.numbers["image_scores"], key=lambda score: score["miou"])
    first, second = (
        page.text.index(f"{i}. {s['image']}: mIoU") for i, s in ((1, scores[0]), (2, scores[1]))
    )
    assert first < second
    assert f"3. {scores[2]['image']}" not in page.text
    for name in ("miou", "accuracy", "kappa", "dice", "boundary_f1"):
        assert f"{report.numbers[name] * 100:.2f}" in page.text
    for name in ("classes", "confusion", "images"):
        figure = cv2.imread(str(report.folder / "figures" / f"{name}.png"))
        assert figure.std() > 10
    names = sorted(path.name for path in (report.folder / "worst").iterdir())
    kinds = ("errors", "image", "prediction", "truth")
    assert names == [f"{rank}_{kind}.jpg" for rank in ("01", "02") for kind in kinds]
    original = cv2.imread(str(toy.root / scores[0]["image"]))
    shown = cv2.imread(str(report.folder / "worst" / "01_image.jpg"))
    assert np.abs(original.astype(int) - shown).mean() < 8
    errors = cv2.imread(str(report.folder / "worst" / "01_errors.jpg")).astype(int)
    red = (errors[..., 2] - errors[..., 1] > 60).mean()
    assert red == pytest.approx(1 - scores[0]["accuracy"], abs=0.1)


def test_exported_model_evaluates_as_the_network_in_every_runtime(run, trained, exported, report):
    for runtime in {exported.runtimes[0], exported.runtimes[-1]}:
        result = run(
            *("val", "--config", trained.config, "--exported", exported.folder),
            *("--runtime", runtime, "--cpu_threads", 1, "--json"),
        )
        numbers = json.loads(result.stdout)
        assert numbers["runtime"] == runtime
        for name in (*SCORES, "boundary_f1", "dice"):
            np.testing.assert_allclose(numbers[name], report.numbers[name], atol=1e-3, err_msg=name)


@pytest.fixture(scope="module")
def with_int8(tmp_path_factory):
    """Return an export whose INT8 file is that of another network, so that labels tell them."""
    pytest.importorskip("paddle2onnx")
    pytest.importorskip("openvino")
    folders = [tmp_path_factory.mktemp("with_int8") / name for name in ("exported", "other")]
    for seed, folder in enumerate(folders):
        network = Colours()
        weight = np.random.default_rng(seed).normal(0, 1, network.conv.weight.shape)
        network.conv.weight.set_value(weight.astype("float32"))
        export_model(network, folder, transforms=[{"type": "Normalize"}], onnx_opset=13)
    deploy = folders[0] / "deploy.yaml"
    content = yaml.safe_load(deploy.read_text())
    content["liteseg"].update(onnx_int8=INT8_FILE, sha256={})
    deploy.write_text(yaml.safe_dump(content))
    return shutil.copy(folders[1] / ONNX_FILE, folders[0] / INT8_FILE).parent


class Colours(paddle.nn.Layer):
    """One convolution of 3 channels to 11, pixel by pixel."""

    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 11, 1)

    def forward(self, x):
        return [self.conv(x)]


@pytest.mark.slow
def test_precision_of_an_export_finds_its_runtime_and_compares(run, toy, with_int8, tmp_path):
    evaluate = ("val", "--config", toy.config(tmp_path), "--exported", with_int8)
    numbers = {}
    for precision, runtime in (("fp32", "paddle"), ("int8", "openvino int8")):
        folder = tmp_path / precision
        result = run(*evaluate, "--precision", precision, "--report", folder, "--json")
        numbers[precision] = json.loads(result.stdout)
        assert numbers[precision]["runtime"] == runtime
        assert runtime in Page(folder / "index.html").text
    compared = json.loads(run("compare", tmp_path / "fp32", tmp_path / "int8", "--json").stdout)
    assert [report["runtime"] for report in compared["reports"]] == ["paddle", "openvino int8"]
    miou = compared["scores"][0]
    assert [miou["before"], miou["after"]] == [numbers[p]["miou"] for p in ("fp32", "int8")]
    assert miou["difference"] != 0

    picture = toy.root / "images" / "val_0000.png"
    infer = ("infer", "--config", with_int8, "--image_path", picture, "--save_dir", tmp_path)
    for precision in ("fp32", "int8"):
        document = json.loads(run(*infer, "--precision", precision, "--json").stdout)
        runtime, _, _ = numbers[precision]["runtime"].partition(" ")
        assert (document["runtime"], document["precision"]) == (runtime, precision)


def test_precision_needs_an_export(fails, trained):
    message = fails("val", "--config", trained.config, "--model_path", "w", "--precision", "int8")
    assert "--runtime, --precision and --cpu_threads need --exported" in message


def test_comparison_tells_better_from_worse(run, report, tmp_path):
    numbers = json.loads((report.folder / "metrics.json").read_text())
    numbers["miou"] += 0.05
    numbers["class_iou"][2] -= 0.03125
    numbers["class_iou"][3] += 0.0625
    numbers["class_boundary_f1"][4] = None
    better, gone = numbers["image_scores"][1], numbers["image_scores"].pop(0)
    better["miou"] += 0.125
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.json").write_text(json.dumps(numbers))
    page = tmp_path / "comparison.html"
    result = run("compare", report.folder, other, "--save", page)
    assert (
        "2 images in both: 1 got better, 0 worse. NOT the same images: 1 only before" in result.text
    )
    names = [entry["name"] for entry in numbers["classes"]]
    assert re.search(rf"^{names[2]} .* -3\.1[23]$", result.stdout, re.M)
    assert re.search(rf"^{names[3]} .* \+6\.25$", result.stdout, re.M)
    assert re.search(r"^mIoU .* \+5\.00$", result.stdout, re.M)
    text = check_page(page).text
    assert better["image"] in text
    assert gone["image"] not in text

    document = json.loads(run("compare", report.folder, other, "--json").stdout)
    assert document["classes"][3]["difference"] == pytest.approx(0.0625)
    assert document["classes"][4]["boundary_f1"]["difference"] is None
    assert [pair["difference"] for pair in document["images"]] == pytest.approx([0, 0.125])


def test_hostile_names_are_text(run, trained, toy, exported, tmp_path):
    root = tmp_path / "street"
    shutil.copytree(toy.root, root)
    names = [HOSTILE, "_hidden", "a{b}%s", "Straße 路", *(f"c{i}" for i in range(7))]
    (root / "labels.txt").write_text("\n".join(names), encoding="utf-8")
    hostile = "images/x\"'><img onerror=alert(1)>&amp;{{7*7}}.png"
    lines = (root / "val.txt").read_text().splitlines()
    image, label = lines[0].split()
    (root / image).rename(root / hostile.replace(" ", "_"))
    lines[0] = f"{hostile.replace(' ', '_')} {label}"
    (root / "val.txt").write_text("\n".join(lines))
    changes = {
        "val_dataset__dataset_root": str(root),
        "val_dataset__val_path": str(root / "val.txt"),
    }
    config = toy.config(tmp_path, **changes)
    command = ("val", "--config", config, "--model_path", trained.weights)
    run(*command, "--report", tmp_path / "report")
    page = check_page(tmp_path / "report" / "index.html")
    assert HOSTILE in page.text
    assert "{{7*7}}.png" in page.text
    saved = tmp_path / "comparison.html"
    run("compare", tmp_path / "report", tmp_path / "report", "--save", saved)
    assert HOSTILE in check_page(saved).text


def test_report_with_flips_and_scales_replaces_an_earlier_one(run, trained, report, tmp_path):
    shutil.copytree(report.folder, tmp_path / "report")
    (tmp_path / "report" / "worst" / "mine.jpg").write_text("mine")
    flags = ("--aug_eval", "--flip_horizontal", "--scales", 0.5, 1.0, "--json")
    command = ("val", "--config", trained.config, "--model_path", trained.weights)
    more = ("--report", tmp_path / "report", "--worst", 1)
    numbers, plain = (json.loads(run(*command, *flags, *m).stdout) for m in (more, ()))
    for name in SCORES:
        np.testing.assert_allclose(numbers[name], plain[name], atol=1e-6, err_msg=name)
    assert "scale 0.5, 1, flip horizontal" in Page(tmp_path / "report" / "index.html").text
    left = sorted(path.name for path in (tmp_path / "report" / "worst").iterdir())
    assert left == [
        "01_errors.jpg",
        "01_image.jpg",
        "01_prediction.jpg",
        "01_truth.jpg",
        "mine.jpg",
    ]


def test_failed_evaluation_leaves_no_folder(fails, trained, tmp_path):
    gone = ("--config", trained.config, "--model_path", tmp_path / "gone.pdparams")
    fails("val", *gone, "--report", tmp_path / "reports" / "a")
    assert not (tmp_path / "reports").exists()
    (tmp_path / "file").write_text("mine")
    message = fails("val", *gone, "--report", tmp_path / "file" / "a")
    assert f"cannot write a report to {tmp_path / 'file' / 'a'}: {tmp_path / 'file'} is" in message


def test_report_leaves_other_files_alone(fails, trained, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    weights = ("--config", trained.config, "--model_path", trained.weights)
    message = fails("val", *weights, "--report", tmp_path)
    assert "contains other files and no report" in message
    assert (tmp_path / "index.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--exported", "e", "--aug_eval"), "--aug_eval and --is_slide give the trained weights"),
        (("--exported", "e", "--auc_roc"), "--auc_roc does not work with"),
        (("--model_path", "m", "--runtime", "openvino"), "need --exported"),
        (("--model_path", "m", "--worst", "-1"), "--worst must be at least 0, got -1"),
    ],
)
def test_val_says_what_does_not_go_together(capsys, flags, message):
    assert main(["val", "--config", "c.yml", *flags]) == 1
    assert message in capsys.readouterr().err


def test_export_of_other_classes_is_refused(fails, toy, exported, tmp_path):
    config = toy.config(
        tmp_path, val_dataset__num_classes=12, train_dataset__num_classes=12, model__num_classes=12
    )
    message = fails("val", "--config", config, "--exported", exported.folder)
    assert "the exported model has 11 classes, val_dataset has num_classes 12" in message


def test_broken_label_is_named_by_the_report_too(fails, toy, exported, tmp_path):
    root = tmp_path / "street"
    shutil.copytree(toy.root, root)
    label = root / "annot" / "val_0001.png"
    label.write_bytes(label.read_bytes()[:100])
    changes = {
        "val_dataset__dataset_root": str(root),
        "val_dataset__val_path": str(root / "val.txt"),
    }
    config = toy.config(tmp_path, **changes)
    message = fails("val", "--config", config, "--exported", exported.folder)
    assert f"cannot read label {label}" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a report: No such file"),
        ("no json", "is not the metrics.json of a report"),
        ("[1]", "is not the metrics.json of a report"),
        ('{"format": 99}', "has format 99"),
        ('{"format": 1}', "is not the metrics.json of a report"),
    ],
)
def test_compare_refuses_what_is_no_report(report, tmp_path, content, message):
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'metrics.json'} {message}")):
        compare(report.folder, tmp_path)


def test_compare_refuses_other_classes(fails, report, tmp_path):
    numbers = json.loads((report.folder / "metrics.json").read_text())
    numbers["classes"][0]["name"] = "water"
    (tmp_path / "metrics.json").write_text(json.dumps(numbers))
    assert "have different classes" in fails("compare", report.folder, tmp_path)
