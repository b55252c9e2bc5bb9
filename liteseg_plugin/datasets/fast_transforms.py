"""PaddleSeg's transforms of training in less time, from the same random numbers.

A picture is scaled only where it is cropped, hues are shifted by tables, and normalising is looked
up. Transforms that are not known here are PaddleSeg's (or yours), as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import cv2
import numpy as np
from paddleseg.transforms import (
    Compose,
    Normalize,
    RandomDistort,
    RandomHorizontalFlip,
    RandomPaddingCrop,
    RandomVerticalFlip,
    ResizeStepScaling,
    functional,
)
from PIL import Image

from liteseg_plugin.datasets import validation
from liteseg_plugin.datasets.frames import FrameCache
from liteseg_plugin.datasets.image_compose import format_of


class FastCompose(Compose):
    """PaddleSeg's transforms: same order, same random numbers, same results.

    Images stay 8-bit where their values are whole numbers: PaddleSeg makes floats of all of an
    image before it crops. OpenCV may round differently in a part of an image than in the whole:
    with Intel's IPP, as in PaddleSeg's OpenCV on x86, by 2e-5 of 255 at few sizes, which seldom
    shows when PaddleSeg cuts to 8 bits; without, by 5e-3, and one value in a hundred differs by 1.

    Args:
        original: What PaddleSeg would do.
        frames: Where decoded files are kept.
    """

    def __init__(self, original: Compose, frames: FrameCache | None = None) -> None:
        super().__init__(original.transforms, original.to_rgb, original.img_channels)
        self._frames = frames
        self.image_format = format_of(original)
        # glibc gives blocks back to the system that are larger than any that was freed before (up
        # to 32 MiB), and fetching their pages again takes 5 ms per sample. So one is freed.
        np.empty(31 << 20, np.uint8)
        if any(isinstance(op, RandomDistort) and op.hue_prob for op in self.transforms):
            # Before worker processes start, which then share them.
            _colours("RGB", "HSV")
            _colours("HSV", "RGB")
            functional.hue = hue  # where RandomDistort looks it up

    def read(self, image_path: str, label_path: str | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an image for :meth:`transform`, and its label."""
        labelled = label_path is not None
        # An unlabelled image in the cache may have an orientation that is an error with a label.
        kind = f"image {self.read_flag} {self.to_rgb}{' labelled' if labelled else ''}"
        if not self.image_format.is_rgb:
            kind += f" {self.image_format}"
        image = self._read(image_path, partial(self._decode_image, labelled=labelled), kind)
        if label_path is None:
            return image, None
        return image, self._read(label_path, validation.read_label, "indices")

    def transform(self, data: dict) -> dict:
        """Transform an image of :meth:`read`."""
        remaining = list(self.transforms)
        if data["img"].dtype != np.uint8:
            data["img"] = self.image_format.values(data["img"])
        while remaining:
            operation = remaining.pop(0)
            if _is_scale_then_crop([operation, *remaining[:1]]):
                data = _scale_and_crop(data, operation, remaining.pop(0))
                continue
            whole = data["img"].dtype == np.uint8
            if whole and type(operation) is Normalize and data["img"].ndim == 3 and not remaining:
                data["img"] = _normalised_planes(data["img"], operation)
                return data
            if whole and type(operation) not in _TAKE_WHOLE_NUMBERS:
                data["img"] = data["img"].astype(np.float32)
            data = operation(data)
            if type(operation) is RandomDistort:
                data["img"] = data["img"].astype(np.uint8)  # which it was inside
        image = data["img"].astype(np.float32, copy=False)
        data["img"] = np.atleast_3d(image).transpose(2, 0, 1)
        return data

    def _read(self, path: str, decode: Callable[[str], np.ndarray], kind: str) -> np.ndarray:
        return decode(path) if self._frames is None else self._frames.read(path, decode, kind)

    def _decode_image(self, path: str, labelled: bool) -> np.ndarray:
        image = self.image_format.read(path, labelled=labelled)
        of_three = image.ndim == 3 and image.shape[2] == 3
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if self.to_rgb and of_three else image


_TAKE_WHOLE_NUMBERS = (RandomHorizontalFlip, RandomVerticalFlip, RandomDistort)


# --- scaling and cropping ------------------------------------------------------------------------


def _is_scale_then_crop(operations: list) -> bool:
    kinds = [type(operation) for operation in operations]
    # Below a ratio of 1, PaddleSeg looks at the labels of several crops.
    return kinds == [ResizeStepScaling, RandomPaddingCrop] and operations[1].category_max_ratio >= 1


def _scale_and_crop(data: dict, scale: ResizeStepScaling, crop: RandomPaddingCrop) -> dict:
    height, width = data["img"].shape[:2]
    factor = _draw_scale(scale)
    w, h = round(factor * width), round(factor * height)
    if not (w and h):
        raise ValueError(f"{width}x{height} pixels vanish when scaled by {factor}")
    x1, y1, x2, y2 = 0, 0, w, h
    crop_h, crop_w = crop.crop_size
    if (h, w) != (crop_h, crop_w):
        padded_hw = max(h, crop_h), max(w, crop_w)
        x1, y1, x2, y2 = crop._get_crop_coordinates(padded_hw)
    box = (x1, y1, min(x2, w), min(y2, h))
    data["img"] = resize_part(data["img"], (w, h), box)
    for key in data.get("gt_fields", []):
        data[key] = resize_label_part(data[key], (w, h), box)
    return crop._padding(data)


