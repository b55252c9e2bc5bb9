"""An evaluation as files: numbers, figures, pictures, and a page of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from liteseg_plugin.datasets import image_compose
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import DataError
from liteseg_plugin.evaluation.evaluate import Evaluated
from liteseg_plugin.evaluation.result import HEADLINE, NUMBERS_FILE, Evaluation
from liteseg_plugin.visualization import figures, html
from liteseg_plugin.visualization.overlay import overlay

PAGE_FILE = "index.html"

_PICTURES = ("image", "truth", "prediction", "errors")
_LISTED = 500  # images; metrics.json has all of them
_WIDEST = 640  # pixels of a picture on the page
_RED = (60, 60, 235)  # BGR


def write(
    folder: str | os.PathLike,
    evaluation: Evaluation,
    evaluated: Evaluated,
    *,
    worst: int = 10,
    progress: Callable[[Sequence[int]], Iterable[int]] = lambda images: images,
) -> Path:
    """Write ``metrics.json``, figures, pictures of the worst images, and the page; return its path.

    Args:
        folder: Created if missing; an earlier report in it is replaced.
        evaluation: What :func:`liteseg_plugin.evaluation.evaluate.evaluate` returned.
        evaluated: Model and data set, to draw the worst images.
        worst: How many images to draw.
        progress: Wraps the images to be drawn, as ``tqdm`` does.
    """
    check_folder(folder)
    folder = Path(folder)
    for part in ("figures", "worst"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    evaluation.save(folder)
    for name in _PICTURES:  # an earlier report may have had more
        for stale in (folder / "worst").glob(f"[0-9]*_{name}.jpg"):
            stale.unlink()
    class_scores = evaluation.class_scores()
    names = [entry.name for entry in evaluation.classes]
    matrix = np.array(evaluation.confusion_matrix)[:-1, :-1]
    image_mious = [s.miou for s in evaluation.image_scores if s.miou is not None]
    occurring = [row.iou for row in class_scores if row.occurs]
    drawn_figures = {
        "classes": figures.on_page(
            figures.scores_of_classes(
                names,
                {
                    "IoU": [row.iou if row.occurs else None for row in class_scores],
                    "Boundary F1": evaluation.class_boundary_f1,
                },
            ),
            "Bars of IoU and boundary F1 of each class; the table above has the numbers.",
            "IoU and boundary F1 by class.",
        ),
        "confusion": figures.on_page(
            figures.confusion(names, matrix),
            "Confusion matrix; the table below lists the largest confusions.",
            "Each row: predictions for the pixels of a class, in %; below 0.5 not written.",
        ),
        "images": figures.on_page(
            figures.histogram(image_mious, "mIoU of an image, %"),
            "Histogram of the images' mIoU; the list below has the numbers.",
            "Number of images by mIoU.",
        ),
    }
    pictures = []
    for rank, index in enumerate(progress(evaluation.worst_images(worst)), start=1):
        drawn = _draw(evaluated, index, evaluation.classes)
        for name, jpeg in drawn.items():
            (folder / "worst" / f"{rank:02}_{name}.jpg").write_bytes(jpeg)
        uris = [{"name": name, "uri": html.data_uri(jpeg, "jpeg")} for name, jpeg in drawn.items()]
        pictures.append((evaluation.image_scores[index], uris))
    for name, figure in drawn_figures.items():
        (folder / "figures" / f"{name}.png").write_bytes(figure.png)
    return html.write_page(
        folder / PAGE_FILE,
        "evaluation.html",
        evaluation=evaluation,
        headline=[(name, getattr(evaluation, key)) for key, name in HEADLINE.items()],
        settings=_settings(evaluation.test_config),
        absent=len(names) - len(occurring),
        miou_of_occurring=float(np.mean(occurring)) if occurring else None,
        class_rows=class_scores,
        confusions=_confusions(names, matrix),
        figures=drawn_figures,
        worst=pictures,
        listed=[evaluation.image_scores[i] for i in evaluation.worst_images(_LISTED)],
    )


def check_folder(folder: str | os.PathLike) -> None:
    """Check that a report can be written, before the evaluation; nothing is created.

    Raises:
        DataError: If other files are in it, which a report might overwrite, or it cannot be
            written to.
    """
    folder = Path(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise DataError(f"cannot write a report to {folder}: {existing} is not a writable folder")
    if existing == folder and any(folder.iterdir()) and not (folder / NUMBERS_FILE).is_file():
        raise DataError(f"{folder} contains other files and no report; give another folder")


def _confusions(names: list[str], matrix: np.ndarray) -> list[dict]:
    """Return the ten largest confusions, by pixels."""
    wrong = matrix * ~np.eye(len(names), dtype=bool)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:10]
    return [
        {
            "truth": names[true],
            "guess": names[guess],
            "of_class": float(wrong[true, guess] / matrix[true].sum()),
            "of_all": float(wrong[true, guess] / matrix.sum()),
        }
        for true, guess in zip(*np.unravel_index(largest, wrong.shape))
        if wrong[true, guess]
    ]


def _draw(evaluated: Evaluated, index: int, classes: Sequence[ClassInfo]) -> dict[str, bytes]:
    """Return image, truth, prediction and errors of one image, each as the bytes of a JPEG."""
    dataset, segment = evaluated.dataset, evaluated.segment
    sample = dataset[index]
    truth, guess = sample["label"][0], segment(sample)
    image = image_compose.format_of(dataset.transforms).read(dataset.file_list[index][0])
    image = image_compose.shown(dataset.transforms, image)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    counted = (truth != dataset.ignore_index)[..., np.newaxis]
    wrong = (truth != guess)[..., np.newaxis] & counted
    errors = np.where(wrong, cv2.addWeighted(grey, 0.3, np.full_like(grey, _RED), 0.7, 0), grey)
    errors = np.where(counted, errors, grey // 4)
    pictures = image, overlay(image, truth, classes), overlay(image, guess, classes), errors
    scale = min(1.0, _WIDEST / image.shape[1])
    jpegs = {}
    for name, picture in zip(_PICTURES, pictures):
        if scale < 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        jpegs[name] = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    return jpegs


def _settings(test_config: dict) -> str:
    """Describe the scales, flips and windows of an evaluation."""
    words = []
    if test_config.get("aug_eval"):
        scales = np.atleast_1d(test_config.get("scales", 1.0))
        words.append("scale " + ", ".join(f"{scale:g}" for scale in scales))
        flips = filter(test_config.get, ("flip_horizontal", "flip_vertical"))
        words += [flip.replace("_", " ") for flip in flips]
    if test_config.get("is_slide"):
        size, stride = ("x".join(map(str, test_config[k])) for k in ("crop_size", "stride"))
        words.append(f"window {size}, stride {stride}")
    return ", ".join(words) or "scale 1"
