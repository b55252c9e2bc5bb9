"""Compare two evaluations: what got better, what got worse."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liteseg_plugin.errors import DataError, printable
from liteseg_plugin.evaluation.result import HEADLINE, Evaluation
from liteseg_plugin.visualization import figures, html

_LISTED = 20  # images that got better, and that got worse


@dataclass(frozen=True)
class Change:
    """A score of a report, a class or an image, 0 to 1, or None where it is not defined."""

    name: str
    before: float | None
    after: float | None

    @property
    def difference(self) -> float | None:
        """After minus before; None if one of them is not defined."""
        return None if self.before is None or self.after is None else self.after - self.before

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        return {**asdict(self), "difference": self.difference}


@dataclass(frozen=True)
class ReportSource:
    """Where a report comes from; the attributes are those of :class:`Evaluation`, and its path."""

    path: str
    model: str
    runtime: str
    config: str
    images: int


@dataclass(frozen=True)
class Comparison:
    """What changed between two reports.

    Attributes:
        reports: The two reports.
        scores: Changes of the scores in ``HEADLINE``, by key.
        class_iou: Changes of IoU by class.
        class_boundary_f1: Changes of boundary F1 by class.
        images: Changes of mIoU of the images that both reports have, from most worsened to most
            improved.
        only_before: Number of images that only the first report has.
        only_after: Number of images that only the second report has.
    """

    reports: tuple[ReportSource, ReportSource]
    scores: list[Change]
    class_iou: list[Change]
    class_boundary_f1: list[Change]
    images: list[Change]
    only_before: int
    only_after: int

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        return {
            "reports": [asdict(report) for report in self.reports],
            "scores": [change.to_json() for change in self.scores],
            "classes": [
                {**iou.to_json(), "boundary_f1": boundary.to_json()}
                for iou, boundary in zip(self.class_iou, self.class_boundary_f1)
            ],
            "images": [change.to_json() for change in self.images],
            "only_before": self.only_before,
            "only_after": self.only_after,
        }

    def headline(self) -> list[Change]:
        """Return the changes of the scores under their display names."""
        return [Change(HEADLINE[c.name], c.before, c.after) for c in self.scores]

    def changed_images(self) -> tuple[list[Change], list[Change]]:
        """Return the images that got worse and those that got better, the most changed first.

        A change that is shown as 0.00 points is neither: runtimes round differently.
        """
        worse = [change for change in self.images if html.points(change.difference or 0) < 0]
        better = [
            change for change in reversed(self.images) if html.points(change.difference or 0) > 0
        ]
        return worse, better

    def counts(self) -> str:
        """Say how many images got better and worse."""
        worse, better = self.changed_images()
        text = f"{len(self.images)} images in both: {len(better)} got better, {len(worse)} worse"
        if self.only_before or self.only_after:
            text += (
                f". NOT the same images: {self.only_before} only before, {self.only_after} only "
                "after; all other numbers are over all of each"
            )
        return text

    def text(self) -> str:
        """Return the comparison as lines for the terminal, in %."""
        worse, better = self.changed_images()
        sections = {
            "": self.headline(),
            "IoU": self.class_iou,
            "boundary F1": self.class_boundary_f1,
            "mIoU of images that got worse": worse[:5],
            "mIoU of images that got better": better[:5],
        }
        width = max(len(printable(row.name)) for rows in sections.values() for row in rows)
        lines = [
            f"{name}: {printable(report.path)}"
            for name, report in zip(("before", "after"), self.reports)
        ]
        for title, rows in sections.items():
            lines += ["", f"{title:{width}}    before     after    change"] if rows else []
            lines += [
                f"{printable(row.name):{width}}{html.percent(row.before):>10}"
                f"{html.percent(row.after):>10}{html.signed_percent(row.difference):>10}"
                for row in rows
            ]
        lines += ["", self.counts()]
        return "\n".join(lines)

    def write_page(self, path: str | os.PathLike) -> Path:
        """Write the comparison as one page (``.html``) that opens from disk; return its path."""
        worse, better = self.changed_images()
        known = [(c.name, c.difference) for c in self.class_iou if c.difference is not None]
        return html.write_page(
            path,
            "comparison.html",
            reports=self.reports,
            scores=self.headline(),
            classes=list(zip(self.class_iou, self.class_boundary_f1)),
            figure_of_classes=figures.on_page(
                figures.differences(
                    [name for name, _ in known],
                    [difference for _, difference in known],
                    "change of IoU, points",
                ),
                "Bars of the change of IoU of each class; the table above has the numbers.",
                "Change of IoU by class.",
            ),
            images=[
                ("Images that got worse", worse[:_LISTED]),
                ("Images that got better", better[:_LISTED]),
            ],
            counts=self.counts(),
        )


def compare(before: str | os.PathLike, after: str | os.PathLike) -> Comparison:
    """Compare two reports of `liteseg val --report`: their folders, or each ``metrics.json``.

    Raises:
        DataError: If one is not a report, or their classes differ.
    """
    old, new = Evaluation.read(before), Evaluation.read(after)
    names, new_names = ([entry.name for entry in report.classes] for report in (old, new))
    if names != new_names:
        raise DataError(
            f"{before} and {after} have different classes: {', '.join(names)}; "
            f"and {', '.join(new_names)}"
        )
    old_images, new_images = (
        {score.image: score.miou for score in report.image_scores} for report in (old, new)
    )
    images = [
        Change(name, old_images[name], new_images[name])
        for name in old_images.keys() & new_images.keys()
        if old_images[name] is not None and new_images[name] is not None
    ]
    return Comparison(
        reports=(_source(before, old), _source(after, new)),
        scores=[Change(key, getattr(old, key), getattr(new, key)) for key in HEADLINE],
        class_iou=list(map(Change, names, old.class_iou, new.class_iou)),
        class_boundary_f1=list(map(Change, names, old.class_boundary_f1, new.class_boundary_f1)),
        images=sorted(images, key=lambda change: (change.difference or 0, change.name)),
        only_before=len(old_images.keys() - new_images.keys()),
        only_after=len(new_images.keys() - old_images.keys()),
    )


def _source(path: str | os.PathLike, report: Evaluation) -> ReportSource:
    return ReportSource(str(path), report.model, report.runtime, report.config, report.images)
