"""Two evaluations side by side: what got better, what got worse."""

from __future__ import annotations

import os
from pathlib import Path

from liteseg_plugin.errors import DataError, printable
from liteseg_plugin.evaluation.report import HEADLINE, read
from liteseg_plugin.visualization import figures, html

_LISTED = 20  # images that got better, and that got worse


def compare(before: str | os.PathLike, after: str | os.PathLike) -> dict:
    """Compare two reports of `liteseg val --report`.

    Args:
        before: A report's folder or its ``metrics.json``.
        after: Another, of the same classes.

    Returns:
        ``reports`` (path, model, runtime, config and number of images of both), ``scores``,
        ``classes`` and ``images``. Each entry of the latter three has a ``name``, ``before``,
        ``after`` and their ``difference``; a class has these for IoU, and ``boundary_f1`` with the
        same three, an image for its mIoU. ``images`` are those that both reports have, from most
        worsened to most improved; ``only_before`` and ``only_after`` count the others.

    Raises:
        DataError: If one is no report, or their classes differ.
    """
    paths = (before, after)
    old, new = reports = [read(path) for path in paths]
    names = [[entry["name"] for entry in report["classes"]] for report in reports]
    if names[0] != names[1]:
        raise DataError(
            f"{before} and {after} are of other classes: {', '.join(names[0])}; "
            f"and {', '.join(names[1])}"
        )
    old_images, new_images = (
        {score["image"]: score["miou"] for score in report["image_scores"]} for report in reports
    )
    images = [
        _pair(name, old_images[name], new_images[name])
        for name in old_images.keys() & new_images.keys()
        if old_images[name] is not None and new_images[name] is not None
    ]
    return {
        "reports": [
            {"path": str(path), **{k: report[k] for k in ("model", "runtime", "config", "images")}}
            for path, report in zip(paths, reports)
        ],
        "scores": [_pair(key, old[key], new[key]) for key in HEADLINE],
        "classes": [
            {
                **_pair(name, old["class_iou"][i], new["class_iou"][i]),
                "boundary_f1": _pair(
                    name, old["class_boundary_f1"][i], new["class_boundary_f1"][i]
                ),
            }
            for i, name in enumerate(names[0])
        ],
        "images": sorted(images, key=lambda pair: (pair["difference"], pair["name"])),
        "only_before": len(old_images.keys() - new_images.keys()),
        "only_after": len(new_images.keys() - old_images.keys()),
    }


def table(comparison: dict) -> str:
    """Return a comparison as lines of text, in %."""
    rows = [{**pair, "name": HEADLINE[pair["name"]]} for pair in comparison["scores"]]
    worse, better = _changed_images(comparison)
    sections = {
        "": rows,
        "IoU": comparison["classes"],
        "boundary F1": [row["boundary_f1"] for row in comparison["classes"]],
        "mIoU of images that got worse": worse[:5],
        "mIoU of images that got better": better[:5],
    }
    width = max(len(printable(row["name"])) for rows in sections.values() for row in rows)
    lines = [
        f"{name}: {printable(r['path'])}"
        for name, r in zip(("before", "after"), comparison["reports"])
    ]
    for title, rows in sections.items():
        lines += ["", f"{title:{width}}    before     after    change"] if rows else []
        lines += [
            f"{printable(row['name']):{width}}{html.percent(row['before']):>10}{html.percent(row['after']):>10}"
            f"{html.signed_percent(row['difference']):>10}"
            for row in rows
        ]
    lines += ["", _counts(comparison)]
    return "\n".join(lines)


def write_page(comparison: dict, path: str | os.PathLike) -> None:
    """Write a comparison as one page that opens from disk.

    Args:
        comparison: What :func:`compare` returned.
        path: The file.
    """
    classes = [row for row in comparison["classes"] if row["difference"] is not None]
    worse, better = _changed_images(comparison)
    text = html.render(
        "comparison.html",
        reports=comparison["reports"],
        scores=[{**pair, "name": HEADLINE[pair["name"]]} for pair in comparison["scores"]],
        classes=comparison["classes"],
        figure_of_classes=figures.on_page(
            figures.differences(
                [row["name"] for row in classes],
                [row["difference"] for row in classes],
                "change of IoU, points",
            ),
            "Bars of the change of IoU of each class; the table above has the numbers.",
            "Change of IoU by class.",
        ),
        images=[("Images that got worse", worse), ("Images that got better", better)],
        counts=_counts(comparison),
    )
    Path(path).write_text(text, encoding="utf-8", errors="replace")


def _pair(name: str, before: float | None, after: float | None) -> dict:
    known = before is not None and after is not None
    return {
        "name": name,
        "before": before,
        "after": after,
        "difference": after - before if known else None,
    }


def _changed_images(comparison: dict) -> tuple[list[dict], list[dict]]:
    """Return the images that got worse, and those that got better, the most changed first."""
    images = comparison["images"]
    worse = [pair for pair in images if pair["difference"] < 0]
    better = [pair for pair in reversed(images) if pair["difference"] > 0]
    return worse[:_LISTED], better[:_LISTED]


def _counts(comparison: dict) -> str:
    changes = [pair["difference"] for pair in comparison["images"]]
    worse, better = sum(c < 0 for c in changes), sum(c > 0 for c in changes)
    text = f"{len(changes)} images in both: {better} got better, {worse} worse"
    if comparison["only_before"] or comparison["only_after"]:
        text += (
            f". NOT the same images: {comparison['only_before']} only before, "
            f"{comparison['only_after']} only after; all other numbers are over all of each"
        )
    return text
