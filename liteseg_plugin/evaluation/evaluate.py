"""Evaluate on a data set, image by image, with decoding, inference and counting overlapped."""

from __future__ import annotations

import copy
import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddleseg.datasets import Dataset
from paddleseg.utils import metrics

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.classes import numbered_classes
from liteseg_plugin.errors import DataError
from liteseg_plugin.evaluation.result import Evaluation, ImageScore
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.inference.network import class_name, segment_by
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.inference.tiled import segment_preprocessed
from liteseg_plugin.inference.tiles import Tiling
from liteseg_plugin.integration.samples import CheckedCompose
from liteseg_plugin.metrics.boundary import BOUNDARY_TOLERANCE, boundary_f1
from liteseg_plugin.metrics.confusion import areas, count_pixels, ratio, scores
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.system.parallel import prefetch, usable_cpus
from liteseg_plugin.training import processes, validation


@dataclass(frozen=True)
class Evaluated:
    """A data set, and a model that segments its samples.

    Attributes:
        dataset: Gives samples as the model takes them: ``img`` (3, h, w), ``label`` (1, H, W) and
            ``trans_info``; its ``file_list`` names image and label.
        segment: Maps a sample to class indices (H, W).
        parallel: How many samples ``segment`` may be given at a time, each in a thread.
        runtime: What runs the model, as :class:`Evaluation` has it.
        test_config: Scales, flips and sliding window, as in a config.
        classes: Names and colours; empty for numbers.
    """

    dataset: Dataset
    segment: Callable[[dict], np.ndarray]
    parallel: int = 1
    runtime: str = ""
    test_config: dict[str, Any] = field(default_factory=dict)
    classes: Sequence[ClassInfo] = ()


_MOST_ENGINES = 4  # each holds weights and features of its own


def trained(
    network: nn.Layer, dataset: Dataset, test_config: dict, classes: Sequence[ClassInfo] = ()
) -> Evaluated:
    """Evaluate a network of Paddle, as PaddleSeg's ``evaluate`` does.

    Args:
        network: The trained network.
        dataset: A data set of mode ``val``.
        test_config: Scales, flips and sliding window, as in a config.
        classes: Names and colours.
    """
    segment = segment_by(network, test_config)
    return Evaluated(dataset, segment, 1, class_name(network), test_config, classes)


