from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from paddleseg.core import predict
from paddleseg.transforms import Compose, Normalize
from PIL import Image

from liteseg_plugin.cli import main
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import DataError
from liteseg_plugin.inference.images import (
    Result,
    check_results,
    find_images,
)
from liteseg_plugin.inference.trained import check_image_results, predict_images
from liteseg_plugin.inference.video import open_video

NOT_UTF8 = os.fsdecode(b"caf\xe9.png")
needs_any_bytes = pytest.mark.skipif(
    sys.platform != "linux", reason="names that are not UTF-8 exist on Linux"
)


def pictures(folder, *names):
    """Write small pictures, and return the folder as text."""
    encoded = cv2.imencode(".png", np.full((4, 6, 3), 90, np.uint8))[1].tobytes()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded)
    return str(folder)


def names(image_path):
    return [image.name for image in find_images(str(image_path))]


def test_results_of_an_earlier_run_are_not_images(tmp_path):
    results = [f"{name}/a.png" for name in ("added_prediction", "pseudo_color_prediction")]
    folder = pictures(tmp_path, "a.png", *results, "legend.png", "sub/added_prediction/b.png")
    assert names(folder) == ["a.png", "sub/added_prediction/b.png"]


def test_folder_gives_images_of_every_suffix_in_order(tmp_path):
    wanted = ["A.Png", "b.webp", "c.TIF", "d.tiff", "e.bmp", "f.jpeg", "g.JPG", "sub/h.png"]
    folder = pictures(tmp_path, *wanted, ".hidden.png", ".ipynb_checkpoints/a.png", "text.txt")
    assert names(folder) == wanted
    assert [image.path for image in find_images(folder)] == [f"{folder}/{name}" for name in wanted]


@pytest.mark.parametrize("name", ["a.webp", "a.TIF", "a.Png"])
def test_image_alone_is_no_list(tmp_path, name):
    pictures(tmp_path, name)
    assert find_images(str(tmp_path / name)) == [(str(tmp_path / name), name)]


def test_list_names_images_relative_to_its_folder(tmp_path, monkeypatch):
    pictures(tmp_path, "sub/a.png", "b.png")
    content = "\ufeffsub/a.png annot/a.png\r\n\r\nb.png\tlabel.png\nb.png\n"
    (tmp_path / "list.txt").write_bytes(content.encode())
    assert names(tmp_path / "list.txt") == ["sub/a.png", "b.png", "b.png"]
    monkeypatch.chdir(tmp_path)
    assert find_images("list.txt")[0] == ("sub/a.png", "sub/a.png")


def test_separator_of_a_list_lets_names_have_spaces(tmp_path):
    pictures(tmp_path, "a photo.png", "b.png")
    (tmp_path / "list.txt").write_text("a photo.png,annot/a photo.png\nb.png\n")
    found = find_images(str(tmp_path / "list.txt"), ",")
    assert [image.name for image in found] == ["a photo.png", "b.png"]


def test_names_of_a_list_stay_inside_the_results_folder(tmp_path):
    pictures(tmp_path, "lists/a.png", "other/b.png")
    paths = [
        tmp_path / "lists" / "a.png",
        "../other/b.png",
        tmp_path / "other" / "b.png",
        "./a.png",
    ]
    (tmp_path / "lists" / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    assert names(tmp_path / "lists" / "list.txt") == [
        *("a.png", "other/b.png", "other/b.png", "a.png")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "image path not found: .*thing"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "thing is neither an image, a video, a folder nor a list"),
        (b"batch_size: 2\niters: 3\n", "thing is neither an image, a video, a folder nor a list"),
        (b" \n\n", "list .*thing is empty"),
        (b"there.png\ngone.png\n", "line 2 of list .*thing: image not found: .*gone.png"),
    ],
)
def test_what_names_no_images(tmp_path, content, message):
    pictures(tmp_path, "there.png")
    if content is not None:
        (tmp_path / "thing").write_bytes(content)
    with pytest.raises(DataError, match=message):
        find_images(str(tmp_path / "thing"))


def test_folder_without_images(tmp_path):
    (tmp_path / "text.txt").touch()
    with pytest.raises(DataError, match=rf"no images in folder {tmp_path}; .*\.webp"):
        find_images(str(tmp_path))


