"""What a network takes of an image: how many channels, of which values; and reading these.

Networks get values from 0 to 255, as PaddleSeg's transforms expect them: of an image of 16 bits
``value * 255 / max_value``. Arrays of three channels are in OpenCV's order, BGR; all others in the
order of the file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from liteseg_plugin.datasets.stored_image import StoredImage
from liteseg_plugin.datasets.validation import check_image_file, orientation_faults, read_image
from liteseg_plugin.errors import ConfigError, DataError

_STRETCH = 2  # standard deviations around the mean that a picture of 16 bits shows


@dataclass(frozen=True)
class ImageFormat:
    """What a network takes.

    Attributes:
        channels: Number of channels.
        max_value: Value that counts as white: 255 for images of 8 bits; 256 to 65535 for images of
            16 bits, of which a camera may use 10 or 12.
        shown_bands: Channels that pictures show as red, green and blue.

    Raises:
        ConfigError: If a value is out of range.
    """

    channels: int = 3
    max_value: int = 255
    shown_bands: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        """Check the values."""
        if type(self.channels) is not int or self.channels < 1:
            raise ConfigError(f"img_channels must be a number of channels, got {self.channels!r}")
        if type(self.max_value) is not int or not 255 <= self.max_value <= 65535:
            raise ConfigError(
                f"max_value must be 255 for images of 8 bits, or up to 65535 for 16 bits; got "
                f"{self.max_value!r}"
            )
        bands = self.shown_bands
        if self.channels > 2 and (len(bands) != 3 or not {*bands} <= {*range(self.channels)}):
            raise ConfigError(
                f"shown_bands must be three channels from 0 to {self.channels - 1}, got "
                f"{list(bands)}"
            )

    @classmethod
    def of_config(cls, dataset: Mapping[str, Any], model: Mapping[str, Any]) -> ImageFormat:
        """Return what a config's sections of a data set and of the model have.

        Raises:
            ConfigError: If a value is out of range.
        """
        backbone = model.get("backbone")
        holder = backbone if isinstance(backbone, Mapping) else model
        channels = dataset.get("img_channels", holder.get("in_channels", 3))
        return cls.from_json({**dataset, "channels": channels}, None)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], channels: int | None) -> ImageFormat:
        """Read what :meth:`to_json` returns; what is missing is as in RGB of 8 bits.

        Args:
            entry: The document.
            channels: Those that the model takes; None if it is not known.

        Raises:
            ConfigError: If a value is out of range, or the channels contradict the model's.
        """
        known = entry.get("channels", channels or 3)
        if channels not in (None, known):
            raise ConfigError(f"images have {known} channels, but the model takes {channels}")
        shown = tuple(entry.get("shown_bands", (0, 1, 2)))
        return cls(known, entry.get("max_value", 255), shown)

    def to_json(self) -> dict[str, Any]:
        """Return it as ``deploy.yaml`` has it, with the order of the network's channels."""
        return {
            "channels": self.channels,
            "max_value": self.max_value,
            "channel_order": "RGB" if self.channels == 3 else "as stored",
            "shown_bands": [*self.shown_bands],
        }

    @property
    def is_rgb(self) -> bool:
        """Whether it is RGB of 8 bits, which every image is read as."""
        return self.channels == 3 and self.max_value == 255

    @property
    def takes_pictures(self) -> bool:
        """Whether it takes any picture of 8-bit RGB or grey, as cameras and uploads give them."""
        return self.channels in (1, 3) and self.max_value == 255

    @property
    def dtype(self) -> str:
        """Type of an image's array."""
        return "uint8" if self.max_value == 255 else "uint16"

    def __str__(self) -> str:
        """Return it in words."""
        bits = "8 bits" if self.max_value == 255 else f"16 bits (max_value {self.max_value})"
        return f"{self.channels} channel{'s'[: self.channels - 1]} of {bits}"

    def refusal(self, stored: StoredImage) -> str | None:
        """Say why a file is not such an image; None if it is.

        RGB of 8 bits takes all that OpenCV converts to it, and grey takes colours, as in PaddleSeg.
        """
        if stored.fault or self.is_rgb:
            return stored.fault
        channels = stored.channels
        if self.channels == 1 and self.takes_pictures and not stored.bands:
            channels = 1
        if channels == self.channels and (stored.bits == 8) == (self.max_value == 255):
            return None
        return f"it has {stored}; {self} are expected"

    def read(self, path: str | os.PathLike, *, labelled: bool = False) -> np.ndarray:
        """Read an image.

        Args:
            path: The image.
            labelled: Whether it has a label, so that it must be upright.

        Returns:
            (H, W, C) of ``dtype``, or (H, W) for one channel.

        Raises:
            DataError: If it is missing, invalid, truncated, too large, another kind of image, or
                labelled and not upright.
        """
        if self.is_rgb:
            return read_image(path, labelled=labelled)
        orientation = check_image_file(path)
        stored = StoredImage.of(path)
        refused = self.refusal(stored)
        if refused:
            raise DataError(f"{path}: {refused}")
        if self.channels == 1 and self.max_value == 255:
            return read_image(path, cv2.IMREAD_GRAYSCALE, labelled=labelled)
        for fault in orientation_faults(orientation):
            raise DataError(f"{path}: {fault.message}")
        image = read_as_stored(path, stored)
        self._check_values(image, path)
        return image

    def check(self, image: np.ndarray) -> np.ndarray:
        """Return an array as :meth:`read` gives it.

        Args:
            image: (H, W, C) of ``dtype``; of one channel also (H, W), and BGR for grey of 8 bits.

        Raises:
            DataError: If it is not such an array.
        """
        if self.channels == 1:
            if image.ndim == 3 and image.shape[2] == 1:
                image = image[..., 0]
            elif self.max_value == 255 and image.ndim == 3 and image.shape[2] == 3:
                image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        shape = image.shape[:2] if self.channels == 1 else (*image.shape[:2], self.channels)
        if image.shape != shape or image.ndim < 2 or image.dtype != self.dtype or not image.size:
            size = "(H, W)" if self.channels == 1 else f"(H, W, {self.channels})"
            raise DataError(
                f"an image must be {size} of {self.dtype}, the path of an image, or a PIL image, "
                f"got an array {image.shape} of {image.dtype}"
            )
        self._check_values(image, "the array")
        return image

    def _check_values(self, image: np.ndarray, what: object) -> None:
        if self.max_value in (255, 65535) or image.max() <= self.max_value:
            return
        raise DataError(
            f"{what}: it holds values up to {image.max()}; the model takes values up to "
            f"{self.max_value} (max_value of the config)"
        )

    def values(self, image: np.ndarray) -> np.ndarray:
        """Return an image's values as transforms take them: float32, 0 to 255."""
        values = image.astype(np.float32)
        return values if self.max_value == 255 else values * np.float32(255 / self.max_value)

    def shown(
        self, image: np.ndarray, mean: Sequence[float] = (0.5,), std: Sequence[float] = (0.5,)
    ) -> np.ndarray:
        """Return a picture of an image: grey, or its ``shown_bands`` as red, green and blue.

        Values of 16 bits from two standard deviations below the mean of a channel to two above
        it become 0 to 255.

        Args:
            image: As :meth:`read` gives it.
            mean: Of each channel, or of all, as ``Normalize`` has it: 0 to 1.
            std: Likewise.

        Returns:
            (H, W, 3) of uint8, BGR.
        """
        if self.is_rgb:
            return image
        bands = (0,) if self.channels < 3 else self.shown_bands
        planes = []
        for band in bands:
            # Arrays of three channels are BGR.
            place = 2 - band if self.channels == 3 else band
            plane = image if image.ndim == 2 else image[..., place]
            if self.max_value != 255:
                center, spread = mean[band % len(mean)], _STRETCH * std[band % len(std)]
                low, high = max(0.0, center - spread), min(1.0, center + spread)
                share = (plane / self.max_value - low) / (high - low)
                plane = (share.clip(0, 1) * 255).round().astype(np.uint8)
            planes.append(plane)
        return cv2.merge([planes[-1], planes[len(planes) // 2], planes[0]])


RGB = ImageFormat()
"""What most images are read as."""


def check_sections(config: Mapping[str, Any]) -> None:
    """Refuse a config with data sets whose images the model, or the other data set, does not take.

    PaddleSeg compares numbers of channels, but not with the 3 of a section that names none.

    Raises:
        ConfigError: If they differ.
    """
    model = ImageFormat.of_config({}, config.get("model") or {})
    wanted = {"img_channels": model.channels, **(config.get("train_dataset") or {})}
    for name in ("train_dataset", "val_dataset"):
        section = config.get(name) or {}
        if section.get("type") not in ("Dataset", "Cityscapes"):
            continue
        expected = replace(ImageFormat.of_config(wanted, {}), channels=model.channels)
        given = ImageFormat.of_config({"img_channels": 3, **section}, {})
        if (given.channels, given.max_value) != (expected.channels, expected.max_value):
            raise ConfigError(
                f"{name} has images of {given}, but {expected} are expected; give img_channels "
                "(and max_value) in both data sets, and the same model.backbone.in_channels"
            )


def read_as_stored(path: str | os.PathLike, stored: StoredImage) -> np.ndarray:
    """Read the values of a file, whose header is ``stored``.

    Returns:
        (H, W, C) or (H, W), of uint8 or uint16; three channels are BGR, others as stored.

    Raises:
        DataError: If it cannot be read.
    """
    if stored.is_plain:
        return read_image(path, cv2.IMREAD_GRAYSCALE if stored.channels == 1 else cv2.IMREAD_COLOR)
    if stored.bands:
        return _read_bands(path)
    image = read_image(path, cv2.IMREAD_UNCHANGED)
    if stored.channels == 2:
        return np.ascontiguousarray(image[..., 2:])  # of BGRA, which grey and alpha become
    return image if stored.channels != 4 else cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)


def _read_bands(path: str | os.PathLike) -> np.ndarray:
    try:
        import tifffile
    except ImportError:
        raise DataError(
            f"cannot read image {path}: OpenCV does not read such channels of a TIFF; "
            "pip install 'liteseg_plugin[tiff]'"
        ) from None
    try:
        with warnings.catch_warnings(), tifffile.TiffFile(path) as file:
            warnings.simplefilter("ignore")
            page = file.pages.first
            image = page.asarray()
            if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
                image = image.transpose(1, 2, 0)
    except Exception as error:  # a hostile file may raise anything
        raise DataError(f"cannot read image {path}: {type(error).__name__}: {error}") from error
    if image.ndim != 3 or image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"cannot read image {path}: it has {image.shape} of {image.dtype}")
    if image.shape[2] == 3:
        image = image[..., ::-1]
    return np.ascontiguousarray(image)
