"""Which images a data set has: their channels, the values of these, and images that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from liteseg_plugin.datasets.image_format import ImageFormat
from liteseg_plugin.datasets.stored_image import StoredImage
from liteseg_plugin.datasets.validation import Fault

_LEAST_STD = 0.0001  # Normalize divides by it


class Values(NamedTuple):
    """The values of an image, by channel.

    Attributes:
        pixels: Number of pixels.
        sums: Sum of the values, (C,); three channels are RGB.
        squares: Sum of their squares.
        smallest: Smallest value; of an image of 8-bit grey or RGB 0.
        largest: Largest value; likewise 255.
    """

    pixels: int
    sums: np.ndarray
    squares: np.ndarray
    smallest: np.ndarray
    largest: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, stored: StoredImage) -> Values:
        """Return the values of an image, (H, W) or (H, W, C), three channels in BGR."""
        pixels = image.shape[0] * image.shape[1]
        channels = image.reshape(pixels, -1)
        if image.ndim == 3 and image.shape[2] in (3, 4):
            means, stds = (values.ravel() for values in cv2.meanStdDev(image))
        else:
            means, stds = channels.mean(0, dtype=np.float64), channels.std(0, dtype=np.float64)
        if stored.is_plain:
            smallest, largest = np.zeros(len(means)), np.full(len(means), 255)
        else:
            smallest, largest = channels.min(0), channels.max(0)
        found = (means * pixels, (stds**2 + means**2) * pixels, smallest, largest)
        order = slice(None, None, -1) if len(means) == 3 else slice(None)
        return cls(pixels, *(values[order] for values in found))


@dataclass(frozen=True)
class Channel:
    """The values of a channel.

    Attributes:
        mean: As ``Normalize`` takes it, 0 to 1: of the value divided by ``max_value``.
        std: Standard deviation over all pixels, likewise.
    """

    mean: float
    std: float


def choose_format(
    seen: Sequence[tuple[StoredImage, Values]], channels: int | None = None
) -> tuple[ImageFormat, str]:
    """Return the format to read images of a data set as, and why.

    Args:
        seen: How each image is stored, and its values.
        channels: What the user asks for; by default those of most images.
    """
    kinds = Counter((s.channels, s.bits) for s, _ in seen)
    if not kinds:
        return ImageFormat(channels or 3), "no image can be read"
    (usual, bits), count = kinds.most_common(1)[0]
    same_stored = [s for s, _ in seen if (s.channels, s.bits) == (usual, bits)]
    reason = f"as {'all' if count == len(seen) else f'most ({count} of {len(seen)})'} are stored"
    same = [v for s, v in seen if (s.channels, s.bits) == (usual, bits)]
    largest = max(int(v.largest.max()) for v in same)
    max_value = 255 if bits == 8 else max(511, 2 ** largest.bit_length() - 1)
    if bits == 16:
        reason += f"; the largest value is {largest}"
    if channels is None and same_stored[0].is_plain and (3, 8) in kinds:
        channels = 3
    if channels is None and usual in (2, 4):
        last = [v.smallest[-1] for v in same] + [v.largest[-1] for v in same]
        if len({*last}) == 1:
            return ImageFormat(usual - 1, max_value), f"{reason}; the last channel is constant"
    return ImageFormat(channels or usual, max_value), reason


def format_fault(
    stored: StoredImage, values: Values, usual: StoredImage, image_format: ImageFormat
) -> tuple[Fault, bool] | None:
    """Find what makes an image another kind than the usual one, or than what images are read as.

    Returns:
        The fault, without the name of the file, and whether a training would stop at it.
    """
    refused = image_format.refusal(stored)
    if refused:
        return Fault("image-format", refused), True
    largest = int(values.largest.max())
    if image_format.max_value not in (255, 65535) and largest > image_format.max_value:
        message = f"it holds values up to {largest}, more than max_value {image_format.max_value}"
        return Fault("image-values", message), True
    if str(stored) == str(usual):
        return None
    message = f"it has {stored}, most images have {usual}; it is read as {image_format}"
    return Fault("image-format", message), False


def measure(values: Iterable[Values], image_format: ImageFormat) -> list[Channel]:
    """Return mean and standard deviation of each channel over all pixels of images.

    Args:
        values: Of the images; those of fewer channels, but for grey, do not count.
        image_format: What they are read as.
    """
    pixels, sums, squares = 0, np.zeros(1), np.zeros(1)
    for seen in values:
        if len(seen.sums) != 1 and not len(seen.sums) >= image_format.channels > 1:
            continue
        pixels += seen.pixels
        sums = sums + _channels(seen.sums, image_format.channels)
        squares = squares + _channels(seen.squares, image_format.channels)
    if not pixels:
        return []
    mean = sums / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    scaled = np.round(np.stack([mean, std], axis=1) / image_format.max_value, 4).tolist()
    return [Channel(m, max(s, _LEAST_STD)) for m, s in scaled]


def _channels(values: np.ndarray, channels: int) -> np.ndarray:
    return np.repeat(values, channels) if len(values) == 1 else values[:channels]
