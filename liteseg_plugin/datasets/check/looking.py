"""Look at one image and its label."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from liteseg_plugin.datasets import validation
from liteseg_plugin.datasets.check.channels import Values
from liteseg_plugin.datasets.image_format import read_as_stored
from liteseg_plugin.datasets.lists import Pair
from liteseg_plugin.datasets.stored_image import StoredImage
from liteseg_plugin.datasets.validation import Fault, about
from liteseg_plugin.errors import DataError

_Read = TypeVar("_Read")
_KEPT_VALUES = 8


class Picture(NamedTuple):
    """What is known of an image that can be read.

    Attributes:
        size_wh: Width and height in pixels.
        digest: Tells it from others.
        stored: How it is stored.
        values: Of its channels.
    """

    size_wh: tuple[int, int]
    digest: bytes
    stored: StoredImage
    values: Values


class Look(NamedTuple):
    """The result of one image and its label.

    Attributes:
        errors: What stops a training.
        warnings: What does not.
        picture: The image; None if it cannot be read.
        counts: Pixels of the label by value, (256,).
        beyond: Some of the values of the label that are not 0 to 255.
    """

    errors: list[Fault]
    warnings: list[Fault]
    picture: Picture | None
    counts: np.ndarray
    beyond: tuple[int, ...] = ()


def look(pair: Pair, num_classes: int, ignore_index: int) -> Look:
    """Open image and label as training does; values from ``num_classes`` on are errors."""
    errors: list[Fault] = []
    warnings: list[Fault] = []
    counts = np.zeros(256, np.int64)
    beyond: tuple[int, ...] = ()
    picture = _opened(_read, pair.image, errors)
    labelled = _opened(validation.read_label_and_depth, pair.label, errors) if pair.label else None
    if picture is not None and pair.label is not None:
        turned = validation.orientation_faults(validation.check_image_file(pair.image))
        errors += [Fault(f.kind, about(pair.image, None, f.message)) for f in turned]
    if labelled is None or pair.label is None:
        return Look(errors, warnings, picture, counts)

    label, depth = labelled
    size_hw = label.shape[:2] if picture is None else picture.size_wh[::-1]
    found = validation.label_faults(label, size_hw, num_classes, ignore_index)
    errors += [Fault(f.kind, about(pair.image, pair.label, f.message)) for f in found]
    if label.ndim == 2:
        inside = label
        if label.dtype != np.uint8:
            beyond = tuple(np.unique(label[(label < 0) | (label > 255)])[:_KEPT_VALUES].tolist())
            inside = label[(label >= 0) & (label < 256)].astype(np.uint8)
        counts = np.bincount(inside.ravel(), minlength=256)
        used = [v for v in np.flatnonzero(counts) if v != ignore_index]
        warnings += [
            Fault(f.kind, about(pair.image, pair.label, f.message))
            for f in _oddities(used, pair.label, ignore_index, depth)
        ]
    return Look(errors, warnings, picture, counts, beyond)


def _read(path: str) -> Picture:
    """Read an image with all of its channels; grey of 8 bits as RGB, so that both are compared."""
    validation.check_image_file(path)
    stored = StoredImage.of(path)
    image = validation.read_image(path) if stored.is_plain else read_as_stored(path, stored)
    size_wh = (image.shape[1], image.shape[0])
    digest = hashlib.sha1(image.data, usedforsecurity=False).digest() + repr(size_wh).encode()
    grey = stored.is_plain and stored.channels == 1
    return Picture(size_wh, digest, stored, Values.of(image[..., 0] if grey else image, stored))


def _opened(read: Callable[[str], _Read], path: str, errors: list[Fault]) -> _Read | None:
    """Return the content of a file; if it cannot be read, record why and return None."""
    try:
        return read(path)
    except DataError as error:
        kind = "unreadable" if os.path.isfile(path) else "missing"
        errors.append(Fault(kind, str(error)))
    except Exception as error:  # out of memory or a hostile file: report it, and continue
        errors.append(Fault("unreadable", f"{path}: {type(error).__name__}: {error}"))
    return None


def _oddities(
    used: Sequence[int], label: str, ignore_index: int, depth: str | None
) -> Iterator[Fault]:
    if not used:
        yield Fault("label-empty", f"the label is empty: every pixel is {ignore_index}")
    elif len(used) == 1:
        yield Fault("label-single-class", f"the label holds one class only, {used[0]}")
    if label.lower().endswith((".jpg", ".jpeg")):
        yield Fault("label-lossy", "the label is a JPEG, which does not store exact values")
    if depth:
        yield Fault(
            "label-depth",
            f"the label is a {depth} image; the plugin reads its values, but PaddleSeg without it "
            "reads others or stops: save 8-bit labels to train elsewhere",
        )