def test_result_that_is_an_image_or_the_result_of_another(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    os.symlink(tmp_path / "a.png", tmp_path / "link.png")
    a, b, link, new = (str(tmp_path / name) for name in ("a.png", "b.png", "link.png", "new.png"))
    for target in (a, link):
        with pytest.raises(DataError, match=rf"the result of {b} would overwrite image {a}"):
            check_results([a, b], [Result(target, b)])
    with pytest.raises(DataError, match=rf"{a} and {b} have the same result file {new}"):
        check_results([a, b], [Result(new, a), Result(new, b)])
    check_results([a, a, link], [Result(new, a), Result(new, a), Result(new, link)])


@needs_any_bytes
def test_video_whose_name_opencv_cannot_take(tmp_path):
    with pytest.raises(DataError, match=r"caf\\udce9.png is not UTF-8"):
        open_video(f"{tmp_path}/{NOT_UTF8}", "out")
    with pytest.raises(DataError, match=r"would overwrite image .*added_prediction/a\.mp4"):
        open_video("out/added_prediction/a.mp4", "out")


@pytest.mark.parametrize("where", ["img", "./img/", "img/list.txt", "img/1.png"])
def test_predicted_files_are_those_of_paddleseg(pointwise, tmp_path, monkeypatch, where):
    pictures(tmp_path, "img/img1.png", "img/1.png", "img/sub_img/2.png", "other/3.png")
    for path in tmp_path.rglob("*.png"):
        pixels = np.random.default_rng(len(path.name)).integers(0, 256, (9, 7, 3))
        cv2.imwrite(str(path), pixels.astype(np.uint8))
    (tmp_path / "img" / "list.txt").write_text("img1.png\n./1.png\nsub_img/2.png\n../other/3.png\n")
    monkeypatch.chdir(tmp_path)
    network, transforms = pointwise(), Compose([Normalize()])
    classes = [ClassInfo(f"class {n}", (n, 40 * n, 255 - n)) for n in range(5)]
    images = find_images(where)
    check_image_results(images, "ours")
    legend = predict_images(network, transforms, images, classes, "ours", {})
    assert cv2.imread(legend).shape[1] == 480
    inside = [image for image in images if "other" not in image.path]
    predict(
        network,
        model_path=None,
        transforms=transforms,
        image_list=[os.path.join(tmp_path, "img", image.name) for image in inside],
        image_dir=f"{tmp_path}/img/",
        save_dir="theirs",
        custom_color=[value for entry in classes for value in entry.color_rgb],
    )
    written = {path.relative_to("theirs") for path in Path("theirs").rglob("*.png")}
    assert len(written) == 2 * len(inside)
    ours = {path.relative_to("ours") for path in Path("ours").rglob("*.png")}
    outside = {
        Path(kind, "other", "3.png") for kind in ("added_prediction", "pseudo_color_prediction")
    }
    assert ours == {*written, Path("legend.png"), *(outside if where.endswith("txt") else ())}
    for path in written:
        assert (Image.open("ours" / path).mode, Image.open("ours" / path).getpalette()) == (
            Image.open("theirs" / path).mode,
            Image.open("theirs" / path).getpalette(),
        )
        np.testing.assert_array_equal(
            np.asarray(Image.open("ours" / path)), np.asarray(Image.open("theirs" / path))
        )


@pytest.fixture()
def refused(toy, tmp_path, capsys):
    """Run `liteseg predict`, which must write nothing; return its message."""

    def refused(image_path, save_dir):
        before = sorted(tmp_path.rglob("*"))
        config = toy.config(tmp_path)
        arguments = ["--config", config, "--model_path", "none", "--device", "cpu"]
        arguments += ["--image_path", image_path, "--save_dir", save_dir]
        assert main(["predict", *map(str, arguments)]) == 1
        assert sorted(tmp_path.rglob("*")) == sorted({*before, config})
        return capsys.readouterr().err

    return refused


def test_predict_refuses_to_overwrite(refused, tmp_path):
    pictures(tmp_path / "in", "a.jpg", "a.png")
    message = refused(tmp_path / "in", tmp_path / "out")
    assert f"{tmp_path}/in/a.jpg and {tmp_path}/in/a.png have the same result file" in message
    pictures(tmp_path / "added_prediction", "b.png")
    message = refused(tmp_path / "added_prediction", tmp_path)
    assert f"would overwrite image {tmp_path}/added_prediction/b.png" in message
    pictures(tmp_path / "drawn", "legend.png")
    message = refused(tmp_path / "drawn" / "legend.png", tmp_path / "drawn")
    assert f"the legend would overwrite image {tmp_path}/drawn/legend.png" in message


@needs_any_bytes
def test_predict_refuses_names_that_end_the_process(refused, tmp_path):
    pictures(tmp_path / "in", NOT_UTF8)
    assert r"caf\udce9.png is not UTF-8" in refused(tmp_path / "in", tmp_path / "out")
