"""The streaming evaluation, against PaddleSeg's metrics on the same predictions."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import paddle
import pytest
from paddleseg import core
from paddleseg.datasets import Dataset
from paddleseg.transforms import Compose, Normalize
from paddleseg.utils import metrics

from liteseg_plugin.datasets import loading
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import DataError
from liteseg_plugin.evaluation.evaluate import Evaluated, evaluate, trained
from liteseg_plugin.evaluation.result import Evaluation, ImageScore
from liteseg_plugin.integration.samples import CheckedCompose
from liteseg_plugin.metrics.confusion import calculate_area

CAMVID = Path(__file__).parents[3] / "shared" / "camvid"


class FakeDataset:
    """Labels of two classes; sample i is predicted wrong in its first i pixels."""

    num_classes, ignore_index, dataset_root = 2, 255, "data"

    def __init__(self, length):
        self.file_list = [[f"data/images/{i}.png", f"data/annot/{i}.png"] for i in range(length)]
        self.alive, self.most_alive = weakref.WeakSet(), 0
        self._lock = threading.Lock()

    def __len__(self):
        return len(self.file_list)

    def __getitem__(self, index):
        label = np.zeros((1, 6, 7), "uint8")
        with self._lock:
            sample = SampleDict(img=np.zeros((3, 6, 7), "float32"), label=label, index=index)
            self.alive.add(sample)
            self.most_alive = max(self.most_alive, len(self.alive))
        return sample


class SampleDict(dict):
    __hash__ = object.__hash__


def first_pixels_wrong(sample):
    labels = np.zeros((6, 7), "int32")
    labels.flat[: sample["index"]] = 1
    return labels


def nothing(sample):
    return np.zeros((6, 7), "int32")


@pytest.mark.parametrize("parallel", [1, 3])
def test_evaluate_by_hand(parallel):
    dataset = FakeDataset(3)
    numbers = evaluate(Evaluated(dataset, first_pixels_wrong, parallel))
    assert numbers.confusion_matrix == [[123, 3, 0], [0, 0, 0], [0, 0, 0]]
    assert numbers.class_iou == [123 / 126, 0]
    assert numbers.accuracy == 123 / 126
    assert numbers.images == 3
    assert [s.accuracy for s in numbers.image_scores] == [1, 41 / 42, 40 / 42]
    assert [s.miou for s in numbers.image_scores] == [1, 41 / 42 / 2, 40 / 42 / 2]
    assert numbers.image_scores[0] == ImageScore(
        image="images/0.png",
        label="annot/0.png",
        miou=1,
        accuracy=1,
        boundary_f1=None,  # neither truth nor prediction has a boundary
    )
    assert numbers.worst_images(2) == [2, 1]


@pytest.mark.parametrize("parallel", [1, 2])
def test_evaluate_holds_few_samples_at_a_time(parallel):
    dataset = FakeDataset(200)
    dataset.file_list = dataset.file_list[:40] * 5
    gc.disable()  # reference counts alone must free the samples
    try:
        evaluate(Evaluated(dataset, nothing, parallel), threads=2)
    finally:
        gc.enable()
    assert dataset.most_alive <= 12


def test_evaluate_without_a_pixel_that_counts_has_no_numbers():
    dataset = FakeDataset(2)
    dataset.ignore_index = 0
    numbers = evaluate(Evaluated(dataset, first_pixels_wrong))
    assert numbers.accuracy is numbers.kappa is numbers.boundary_f1 is None
    assert [s.miou for s in numbers.image_scores] == [None, None]
    assert numbers.worst_images(2) == []


def test_evaluate_refuses_an_empty_list():
    with pytest.raises(DataError, match="no images to evaluate on"):
        evaluate(Evaluated(FakeDataset(0), first_pixels_wrong))


def test_evaluate_passes_on_errors_of_its_threads():
    dataset = FakeDataset(5)
    with pytest.raises(ValueError, match="differ in shape"):
        evaluate(Evaluated(dataset, lambda sample: np.zeros((2, 2), "int32")))


@pytest.mark.skipif(
    not CAMVID.is_dir(),
    reason="the CamVid frames lie beside a checkout for development only (research licence)",
)
def test_evaluate_equals_paddleseg_on_real_frames():
    dataset = Dataset(
        transforms=[],
        dataset_root=str(CAMVID),
        num_classes=11,
        mode="val",
        val_path=str(CAMVID / "val.txt"),
    )
    dataset.file_list = dataset.file_list[::8]

    def segment(sample):
        """Predict the truth, moved and with one class lost, so that there is no perfect score."""
        labels = np.roll(np.where(sample["label"][0] == 255, 3, sample["label"][0]), 3, axis=1)
        return np.where(labels == 7, 1, labels).astype("int32")

    numbers = evaluate(Evaluated(dataset, segment))
    areas = 0
    for sample in (dataset[i] for i in range(len(dataset))):
        tensors = (paddle.to_tensor(x[np.newaxis]) for x in (segment(sample), sample["label"][0]))
        areas += np.stack([area.numpy() for area in calculate_area(*tensors, 11)])
    areas = [paddle.to_tensor(area) for area in areas]
    class_iou, miou = metrics.mean_iou(*areas)
    accuracy, precision, recall = metrics.class_measurement(*areas)
    class_dice, dice = metrics.dice(*areas)
    expected = SimpleNamespace(
        miou=miou,
        class_iou=class_iou,
        accuracy=accuracy,
        class_precision=precision,
        class_recall=recall,
        dice=dice,
        class_dice=class_dice,
        kappa=metrics.kappa(*areas),
    )
    for name, value in vars(expected).items():
        np.testing.assert_allclose(getattr(numbers, name), value, atol=1e-4, err_msg=name)
    assert 0.5 < numbers.miou < 0.99
    assert 0.3 < numbers.boundary_f1 < 1


def test_labels_of_any_depth_give_the_same_scores(tmp_path, pointwise):
    """PaddleSeg's evaluation, ours, and that of an export's transforms read the same label."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, (24, 32))
    cv2.imwrite(str(tmp_path / "0.png"), rng.integers(0, 256, (24, 32, 3), np.uint8))
    (tmp_path / "val.txt").write_text("0.png label.png\n")
    network, scores = pointwise(), {}
    for kind in (np.uint8, np.uint16):
        cv2.imwrite(str(tmp_path / "label.png"), label.astype(kind))
        for cls in (loading.Dataset, Dataset):
            dataset = cls(
                "val", str(tmp_path), [Normalize()], 5, val_path=str(tmp_path / "val.txt")
            )
            if cls is Dataset:  # as the commands build PaddleSeg's own
                dataset.transforms = CheckedCompose(dataset.transforms, (5, 255))
            scores[kind, cls, "theirs"] = core.evaluate(network, dataset, print_detail=False)[0]
            scores[kind, cls, "ours"] = evaluate(trained(network, dataset, {})).miou
            # As for an export: its transforms are not the data set's, and serve others, too.
            copied, compose = copy.copy(dataset), Compose([Normalize()])
            checked = isinstance(dataset.transforms, CheckedCompose)
            copied.transforms = dataset.transforms.around(compose) if checked else compose
            scores[kind, cls, "export"] = evaluate(trained(network, copied, {})).miou
            assert len(compose.transforms) == 1
    assert len(scores) == 12 and 0 < max(scores.values())
    np.testing.assert_allclose(list(scores.values()), scores[np.uint8, Dataset, "theirs"])


def test_tables_give_the_terminal_no_orders():
    numbers = evaluate(Evaluated(FakeDataset(2), first_pixels_wrong))
    classes = [ClassInfo(name, (0, 0, 0)) for name in ("a\x1b[2J", "b\nmIoU 100")]
    scores, empty, header, *rows = dataclasses.replace(numbers, classes=classes).text().split("\n")
    assert (scores.split(",")[0], empty) == ("2 images", "")
    assert [row.split("  ")[0] for row in rows] == [r"a\x1b[2J", r"b\nmIoU 100"]
    assert len({len(line) for line in (header, *rows)}) == 1


def test_evaluation_is_read_as_it_was_saved(tmp_path):
    numbers = evaluate(Evaluated(FakeDataset(3), first_pixels_wrong), model="m", config="c.yml")
    numbers.save(tmp_path)
    assert Evaluation.read(tmp_path) == numbers
    assert [entry.name for entry in numbers.classes] == ["0", "1"]
    document = {**numbers.to_json(), "format": 1}
    del document["kappa"]
    (tmp_path / "metrics.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"is not the metrics\.json of a report: .*kappa"):
        Evaluation.read(tmp_path)
