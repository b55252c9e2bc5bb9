"""Checks of images and labels that PaddleSeg's own data sets and transforms read.

The plugin's ``Dataset`` and ``Cityscapes`` check theirs by themselves.
"""

from __future__ import annotations

from collections.abc import Callable

from paddleseg.transforms import Compose

from liteseg_plugin.datasets import validation
from liteseg_plugin.datasets.image_compose import format_of
from liteseg_plugin.datasets.image_format import ImageFormat
from liteseg_plugin.errors import DataError, LitesegError


class CheckedCompose(Compose):
    """PaddleSeg's transforms of a data set, which check image and label as they read them.

    Args:
        original: The transforms.
        limits: As in :func:`read_and_transform`.
    """

    def __init__(self, original: Compose, limits: tuple[int, int] | None) -> None:
        super().__init__(original.transforms, original.to_rgb, original.img_channels)
        self._limits = limits

    def around(self, other: Compose) -> CheckedCompose:
        """Return other transforms with the same checks."""
        return CheckedCompose(other, self._limits)

    def __call__(self, data: dict) -> dict:
        """Transform a sample, given by the paths of its image and label.

        Raises:
            DataError: As :func:`read_and_transform`.
        """
        return read_and_transform(super().__call__, format_of(self), data, self._limits)


def read_and_transform(
    transform: Callable[[dict], dict],
    image_format: ImageFormat,
    data: dict,
    limits: tuple[int, int] | None = None,
) -> dict:
    """Read image and label of a sample that names files, then transform it.

    Args:
        transform: PaddleSeg's transforms.
        image_format: Of the image.
        data: The sample; ``img`` and ``label`` are paths, or arrays that are read already.
        limits: ``num_classes`` and ``ignore_index``, to check the label.

    Raises:
        DataError: If image or label cannot be used, or transformed; the message names the files.
    """
    image, label = data.get("img"), data.get("label")
    if not isinstance(image, str):
        return transform(data)
    label_path = label if isinstance(label, str) else None
    read = image_format.read(image, labelled=label is not None)
    data["img"] = image_format.values(read)
    if label_path is not None:
        data["label"] = validation.read_label(label_path)
    try:
        if label_path is not None and limits is not None:
            height, width = read.shape[:2]
            validation.check_label(data["label"], (height, width), *limits)
        return transform(data)
    except Exception as error:
        what = error if isinstance(error, LitesegError) else f"{type(error).__name__}: {error}"
        raise DataError(validation.about(image, label_path, what)) from error