def exported(
    export: ExportedModel,
    dataset: Dataset,
    *,
    runtime: str = "paddle",
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "fp32",
    classes: Sequence[ClassInfo] = (),
    tiling: Tiling | None = None,
) -> Evaluated:
    """Evaluate an exported model, with the transforms that it was exported with.

    On a CPU several engines of fewer threads run side by side: that many images take less time
    than one after the other on all threads.

    Args:
        export: The exported model.
        dataset: A data set of mode ``val``; its own transforms are not used.
        runtime: One of ``runtimes.catalog.RUNTIMES``.
        device: ``auto``, ``cpu`` or ``gpu``.
        threads: CPU threads of all engines together; by default as many as the process may use.
        precision: One of ``runtimes.base.PRECISIONS``, as far as the runtime has it.
        classes: Names and colours, for an export that has none.
        tiling: Tiles into which the images are cut, if any.

    Raises:
        DeviceError: If there is no such device.
        ExportError: If the runtime cannot load it.
        DataError: If the export has other classes than the data set.
    """
    threads = threads or usable_cpus()
    device, _ = catalog.choose_device(runtime, device, precision)
    parallel = min(threads, _MOST_ENGINES) if device == "cpu" else 1
    free: SimpleQueue[Predictor] = SimpleQueue()
    for _ in range(parallel):
        free.put(Predictor(export, runtime, device, threads // parallel, precision, tiling))
    known = len(export.classes)
    if known not in (0, dataset.num_classes):
        raise DataError(
            f"the exported model has {known} classes, val_dataset has num_classes "
            f"{dataset.num_classes}; evaluate it on the data set that it was trained for"
        )
    dataset = copy.copy(dataset)
    checked = isinstance(dataset.transforms, CheckedCompose)
    dataset.transforms = (
        dataset.transforms.around(export.transforms) if checked else export.transforms
    )

    def segment(sample: dict) -> np.ndarray:
        batch = np.ascontiguousarray(sample["img"][np.newaxis])
        mine = free.get()
        try:
            if tiling is not None:
                return segment_preprocessed(mine, tiling, batch, sample["label"].shape[-2:])
            return mine.postprocess(mine.run(batch), sample["label"].shape[-2:])
        finally:
            free.put(mine)

    test_config: dict[str, Any] = {"aug_eval": True, "scales": export.scale}
    if tiling is not None:
        test_config["tile"] = [tiling.width, tiling.height]
        test_config["overlap"] = tiling.overlap
    engine = runtime if precision == "fp32" else f"{runtime} {precision}"
    return Evaluated(dataset, segment, parallel, engine, test_config, export.classes or classes)


def paddleseg_scores(counts: np.ndarray) -> dict:
    """Return :func:`scores` as the installed PaddleSeg has them."""
    return scores(counts, _iou_of_absent())


def evaluate(
    evaluated: Evaluated,
    *,
    model: str = "",
    config: str = "",
    threads: int = 2,
    progress: Callable[..., Iterable] = lambda images, **_: images,
) -> Evaluation:
    """Compare the label maps of a model with the truth.

    Images are read and counted in threads while the model runs, a few of them at a time, so that
    memory grows by a few numbers per image only. Under ``paddle.distributed.launch`` each process
    takes its share of the images, each of them once, and all return the result of all images.

    Args:
        evaluated: Model and data set.
        model: What the result is to name as the model.
        config: What the result is to name as the config.
        threads: Threads that read images and count pixels.
        progress: Wraps the images of this process, as ``tqdm`` does; gets ``total`` and ``unit``.

    Raises:
        DataError: If there are no images, or one or its label cannot be used.
    """
    dataset, segment, parallel = evaluated.dataset, evaluated.segment, evaluated.parallel
    validation.check_not_empty(dataset)
    processes.connect()
    images = len(dataset)
    mine = range(paddle.distributed.get_rank(), images, processes.count())
    shared = images - images % processes.count()
    num_classes, ignore_index = dataset.num_classes, dataset.ignore_index

    def label(sample: dict) -> tuple[np.ndarray, np.ndarray]:
        return segment(sample), sample["label"][0]

    def count(labels_and_truth: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return (
            count_pixels(*labels_and_truth, num_classes, ignore_index),
            boundary_f1(*labels_and_truth, num_classes, ignore_index),
        )

    started = time.perf_counter()
    total = np.zeros((num_classes + 1, num_classes + 1), "int64")
    image_scores: dict[int, tuple[np.ndarray, ImageScore]] = {}
    pool, engines = ThreadPoolExecutor(threads), ThreadPoolExecutor(parallel)
    try:
        samples = prefetch(pool, dataset.__getitem__, mine, threads)
        if parallel > 1:
            labelled = prefetch(engines, label, samples, parallel)
        else:  # in this thread, whose device Paddle's network is on
            labelled = map(label, samples)
        counted = prefetch(pool, count, labelled, threads)
        for (counts, boundary), number in zip(
            progress(counted, total=len(mine), unit="image"), mine
        ):
            total += counts
            names = _names(dataset, dataset.file_list[number])
            image_scores[number] = boundary, _of_image(names, counts, boundary)
            if number < shared:
                processes.wait_for_others()  # a fast one would wait long at the end
    finally:
        for executor in (pool, engines):
            executor.shutdown(cancel_futures=True)
    shares = processes.gather((total, image_scores))
    seconds = time.perf_counter() - started
    total = sum(counts for counts, _ in shares)
    by_number = {number: score for _, share in shares for number, score in share.items()}
    scored = [by_number[number] for number in range(images)]
    boundaries = np.array([boundary for boundary, _ in scored])
    found = ~np.isnan(boundaries)
    boundary = ratio(np.where(found, boundaries, 0).sum(axis=0), found.sum(axis=0), math.nan)
    totals = {name: _plain(value) for name, value in paddleseg_scores(total).items()}
    return Evaluation(
        model=model,
        runtime=evaluated.runtime,
        config=config,
        test_config=evaluated.test_config,
        classes=list(evaluated.classes) or numbered_classes(num_classes),
        **totals,
        iou_of_absent=_iou_of_absent(),
        boundary_f1=_plain(_mean(boundary)),
        class_boundary_f1=_plain(boundary),
        boundary_tolerance=BOUNDARY_TOLERANCE,
        confusion_matrix=total.tolist(),
        images=images,
        seconds=seconds,
        image_scores=[score for _, score in scored],
    )


def as_paddleseg(
    network: nn.Layer,
    dataset: Dataset,
    test_config: dict,
    num_workers: int,
    classes: Sequence[ClassInfo],
) -> dict[str, Any]:
    """Evaluate by PaddleSeg's ``evaluate``, which logs the numbers; see :func:`trained`.

    Returns:
        A document for JSON, with keys of :class:`Evaluation`.

    Raises:
        DataError: If the data set is empty, or a sample cannot be read.
    """
    miou, accuracy, class_iou, class_precision, kappa = validation.evaluate(
        network, dataset, [entry.name for entry in classes], num_workers=num_workers, **test_config
    )
    return {
        "images": len(dataset),
        "miou": float(miou),
        "accuracy": float(accuracy),
        "kappa": float(kappa),
        "class_iou": [float(value) for value in class_iou],
        "class_precision": [float(value) for value in class_precision],
        "test_config": test_config,
        "model": class_name(network),
    }


@functools.lru_cache
def _iou_of_absent() -> float:
    nothing = paddle.zeros([1], dtype="int64")
    return float(metrics.mean_iou(nothing, nothing, nothing)[1])


def _names(dataset: Dataset, paths: list[str]) -> dict[str, str]:
    """Name image and label as the data set's list does, so that its folder may move."""
    root = os.path.abspath(dataset.dataset_root)
    names = []
    for path in map(os.path.abspath, paths):
        inside = path.startswith(root + os.sep)
        names.append(Path(os.path.relpath(path, root) if inside else path).as_posix())
    return dict(zip(("image", "label"), names))


def _of_image(names: dict[str, str], counts: np.ndarray, boundary: np.ndarray) -> ImageScore:
    numbers = scores(counts)
    _, predicted, labelled = areas(counts)
    occurs = predicted + labelled > 0
    return ImageScore(
        **names,
        miou=_plain(_mean(np.where(occurs, numbers["class_iou"], np.nan))),
        accuracy=_plain(numbers["accuracy"]),
        boundary_f1=_plain(_mean(boundary)),
    )


def _mean(values: np.ndarray) -> float:
    """Return the mean without NaN; NaN if all values are NaN."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def _plain(value: Any) -> Any:
    """Convert arrays to lists, and NaN, which JSON lacks, to None."""
    if isinstance(value, np.ndarray):
        return [_plain(entry) for entry in value.tolist()]
    return None if isinstance(value, float) and math.isnan(value) else value
