"""The page of `liteseg data check`: one HTML file that opens from disk."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.check.report import (
    WEIGHT_FORMULA,
    CheckReport,
    Sample,
    messages_by_kind,
)
from liteseg_plugin.datasets.validation import read_label
from liteseg_plugin.system.parallel import process
from liteseg_plugin.visualization import html
from liteseg_plugin.visualization.overlay import overlay

_WIDEST = 480  # pixels of a picture on the page
_LISTED = 1000  # messages of one kind


def write_page(report: CheckReport, path: str | os.PathLike) -> Path:
    """Write what :func:`liteseg_plugin.datasets.check.check` found, with overlays.

    Returns:
        The path of the page, which must end in ``.html``.
    """
    classes = [entry.info for entry in report.classes]

    def draw(sample: Sample) -> dict[str, str]:
        return {
            "split": sample.split,
            "image": os.path.relpath(sample.image, report.data),
            "uri": html.data_uri(_overlay(sample, classes, report), "jpeg"),
        }

    pictures = process(draw, report.samples, description="overlays")
    findings = [
        ("Errors", messages_by_kind(report.errors)),
        ("Warnings", messages_by_kind(report.warnings)),
    ]
    return html.write_page(
        path,
        "check.html",
        report=report,
        findings=findings,
        pictures=pictures,
        listed=_LISTED,
        weight_formula=WEIGHT_FORMULA,
    )


def _overlay(sample: Sample, classes: list[ClassInfo], report: CheckReport) -> bytes:
    """Return a JPEG of at most `_WIDEST` pixels width."""
    image, label = report.image_format.read(sample.image), read_label(sample.label)
    means, stds = [c.mean for c in report.channels], [c.std for c in report.channels]
    image = report.image_format.shown(image, means, stds)
    width = min(_WIDEST, image.shape[1])
    size_wh = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    label = cv2.resize(
        np.clip(label, 0, 255).astype("uint8"), size_wh, interpolation=cv2.INTER_NEAREST
    )
    blended = overlay(image, label, classes)
    return cv2.imencode(".jpg", blended, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
