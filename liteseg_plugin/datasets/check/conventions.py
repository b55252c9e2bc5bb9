"""Labels that follow another convention: masks of 0 and 255, or classes counted from 1."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence, Set

import numpy as np

from liteseg_plugin.datasets.lists import Pair
from liteseg_plugin.datasets.validation import Fault

FOREGROUND = "label-foreground"
ONE_BASED = "label-one-based"

_LEAST_EXTREME = 0.9
"""Share of the pixels of a mask that are almost 0 or almost 255."""


def foreground_fault(
    values: Set[int], pairs: Sequence[Pair], num_classes: int | None, ignore_index: int
) -> Fault | None:
    """Find masks of 0 and one other value that is not a class, such as 255.

    Args:
        values: All values in all labels.
        pairs: Images and their labels.
        num_classes: Number of classes, if known.
        ignore_index: Label of ignored pixels.

    Returns:
        What is wrong, with the command that converts the labels; None if nothing is.
    """
    others = values - {0}
    if 0 not in values or len(others) != 1:
        return None
    (value,) = others
    if value == ignore_index:
        what = f"{value} is ignored, so training sees the value 0 only"
    elif value >= (num_classes or 2):
        what = f"{value} is not a class"
    else:
        return None
    message = (
        f"the labels hold 0 and {value} only: {what}. If {value} is your foreground, convert it "
        f"to class 1, and set num_classes to 2: {_command(pairs, f'{value}=1')}"
    )
    return Fault(FOREGROUND, message)


def grey_mask_fault(
    counts: np.ndarray, pairs: Sequence[Pair], num_classes: int | None
) -> Fault | None:
    """Find masks of 0 and 255 with grey values between, as JPEG or smooth resizing leaves them.

    Args:
        counts: Pixels of all labels by value, (256,).
        pairs: As in :func:`foreground_fault`, like the result.
        num_classes: Likewise.
    """
    extremes = counts[:16].sum() + counts[240:].sum()
    grey = int(np.count_nonzero(counts[1:255]))
    if num_classes not in (None, 2) or extremes < _LEAST_EXTREME * counts.sum():
        return None
    if not (counts[0] and counts[240:].any() and counts[128:255].any()):
        return None
    message = (
        f"the labels hold 0, 255 and {grey} grey values between, as JPEG or smooth resizing leaves "
        "them. If they are masks of 0 and 255, convert them to classes 0 and 1, and set "
        f"num_classes to 2: {_command(pairs, '1-127=0', '128-255=1')}"
    )
    return Fault(FOREGROUND, message)


def one_based_fault(
    values: Set[int], pairs: Sequence[Pair], num_classes: int | None, ignore_index: int
) -> tuple[Fault, bool] | None:
    """Find classes that are counted from 1, or that are one more than ``num_classes``.

    The arguments are those of :func:`foreground_fault`.

    Returns:
        What is wrong, with the command that converts the labels, and whether it is certain that
        something is; None if nothing is.
    """
    used = values - {ignore_index}
    if not used or ignore_index == 0:
        return None
    largest = max(used)
    too_large = largest == num_classes
    counted = num_classes if too_large and num_classes else largest
    shift = f"1-{counted}=0-{counted - 1}" if counted > 1 else "1=0"
    if 0 not in used and (too_large or 1 in used):
        message = (
            f"the labels hold {min(used)} to {largest}, and never 0, but classes are counted from "
            f"0. If yours are counted from 1, convert the labels: {_command(pairs, shift)}"
        )
        return Fault(ONE_BASED, message), too_large
    if too_large:
        message = (
            f"the labels hold 0 to {largest}, but num_classes {num_classes} means 0 to "
            f"{largest - 1}. If 0 means unlabelled: {_command(pairs, f'0={ignore_index}', shift)}."
            f" If {largest} does: {_command(pairs, f'{largest}={ignore_index}')}. "
            f"If both are classes, set num_classes to {largest + 1}"
        )
        return Fault(ONE_BASED, message), True
    return None


def _command(pairs: Sequence[Pair], *entries: str) -> str:
    folders = {os.path.dirname(label) for _, label in pairs if label}
    if len({*map(os.path.isabs, folders)}) > 1:  # which have no common folder as they are
        folders = {*map(os.path.abspath, folders)}
    folder = os.path.commonpath(folders)
    words = [folder, f"{folder}_relabelled", "--map", *entries]
    added = {_added_name(image, label) for image, label in pairs if label}
    if len(added) == 1 and any(added):
        words += ["--label_suffix", *added]
    return f"liteseg data relabel {' '.join(map(shlex.quote, words))}"


def _added_name(image: str, label: str) -> str:
    """Return what a label's name adds to that of its image in the same folder: ``_mask``."""
    start, name = os.path.splitext(image)[0], os.path.splitext(label)[0]
    beside = os.path.dirname(image) == os.path.dirname(label)
    return name[len(start) :] if beside and name.startswith(start) else ""