def _draw_scale(scale: ResizeStepScaling) -> float:
    """Draw as PaddleSeg's class does."""
    lowest, highest, step = scale.min_scale_factor, scale.max_scale_factor, scale.scale_step_size
    if lowest == highest:
        return lowest
    if step == 0:
        return np.random.uniform(lowest, highest)
    factors = np.linspace(lowest, highest, int((highest - lowest) / step + 1)).tolist()
    np.random.shuffle(factors)
    return factors[0]


def resize_part(
    image: np.ndarray, size_wh: tuple[int, int], box: tuple[int, int, int, int]
) -> np.ndarray:
    """Return a box of an image that is resized linearly, without computing the rest.

    Where n pixels become m, every n / gcd(n, m) pixels become m / gcd(n, m), and all such blocks
    are resized with the same weights. So whole blocks are resized, from one before the box to one
    after it.

    Args:
        image: (H, W) or (H, W, C).
        size_wh: Width and height of the whole image when resized.
        box: x1, y1, x2, y2 in the resized image.

    Returns:
        float32.
    """
    x1, y1, x2, y2 = box
    columns, width, left = _blocks(image.shape[1], size_wh[0], x1, x2)
    rows, height, top = _blocks(image.shape[0], size_wh[1], y1, y2)
    part = image[rows, columns].astype(np.float32)
    resized = functional.resize(part, (width, height), cv2.INTER_LINEAR)
    return resized[top : top + y2 - y1, left : left + x2 - x1]


def resize_label_part(
    label: np.ndarray, size_wh: tuple[int, int], box: tuple[int, int, int, int]
) -> np.ndarray:
    """Return a box of a label that is resized to the nearest pixels; see :func:`resize_part`."""
    x1, y1, x2, y2 = box
    columns = _nearest(label.shape[1], size_wh[0])[x1:x2]
    rows = _nearest(label.shape[0], size_wh[1])[y1:y2]
    return label[rows, columns[0] : columns[-1] + 1].take(columns - columns[0], axis=1)


def _nearest(old: int, new: int) -> np.ndarray:
    """Return which of ``old`` pixels becomes each of ``new``, as OpenCV itself rounds."""
    pixels = np.arange(old, dtype=np.float32).reshape(1, old)
    return functional.resize(pixels, (new, 1), cv2.INTER_NEAREST)[0].astype(np.intp)


def _blocks(old: int, new: int, start: int, stop: int) -> tuple[slice, int, int]:
    """Return the pixels needed along one axis, what they become, and where ``start`` is in it."""
    number = math.gcd(old, new)
    old_block, new_block = old // number, new // number
    margin = math.ceil(2 / old_block)  # in blocks: linear interpolation reads one pixel beyond
    first = max(start // new_block - margin, 0)
    last = min(-(-stop // new_block) + margin, number)
    pixels = slice(first * old_block, last * old_block)
    return pixels, (last - first) * new_block, start - first * new_block


# --- colours -------------------------------------------------------------------------------------


def hue(im: Image.Image, hue_lower: float, hue_upper: float) -> Image.Image:
    """Do what ``paddleseg.transforms.functional.hue`` does, four times as fast.

    Pillow converts each pixel to HSV and back with divisions; here the results for all colours are
    looked up.
    """
    delta = np.random.uniform(hue_lower, hue_upper)
    shifted = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)
    shifted[:, :, 0] = shifted[:, :, 0] + delta  # in PaddleSeg's words, as negatives wrap around
    hsv = _look_up(_colours("RGB", "HSV"), np.asarray(im))
    hsv[..., 0] = cv2.LUT(hsv[..., 0], shifted[:, :, 0].copy())
    return Image.fromarray(_look_up(_colours("HSV", "RGB"), hsv))


@cache
def _colours(source: str, target: str) -> np.ndarray:
    """Return all 2^24 colours of a mode of Pillow's in another, by their first byte + 256 * ..."""
    converted = []
    for colours in np.arange(1 << 24, dtype="<u4").reshape(16, 1024, 1024):
        image = Image.fromarray(_three_bytes(colours), mode=source)
        converted.append(_as_numbers(np.asarray(image.convert(target))))
    return np.concatenate(converted).ravel()


def _look_up(table: np.ndarray, image: np.ndarray) -> np.ndarray:
    return _three_bytes(table.take(_as_numbers(image)))


def _as_numbers(image: np.ndarray) -> np.ndarray:
    """Convert (H, W, 3) of uint8 to (H, W) of uint32 below 2^24."""
    four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    four[..., 3] = 0
    return four.view("<u4")[..., 0]


def _three_bytes(numbers: np.ndarray) -> np.ndarray:
    four = np.ascontiguousarray(numbers).view(np.uint8).reshape(*numbers.shape, 4)
    return cv2.cvtColor(four, cv2.COLOR_RGBA2RGB)


def _normalised_planes(image: np.ndarray, normalize: Normalize) -> np.ndarray:
    """Return (C, H, W) of float32 for (H, W, C) of uint8."""
    channels = image.shape[2]
    values = np.arange(256, dtype=np.float32).reshape(256, 1, 1).repeat(channels, axis=2)
    table = functional.normalize(values, normalize.mean, normalize.std)
    planes = np.empty((channels, *image.shape[:2]), np.float32)
    for plane, channel, looked_up in zip(planes, cv2.split(image), cv2.split(table)):
        cv2.LUT(channel, looked_up, plane)
    return planes
