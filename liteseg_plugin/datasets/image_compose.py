"""PaddleSeg's transforms for images of any number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from paddleseg.transforms import (
    Compose,
    Normalize,
    Padding,
    PaddingByAspectRatio,
    RandomAffine,
    RandomDistort,
    RandomPaddingCrop,
    RandomRotation,
)

from liteseg_plugin.datasets.image_format import ImageFormat
from liteseg_plugin.errors import ConfigError

_MOST_OPENCV = 4  # channels that OpenCV fills


class ImageCompose(Compose):
    """PaddleSeg's transforms, which know what images they get.

    Raises:
        ConfigError: If a transform cannot take such images.
    """

    def __init__(self, transforms: Sequence[Any], image_format: ImageFormat) -> None:
        for operation in transforms:
            _check(operation, image_format)
        if image_format.channels > _MOST_OPENCV:
            transforms = [_AnyPaddingCrop.of(operation) for operation in transforms]
        super().__init__([*transforms], img_channels=image_format.channels)
        self.image_format = image_format


def compose(transforms: Sequence[Any], image_format: ImageFormat) -> Compose:
    """Return PaddleSeg's transforms for such images.

    Raises:
        ConfigError: If a transform cannot take them.
    """
    if image_format.is_rgb:
        return Compose([*transforms])
    return ImageCompose(transforms, image_format)


def format_of(transforms: Compose) -> ImageFormat:
    """Return the format of the images that transforms take."""
    known = getattr(transforms, "image_format", None)
    return known or ImageFormat(transforms.img_channels)


def showing(transforms: Compose, bands: Sequence[int] | None) -> Compose:
    """Return transforms whose pictures show other channels; the same without ``bands``.

    Raises:
        ConfigError: If these are not three of the channels.
    """
    if bands is None:
        return transforms
    image_format = replace(format_of(transforms), shown_bands=tuple(bands))
    return compose(transforms.transforms, image_format)


def shown(transforms: Compose, image: np.ndarray) -> np.ndarray:
    """Return a picture of an image, (H, W, 3) of uint8, BGR; see :meth:`ImageFormat.shown`."""
    normalize = [op for op in transforms.transforms if isinstance(op, Normalize)]
    scale = {"mean": normalize[0].mean, "std": normalize[0].std} if normalize else {}
    return format_of(transforms).shown(image, **scale)


def size_changes(
    transforms: Compose, size_hw: tuple[int, int]
) -> list[tuple[str, tuple[int, int]]]:
    """Return what transforms do to the size of an image (H, W), in their order.

    Returns:
        ``resize`` or ``padding`` (below and to the right), and the height and width before it, as
        in PaddleSeg's ``trans_info``.
    """
    operations = [op for op in transforms.transforms if not isinstance(op, Normalize)]
    if not any(isinstance(op, (Padding, PaddingByAspectRatio)) for op in operations):
        return [("resize", size_hw)]
    data: dict[str, Any] = {"img": np.zeros((*size_hw, 1), np.float32), "trans_info": []}
    for operation in operations:
        data = operation(data)
        data["img"] = data["img"].reshape(*data["img"].shape[:2], 1)  # which OpenCV drops
    return [(kind, (height, width)) for kind, (height, width) in data["trans_info"]]


def _check(operation: Any, image_format: ImageFormat) -> None:
    name, channels = type(operation).__name__, image_format.channels
    if isinstance(operation, Normalize):
        for values in (operation.mean, operation.std):
            if len(values) not in (1, channels):
                raise ConfigError(
                    f"Normalize has {len(values)} values for images of {channels} channels; give "
                    f"1 or {channels}, as liteseg data check prints them"
                )
    if isinstance(operation, RandomDistort) and not image_format.takes_pictures:
        raise ConfigError(
            f"RandomDistort changes the colours of 8-bit grey or RGB images, not of {image_format}:"
            " remove it from the transforms"
        )
    if channels > _MOST_OPENCV and isinstance(operation, (Padding, RandomAffine, RandomRotation)):
        raise ConfigError(
            f"{name} fills images of up to {_MOST_OPENCV} channels, not of {channels}: remove it "
            "from the transforms"
        )


class _AnyPaddingCrop(RandomPaddingCrop):
    """Pads images of more channels than OpenCV fills."""

    @classmethod
    def of(cls, operation: Any) -> Any:
        """Return a transform that does the same with any number of channels."""
        if type(operation) is not RandomPaddingCrop:
            return operation
        made = cls.__new__(cls)
        made.__dict__.update(operation.__dict__)
        return made

    def _padding(self, data: dict) -> dict:
        height, width = data["img"].shape[:2]
        added = ((0, max(self.crop_size[0] - height, 0)), (0, max(self.crop_size[1] - width, 0)))
        data["img"] = np.pad(data["img"], (*added, (0, 0)), constant_values=self.im_padding_value)
        for key in data.get("gt_fields", []):
            data[key] = np.pad(data[key], added, constant_values=self.label_padding_value)
        return data
