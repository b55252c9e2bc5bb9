"""Figures on light and dark backgrounds."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from liteseg_plugin.system.files import atomic_write
from liteseg_plugin.visualization.html import data_uri

Drawing = Callable[[Figure], None]
"""Draws on an empty figure."""

_LIGHT = {"ground": "#ffffff", "text": "#1c1e21", "line": "#d8dce1"}
_DARK = {"ground": "#14171a", "text": "#e6e8ea", "line": "#3a4047"}
_WIDTH = 4.2  # inches: the text stays readable on a phone
_BLUE, _ORANGE = "#3f8fd2", "#e08a2e"


@dataclass(frozen=True)
class PageFigure:
    """A figure for light and for dark pages.

    Attributes:
        png: The bytes of a file, on light ground.
        light: The figure on light ground, as a data URI.
        dark: The figure on dark ground, as a data URI.
        width: On the page, in CSS units.
        alt: Alternative text.
        caption: The line below it.
    """

    png: bytes
    light: str
    dark: str
    width: str
    alt: str
    caption: str


def on_page(draw: Drawing, alt: str, caption: str) -> PageFigure:
    """Draw a figure twice, for light and for dark pages; ``alt`` and ``caption`` go with it."""
    light, inches = _drawn(draw, _LIGHT, "png")
    dark, _ = _drawn(draw, _DARK, "png")
    return PageFigure(
        png=light,
        light=data_uri(light, "png"),
        dark=data_uri(dark, "png"),
        width=f"{inches * 80:.0f}px",  # at which its text is as large as the page's
        alt=alt,
        caption=caption,
    )


def save(draw: Drawing, path: str | Path) -> None:
    """Write a figure on a light background, in the format of the file's suffix.

    The file's folder is created if missing.

    Raises:
        ValueError: If figures have no such format.
        OSError: If it cannot be written.
    """
    content, _ = _drawn(draw, _LIGHT, Path(path).suffix[1:] or "png")
    atomic_write(path, content)


def _drawn(draw: Drawing, theme: dict[str, str], form: str) -> tuple[bytes, float]:
    """Return the content of a file of that format, and the width in inches."""
    settings: Any = {  # by keys that matplotlib lists as literals
        "figure.facecolor": theme["ground"],
        "axes.facecolor": theme["ground"],
        "axes.edgecolor": theme["line"],
        "grid.color": theme["line"],
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        # A dollar sign in a name does not start a formula.
        "text.parse_math": False,
        **dict.fromkeys(
            ("text.color", "xtick.color", "ytick.color", "axes.labelcolor"), theme["text"]
        ),
    }
    with matplotlib.rc_context(settings):
        figure, file = Figure(layout="constrained"), io.BytesIO()
        draw(figure)
        figure.savefig(file, dpi=200, format=form)
    return file.getvalue(), float(figure.get_figwidth())


def scores_of_classes(names: Sequence[str], scores: dict[str, Sequence[float | None]]) -> Drawing:
    """Return a function that draws scores in 0..1 by their names, a row of bars per class."""

    def draw(figure: Figure) -> None:
        figure.set_size_inches(_WIDTH, 1 + 0.1 * (1 + len(scores)) * len(names))
        axes = figure.subplots()
        rows = np.arange(len(names))
        height = 0.8 / len(scores)
        for number, ((score, values), color) in enumerate(zip(scores.items(), (_BLUE, _ORANGE))):
            shown = [0 if value is None else value * 100 for value in values]
            axes.barh(rows + (number + 0.5) * height - 0.4, shown, height, label=score, color=color)
        axes.set_yticks(rows, _short(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("%")
        axes.grid(False, axis="y")
        figure.legend(loc="outside upper right", ncols=len(scores))

    return draw


def confusion(names: Sequence[str], matrix: np.ndarray) -> Drawing:
    """Return a function that draws a confusion matrix, each row in % of its class.

    Args:
        names: Of the C classes.
        matrix: Pixels by true and predicted class, (C, C).
    """
    total = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0) * 100

    def draw(figure: Figure) -> None:
        size = float(np.clip(1.2 + 0.27 * len(names), _WIDTH, 16))
        figure.set_size_inches(size, size)
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        axes.set_xticks(range(len(names)), _short(names), rotation=90)
        axes.set_yticks(range(len(names)), _short(names))
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.grid(False)
        if len(names) <= 25:
            for (row, column), share in np.ndenumerate(shares):
                if share >= 0.5:
                    color = "white" if share > 55 else "#1c1e21"
                    axes.text(
                        column, row, f"{share:.0f}", ha="center", va="center", color=color, size=7
                    )

    return draw


def histogram(values: Sequence[float], label: str) -> Drawing:
    """Return a function that draws a histogram of values in 0..1."""

    def draw(figure: Figure) -> None:
        figure.set_size_inches(_WIDTH, 2.2)
        axes = figure.subplots()
        axes.hist(np.multiply(values, 100), bins=list(range(0, 101, 5)), color=_BLUE)
        axes.set_xlim(0, 100)
        axes.set_xlabel(label)
        axes.set_ylabel("images")

    return draw


def differences(names: Sequence[str], values: Sequence[float], label: str) -> Drawing:
    """Return a function that draws signed differences, a bar per name, better ones to the right."""

    def draw(figure: Figure) -> None:
        figure.set_size_inches(_WIDTH, 0.8 + 0.22 * len(names))
        axes = figure.subplots()
        points = np.multiply(values, 100)
        axes.barh(range(len(names)), points, color=np.where(points < 0, _ORANGE, _BLUE).tolist())
        axes.set_yticks(range(len(names)), _short(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(label)
        axes.grid(False, axis="y")

    return draw


def _short(names: Sequence[str]) -> list[str]:
    """Shorten long names."""
    return [name if len(name) <= 20 else f"{name[:17]}..." for name in names]
