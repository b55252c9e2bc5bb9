"""Videos and cameras, as `liteseg infer` takes them."""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg_plugin import Predictor
from liteseg_plugin.datasets.classes import numbered_classes
from liteseg_plugin.errors import DataError, LitesegError
from liteseg_plugin.inference import video
from liteseg_plugin.inference.segmentation import Segmentation

FPS, COUNT = 10, 40


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (160, 96))
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        picture = cv2.resize(rng.integers(0, 255, (6, 10, 3), np.uint8), (160, 96))
        picture[:16, 80:] = number * 6  # which frame it is
        writer.write(picture)
    writer.release()
    return path


def segment(exported, frames, folder):
    predictor = Predictor(exported.folder)
    return video.segment_video(predictor, predictor.exported.named_classes(), frames, folder)


@pytest.fixture()
def cut(clip, tmp_path):
    path = tmp_path / "cut.avi"
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    return path


@pytest.fixture()
def camera(monkeypatch):
    """A camera that delivers as fast as it is read, and then is unplugged."""

    class Camera:
        left = 5

        def __init__(self, number):
            assert number == 3

        def isOpened(self):  # noqa: N802 - OpenCV's
            return True

        def get(self, _):
            return 0.0

        def read(self):
            self.left -= 1
            return self.left >= 0, np.zeros((64, 64, 3), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        whole, frame = capture.read()
        if not whole:
            return frames
        frames.append(frame)


def test_confidence_of_each_frame_is_written(clip, tmp_path):
    classes = numbered_classes(3)

    def segment(frame):
        labels = np.zeros(frame.shape[:2], np.int32)
        return Segmentation(frame, labels, classes, np.full(labels.shape, 0.6, np.float32))

    frames = video.open_video(str(clip), tmp_path)
    results = video.segment_video(segment, classes, frames, tmp_path, save_confidence=True)
    paths = [result.confidence for result in results]
    assert paths[-1] == str(tmp_path / "confidence" / "clip" / f"{COUNT - 1:06d}.png")
    assert len(paths) == COUNT
    assert set(np.unique(cv2.imread(paths[7], cv2.IMREAD_UNCHANGED))) == {153}


def test_confidence_of_a_video_needs_probabilities(fails, exported, clip, tmp_path):
    command = ("infer", "--config", exported.folder, "--image_path", clip, "--save_dir", tmp_path)
    assert "--output_op confidence" in fails(*command, "--save_confidence")
    assert not (tmp_path / "added_prediction").exists()
    assert "are for images, not for videos" in fails(*command, "--save_polygons")


def test_video_becomes_a_video_and_label_maps(run, exported, clip, tmp_path):
    result = run(
        *("infer", "--config", exported.folder, "--image_path", clip),
        *("--save_dir", tmp_path, "--save_labels", "--json"),
    )
    document = json.loads(result.stdout)
    assert document["frames"] == COUNT
    assert document["frames_per_second"] > 0
    assert "frame/s" in result.stderr  # the progress bar's
    written = frames_of(document["overlay"])
    assert len(written) == COUNT
    assert cv2.VideoCapture(document["overlay"]).get(cv2.CAP_PROP_FPS) == FPS
    assert written[0].shape[1] == 160 and written[0].shape[0] > 96  # a legend below
    brightness = [frame[4:12, 100:].mean() for frame in written]
    assert brightness[35] > brightness[20] > brightness[5] + 10  # in order
    corner = [frame[:24, :80] for frame in written]
    assert (corner[20].min(axis=2) > 180).sum() > 20  # the frame rate, in white

    predictor = Predictor(exported.folder)
    labels = sorted((tmp_path / "pseudo_color_prediction" / "clip").iterdir())
    assert [path.name for path in labels] == [f"{n:06d}.png" for n in range(COUNT)]
    for number, frame in list(enumerate(frames_of(clip)))[::13]:
        assert np.array_equal(np.asarray(Image.open(labels[number])), predictor(frame))


def test_label_maps_only_when_asked_for(exported, clip, tmp_path):
    results = segment(exported, video.Frames(str(clip)), tmp_path)
    assert next(results).label is None
    results.close()
    assert [path.name for path in tmp_path.iterdir()] == ["added_prediction"]


def test_stopping_early_leaves_a_video(exported, clip, tmp_path):
    results = segment(exported, video.Frames(str(clip)), tmp_path)
    taken = [next(results) for _ in range(5)]
    results.close()
    assert 5 <= len(frames_of(taken[0].overlay)) < COUNT


def test_video_that_is_cut_short(fails, exported, cut, tmp_path):
    message = fails(
        *("infer", "--config", exported.folder, "--image_path", cut),
        *("--save_dir", tmp_path / "out"),
    )
    assert f"video {cut} is truncated: it ends at " in message
    read = len(frames_of(cut))
    assert 0 < read < COUNT
    assert f"{read / FPS} s of 4.0 s; the {read} frames before are written" in message
    assert len(frames_of(tmp_path / "out" / "added_prediction" / "cut.mp4")) == read


@pytest.mark.parametrize("content", [b"", b"no video"])
def test_file_that_is_no_video(content, tmp_path):
    path = tmp_path / "text.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read video .*text.mp4: it is not a video"):
        video.Frames(str(path))


def test_video_that_is_not_there():
    with pytest.raises(DataError, match=r"video not found: gone.mp4"):
        video.Frames("gone.mp4")


def test_camera_that_is_not_there(fails, exported):
    message = fails("infer", "--config", exported.folder, "--image_path", "camera:97")
    assert "cannot open camera 97: it is missing" in message


def test_camera_without_a_number():
    with pytest.raises(DataError, match="'camera:front' is not a camera; the first is camera:0"):
        video.Frames("camera:front")


def test_camera_that_stops(camera, exported, tmp_path):
    frames = video.Frames("camera:3")
    assert (frames.stated, frames.fps) == (None, 25)
    results = []
    with pytest.raises(DataError, match="camera:3 gave no more frames after 5"):
        results.extend(segment(exported, frames, tmp_path))
    assert (tmp_path / "added_prediction" / "camera_3.mp4").stat().st_size > 0


def test_size_that_changes_on_the_way(camera):
    frames = video.Frames("camera:3")
    frames.read()
    frames._capture.read = lambda: (True, np.zeros((32, 64, 3), np.uint8))
    with pytest.raises(DataError, match="frame 1 has another size"):
        frames.read()


def test_showing_needs_a_display(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LitesegError, match="--show needs a display"):
        video.require_display()
    monkeypatch.setenv("DISPLAY", ":0")
    video.require_display()


def test_predict_takes_a_video_too(run, trained, clip, tmp_path):
    result = run(
        *("predict", "--config", trained.config, "--model_path", trained.weights),
        *("--device", "cpu", "--image_path", clip, "--save_dir", tmp_path),
    )
    assert "Overlays are in" in result.text
    overlays = frames_of(tmp_path / "added_prediction" / "clip.mp4")
    assert len(overlays) == COUNT
    height, width = overlays[0].shape[:2]
    assert width == 160 and height > 96  # the legend is below
