"""The C++ program: label maps of Python's on the same runtime, errors, sanitizers."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from liteseg_plugin import Predictor
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import deploy_sha256

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[2]
LABEL_MAPS, OVERLAYS = "pseudo_color_prediction", "added_prediction"
CLASSES = [ClassInfo(f"class {n}", (40 * n, 255 - 40 * n, 7 * n)) for n in range(5)]


def build(made_once, *arguments):
    """Build the program, or skip where it cannot be; in CI that is a failure."""
    missing = [name for name in ("cmake", "c++", "pkg-config") if shutil.which(name) is None]
    if not missing:
        wanted = ("opencv4", "yaml-cpp", "libpng", "libcrypto")
        found = subprocess.run(["pkg-config", "--print-errors", "--exists", *wanted])
        missing = [] if found.returncode == 0 else ["a development package"]
    if missing:
        reason = f"no {', '.join(missing)}; see cpp/README.md for the packages"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    pytest.importorskip("openvino")

    def make(folder):
        command = ["bash", REPOSITORY / "scripts/build_cpp.sh", *arguments]
        result = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable}
        )
        assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
        assert "warning" not in result.stdout + result.stderr

    name = "build-sanitize" if arguments else "build"
    made_once(f"cpp-{name}", make)
    program = REPOSITORY / "cpp" / name / "liteseg"

    def infer(exported, image_path, save_dir, *more, environment=None):
        paths = ("--config", exported, "--image_path", image_path, "--save_dir", save_dir)
        return subprocess.run(
            [str(word) for word in (program, "infer", *paths, *more)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=300,
            env={**os.environ, **(environment or {})},
        )

    return infer


@pytest.fixture(scope="module")
def infer(made_once):
    return build(made_once)


@pytest.fixture(scope="module")
def tiny(pointwise, tmp_path_factory):
    """Return a function that exports a small network, one for each set of settings."""
    made = {}

    def export(op="argmax", transforms=({"type": "Normalize"},)):
        key = op, json.dumps(transforms)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("tiny")
            settings = {"transforms": transforms, "output_op": op, "onnx_opset": 13}
            export_model(pointwise(), made[key], classes=CLASSES, **settings)
        return made[key]

    return export


@pytest.fixture(scope="module")
def pictures(toy, tmp_path_factory):
    """A folder with a frame of every kind: format, depth, channels, size, orientation."""
    folder = tmp_path_factory.mktemp("pictures")
    frame = cv2.imread(str(next(toy.root.glob("images/**/*.[jp][pn]g"), None)))
    kinds = {
        "colour.png": frame,
        "colour.bmp": frame,
        "odd.jpg": frame[:-3, :-5],
        "grey.png": frame[..., 0],
        "grey.jpg": frame[..., 1],
        "sixteen_bit.png": frame.astype("uint16") * 257 + 3,
        "sixteen_bit_grey.tif": frame[..., 2].astype("uint16") * 255 + 9,
        "transparent.png": np.dstack([frame, frame[..., 0]]),
        "lossless.webp": frame,
        "below/one_pixel.png": frame[:1, :1],
        "below/wide.png": np.tile(frame[:20], (1, 8, 1)),
    }
    for name, image in kinds.items():
        path = folder / Path(name).parent / f"{Path(name).stem}_{Path(name).suffix[1:]}"
        path.parent.mkdir(exist_ok=True)
        path = path.with_suffix(Path(name).suffix)
        assert cv2.imwrite(str(path), image)
    colour = Image.fromarray(frame[..., ::-1].copy())
    colour.save(folder / "subsampled.jpg", quality=85, subsampling=2, progressive=True)
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    colour.convert("P").save(folder / "palette.png", transparency=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("jpg", "png"):
        colour.save(folder / f"turned_{suffix}.{suffix}", exif=exif)
    return folder


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*.*") if path.is_file())


def assert_same_pixels(first, second):
    with Image.open(first) as one, Image.open(second) as other:
        assert (one.mode, one.getpalette()) == (other.mode, other.getpalette()), first
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=str(first))


def test_files_are_those_of_python(run, infer, exported, pictures, tmp_path):
    python, cpp = tmp_path / "python", tmp_path / "cpp"
    paths = ("--config", exported.folder, "--image_path", pictures)
    run("infer", *paths, "--save_dir", python, "--runtime", "openvino")
    result = infer(exported.folder, pictures, cpp, "--json")
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["images"]) == 16
    (python / "manifest.jsonl").unlink()
    written = files_of(python)
    assert files_of(cpp) == written and len(written) == 33  # with the legend
    for name in written:
        assert_same_pixels(python / name, cpp / name)


@pytest.mark.parametrize(
    ("op", "transforms"),
    [
        ("confidence", [{"type": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.2]}]),
        ("softmax", [{"type": "Normalize"}]),
        ("none", [{"type": "ResizeByLong", "long_size": 64}, {"type": "Normalize"}]),
        (
            "argmax",
            [
                {"type": "Padding", "target_size": [1100, 200], "im_padding_value": 3},
                {"type": "Normalize"},
                {
                    "type": "Resize",
                    "target_size": [75, 50],
                    "keep_ratio": True,
                    "size_divisor": 8,
                    "interp": "AREA",
                },
            ],
        ),
    ],
)
def test_every_output_op_and_transform(infer, tiny, pictures, tmp_path, op, transforms):
    folder = tiny(op, transforms)
    more = () if op == "argmax" else ("--save_confidence", "--min_confidence", "0.4")
    result = infer(folder, pictures, tmp_path, *more)
    assert result.returncode == 0, result.stderr
    predictor = Predictor(folder, "openvino", "cpu")
    for name in ("odd_jpg.jpg", "sixteen_bit_png.png"):
        found = predictor.predict(pictures / name)
        found = found if op == "argmax" else found.confident(0.4)
        label = np.asarray(Image.open((tmp_path / LABEL_MAPS / name).with_suffix(".png")))
        # OpenCV of the distribution interpolates without Intel's IPP, with 0.01 of 255 between.
        linear = any(t["type"].startswith("ResizeBy") for t in transforms)
        assert (label != found.labels).mean() <= (0.001 if linear else 0), name
        if op != "argmax":
            written = np.asarray(Image.open((tmp_path / "confidence" / name).with_suffix(".png")))
            assert np.abs(written - found.confidence * 255).max() < (1 if linear else 0.51)


BOMB = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9) if n else 1}]\n" for n in range(9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["Deploy"].update(channels=4), "has the key 'channels', which this program"),
        (lambda d: d["liteseg"].update(image={"channels": 4}), "this program segments colour"),
        (lambda d: d["liteseg"].update(image={"max_value": 4095}), "images of 8 bits"),
        (lambda d: d.update(more=1), "has the key 'more', which this program does not know"),
        (lambda d: d["Deploy"].update(model="../model.json"), "which is not a file beside it"),
        (lambda d: d["liteseg"].update(onnx="/etc/passwd"), "which is not a file beside it"),
        (lambda d: d["Deploy"].update(params="gone"), "that it names is missing"),
        (lambda d: d["Deploy"].update(input_shape=[1, 4, 8, 8]), "images of 3 channels"),
        (lambda d: d["Deploy"].update(output_op="softmax"), "does not fit output_op"),
        (lambda d: d["Deploy"].update(output_op="scores"), "output_op 'scores' is unknown"),
        (lambda d: d["Deploy"].pop("transforms"), "lacks the key 'transforms'"),
        (lambda d: d["Deploy"]["transforms"].append({"type": "RandomNoise"}), "'RandomNoise'"),
        (lambda d: d["Deploy"]["transforms"][0].update(to_rgb=False), "has the key 'to_rgb'"),
        (lambda d: d["Deploy"]["transforms"][0].update(std=[0.0]), "must not be 0"),
        (lambda d: d["Deploy"]["transforms"][0].update(mean="0.5"), "one or three numbers"),
        (lambda d: d["liteseg"].update(evaluation_scale=float("nan")), "must be a number"),
        (lambda d: d["liteseg"]["classes"].append({"name": 1}), "lacks the key 'color'"),
        (lambda d: d["liteseg"]["sha256"].update({"model.onnx": "0" * 64}), "export again"),
        (lambda d: BOMB, "more than 50000 values"),
        (lambda d: "a: &a [*a]\n", "alias"),
        (lambda d: "[" * 5000, "levels"),
        (lambda d: "Deploy: {model: a, model: b}\n", "has the key 'model' twice"),
        (lambda d: "Deploy: [\n", "not valid YAML"),
        (lambda d: "\0", "deploy.yaml"),
        (lambda d: "", "empty"),
    ],
)
def test_wrong_deploy_yaml_is_one_error(infer, tiny, pictures, tmp_path, change, message):
    exported = shutil.copytree(tiny(), tmp_path / "exported")
    deploy = exported / "deploy.yaml"
    content = yaml.safe_load(deploy.read_text())
    del content["liteseg"]["sha256"]["deploy.yaml"]  # or each change would be the same error
    text = change(content)
    deploy.write_text(text if isinstance(text, str) else yaml.safe_dump(content))
    assert_error(infer(exported, pictures, tmp_path / "out"), message)
    assert not list(tmp_path.glob("out/*/*"))


def test_deploy_yaml_is_what_was_exported(infer, tiny, pictures, tmp_path):
    """As Python reads it: names in every script, and numbers however long."""
    exported = shutil.copytree(tiny(), tmp_path / "exported")
    deploy = exported / "deploy.yaml"
    content = yaml.safe_load(deploy.read_text())
    content["liteseg"]["provenance"] = {
        "names": ['"quoted"', "tab\t", "stra\xdfe", "\U0001f697", "null", "1.5", "x " * 100, ""],
        "numbers": [0, -7, 0.1, 1e-5, 0.0001, 1e15, 1e16, 1.25e22, 5e-324, -1 / 3, 123456789.125],
        "others": [None, True, False, [], {}],
    }
    content["liteseg"]["sha256"]["deploy.yaml"] = deploy_sha256(content)
    image = pictures / "odd_jpg.jpg"
    deploy.write_text(yaml.safe_dump(content))
    assert infer(exported, image, tmp_path / "out").returncode == 0
    content["Deploy"]["transforms"].append({"type": "Resize", "target_size": [32, 32]})
    deploy.write_text(yaml.safe_dump(content))
    assert_error(infer(exported, image, tmp_path / "out"), "deploy.yaml is damaged or was edited")
    del content["liteseg"]["sha256"]["deploy.yaml"]
    deploy.write_text(yaml.safe_dump(content))
    assert infer(exported, image, tmp_path / "out").returncode == 0


def assert_error(result, message):
    said = [line for line in result.stderr.splitlines() if "libpng" not in line]
    assert result.returncode == 1, result
    assert len(said) == 1 and said[0].startswith("error: ") and message in said[0], result.stderr


def hostile_images(folder):
    """Write images that must be refused; return what each error says."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    encoded = {s: cv2.imencode(s, noise)[1].tobytes() for s in (".jpg", ".png", ".webp", ".tif")}
    bomb = io.BytesIO()
    Image.new("1", (40000, 40000)).save(bomb, "PNG")
    no_image = "it is not an image, or is truncated"
    files = {f"truncated{s}": (data[: len(data) // 2], no_image) for s, data in encoded.items()}
    files["cut.jpg"] = encoded[".jpg"][:-2] + b"appended", no_image
    files["bomb.png"] = bomb.getvalue(), "is too large: the limit is 178956970 pixels in all"
    files["text.png"] = b"no picture", no_image
    files["pointer.png"] = b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"
    files["empty.png"] = b"", no_image
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    return {name: message for name, (_, message) in files.items()}


def test_hostile_images_are_one_error_each(infer, tiny, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    messages = hostile_images(images)
    for name, message in messages.items():
        result = infer(tiny(), images / name, tmp_path / "out")
        assert_error(result, message)
        assert name in result.stderr
    assert_error(infer(tiny(), images / "gone.png", tmp_path / "out"), "image path not found")
    small = images / "small.jpg"
    data = cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8))[1].tobytes()
    small.write_bytes(data + b"appended by a camera")
    assert infer(tiny(), small, tmp_path / "out").returncode == 0
    result = infer(tiny(), small, tmp_path / "out", "--max_pixels", "1199")
    assert_error(result, "the limit is 1199 pixels in all, and --max_pixels sets it")

    # The others are segmented where errors are skipped; nothing is overwritten.
    result = infer(tiny(), images, tmp_path / "all", "--on_error", "skip", "--json")
    assert result.returncode == 1 and "have the same result file" in result.stderr
    for name in messages:
        (images / name).rename(images / f"{Path(name).stem}_{name[-3:]}{Path(name).suffix}")
    result = infer(tiny(), images, tmp_path / "all", "--on_error", "skip", "--json")
    document = json.loads(result.stdout)
    assert [Path(entry["image"]).name for entry in document["images"]] == ["small.jpg"]
    assert len(document["failed"]) == len(messages)


def test_changed_and_truncated_models_are_refused(infer, tiny, pictures, tmp_path):
    exported = shutil.copytree(tiny(), tmp_path / "exported")
    for name in ("model.onnx", "model.pdiparams"):
        content = (exported / name).read_bytes()
        for wrong in (content[:-1], bytes([content[0] ^ 1]) + content[1:]):
            (exported / name).write_bytes(wrong)
            result = infer(exported, pictures, tmp_path / "out")
            assert_error(result, f"{name} is not the exported file; export again")
        (exported / name).write_bytes(content)


def test_times_are_printed_and_nothing_is_written(infer, tiny, pictures, tmp_path):
    for timed in ("engine", "call", "file"):
        more = ("--timed", timed, "--warmup", 1, "--repeats", 3)
        result = infer(tiny(), pictures / "odd_jpg.jpg", tmp_path / "out", *more, "--json")
        document = json.loads(result.stdout)
        assert 0 < document["min_ms"] <= document["median_ms"] <= document["p95_ms"]
        assert document["timed"] == timed and document["repeats"] == 3
    assert not (tmp_path / "out").exists()


def test_mistakes_in_flags_are_usage_errors(infer, tiny, pictures, tmp_path):
    for more in (("--threads", 2), ("--precision",), ("--on_error", "no"), ("--max_pixels", "0")):
        result = infer(tiny(), pictures, tmp_path / "out", *more)
        assert result.returncode == 2 and more[0] in result.stderr
        if more[0] == "--on_error":
            assert "invalid choice: no; this program has stop, skip" in result.stderr
    assert_error(infer(tiny(), pictures, tmp_path, "--precision", "fp64"), "does not compute in")


def test_sanitizers_find_nothing(made_once, tiny, pictures, tmp_path):
    """Good and hostile images, and broken bytes in deploy.yaml."""
    infer = build(made_once, "--sanitize")
    images = shutil.copytree(pictures, tmp_path / "images")
    hostile = images / "hostile"
    hostile.mkdir()
    for name in hostile_images(hostile):
        (hostile / name).rename(hostile / f"{Path(name).stem}_{name[-3:]}{Path(name).suffix}")
    rng = np.random.default_rng(0)
    for path in sorted(pictures.glob("*.*")):  # with single wrong bytes
        content = bytearray(path.read_bytes())
        for place in rng.integers(0, len(content), 5):
            content[place] ^= 1 << int(rng.integers(8))
        (hostile / f"broken_{path.name}").write_bytes(content)
    # What OpenVINO itself does not free is not counted.
    options = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}

    def clean(result):
        for word in ("Sanitizer", "runtime error"):
            assert word not in result.stderr, result.stderr[-4000:]
        assert result.returncode in (0, 1), result
        return result

    for op in ("argmax", "none"):
        more = ("--on_error", "skip", *(() if op == "argmax" else ("--save_confidence",)))
        result = infer(tiny(op), images, tmp_path / op, *more, environment=options)
        assert clean(result).returncode == 0, result.stderr
    exported = shutil.copytree(tiny(), tmp_path / "exported")
    deploy = exported / "deploy.yaml"
    content = deploy.read_bytes()
    for _ in range(12):
        broken = bytearray(content)
        for place in rng.integers(0, len(broken), 3):
            broken[place] = int(rng.choice(bytearray(b"[]{}&*!|>'\"\n:-#\x00\xff 9")))
        deploy.write_bytes(broken)
        clean(infer(exported, pictures / "odd_jpg.jpg", tmp_path / "out", environment=options))
