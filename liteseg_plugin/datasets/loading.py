"""PaddleSeg's data sets: the same samples, checked when read, and optionally loaded faster.

Lists, images and labels that cannot be used are errors that name the file (:mod:`.validation`).
``fast_loading: true`` computes the same samples in less time (:mod:`.fast_transforms`), and
``cache_gb`` also keeps decoded images and labels (:mod:`.frames`).
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from paddleseg import datasets
from paddleseg.transforms import functional

from liteseg_plugin.datasets import cityscapes, lists, validation
from liteseg_plugin.datasets.fast_transforms import FastCompose
from liteseg_plugin.datasets.frames import FrameCache
from liteseg_plugin.datasets.image_compose import ImageCompose, format_of
from liteseg_plugin.datasets.image_format import ImageFormat
from liteseg_plugin.errors import ConfigError, DataError, LitesegError
from liteseg_plugin.system.files import cache_folder


class _CheckedSamples:
    """What ``Dataset`` and ``Cityscapes`` share: how they read a sample."""

    # Of PaddleSeg's classes.
    mode: Any
    transforms: Any
    file_list: Any
    num_classes: Any
    ignore_index: Any
    edge: Any

    def __init__(
        self,
        *args: Any,
        fast_loading: bool = False,
        cache_gb: float = 0,
        cache_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        self._open(*args, **kwargs)
        if self.mode != "val":  # which leaves the labels as they are
            _check_padding(self.transforms.transforms, self.num_classes, self.ignore_index)
        if type(cache_gb) not in (int, float) or not 0 <= cache_gb < math.inf:
            raise ConfigError(f"cache_gb must be a number of gigabytes, got {cache_gb!r}")
        if cache_dir is not None and not cache_gb:
            raise ConfigError(f"cache_dir {cache_dir} needs cache_gb, the size limit of the cache")
        if fast_loading or cache_gb:
            folder = cache_dir or cache_folder() / "frames"
            frames = FrameCache(folder, int(cache_gb * 1e9)) if cache_gb else None
            self.transforms = FastCompose(self.transforms, frames)

    def _open(self, *args: Any, **kwargs: Any) -> None:
        """Find the files, as PaddleSeg's class does."""
        super().__init__(*args, **kwargs)

    def __getitem__(self, index: int) -> dict:
        """Return the sample that PaddleSeg's class returns.

        Raises:
            DataError: If image or label cannot be used.
        """
        pair = lists.Pair(*self.file_list[index])
        compose = self.transforms
        if isinstance(compose, FastCompose):
            (image, label), transform = compose.read(*pair), compose.transform
        else:
            image_format, transform = format_of(compose), compose
            image = image_format.read(pair.image, labelled=pair.label is not None)
            image = image_format.values(image)
            label = None if pair.label is None else validation.read_label(pair.label)
        data: dict[str, Any] = {"trans_info": [], "img": image, "label": label}
        data["gt_fields"] = [] if self.mode == "val" else ["label"]
        try:
            if label is not None:
                size_hw = image.shape[:2]
                validation.check_label(label, size_hw, self.num_classes, self.ignore_index)
            data = transform(data)
        except Exception as error:
            what = error if isinstance(error, LitesegError) else f"{type(error).__name__}: {error}"
            raise DataError(validation.about(*pair, what)) from error
        if self.mode == "val":
            data["label"] = data["label"][np.newaxis, :, :]
        elif self.edge:
            data["edge"] = functional.mask_to_binary_edge(
                data["label"], radius=2, num_classes=self.num_classes
            )
        return data


def _check_padding(transforms: Sequence[Any], num_classes: int, ignore_index: int) -> None:
    """Refuse to pad labels with a value that stops training at the first padded label."""
    for operation in transforms:
        for value in np.ravel(getattr(operation, "label_padding_value", ())).tolist():
            if 0 <= value < num_classes or (value == ignore_index and 0 <= value <= 255):
                continue
            name = type(operation).__name__
            way_out = f"write label_padding_value: {ignore_index} under {name}"
            if not 0 <= ignore_index <= 255:
                way_out = (
                    f"labels are 8-bit, so choose an ignore_index from {num_classes} to 255, e.g. "
                    f"255, and the same label_padding_value"
                )
            raise ConfigError(
                f"{name} pads labels with label_padding_value {value}, which is neither a class (0 "
                f"to {num_classes - 1}) nor the ignore_index {ignore_index}; {way_out}"
            )


class Dataset(_CheckedSamples, datasets.Dataset):
    """PaddleSeg's ``Dataset`` with checks, faster loading and a cache.

    Without ``train_path``, ``val_path`` or ``test_path``, the list ``train.txt``, ``val.txt`` or
    ``test.txt`` of the folder is used, as ``liteseg data split`` writes it.

    Args:
        img_channels: Number of channels, any; PaddleSeg's class takes 1 and 3.
        max_value: Of images of 16 bits, the value that counts as white; 255 for 8 bits.
        shown_bands: Channels that pictures show as red, green and blue.
        fast_loading: Whether to load the same samples faster.
        cache_gb: How many gigabytes (1e9 bytes) of decoded images and labels to keep; 0 for none.
            All that are kept in the same folder count, whichever process and data set they are of.
        cache_dir: Where; by default ``frames`` in the plugin's cache (``~/.cache/liteseg``). A
            folder in ``/dev/shm`` keeps them in memory.

    Raises:
        DataError: If folder or list are missing, the list is empty, or one of its lines cannot be
            used.
        ConfigError: If an argument cannot be used, or the padding value of labels is invalid.
    """

    def __init__(
        self,
        *args: Any,
        max_value: int = 255,
        shown_bands: Sequence[int] = (0, 1, 2),
        **kwargs: Any,
    ) -> None:
        self._stored = max_value, tuple(shown_bands)
        super().__init__(*args, **kwargs)

    def _open(self, *args: Any, **kwargs: Any) -> None:
        values = inspect.signature(datasets.Dataset).bind(*args, **kwargs)
        values.apply_defaults()
        given = values.arguments
        mode, root = str(given["mode"]).lower(), given["dataset_root"]
        if given.get(f"{mode}_path") is None and os.path.isfile(os.path.join(root, f"{mode}.txt")):
            given[f"{mode}_path"] = os.path.join(root, f"{mode}.txt")
        image_format = ImageFormat(given["img_channels"], *self._stored)
        given["img_channels"] = 1 if image_format.channels == 1 else 3  # it knows no others
        listing = given.get(f"{mode}_path")
        if not os.path.isdir(root):
            raise lists.not_found("dataset_root", root)
        if listing is None:
            raise lists.no_list(f"{mode}.txt", root)
        if not os.path.isfile(listing):
            raise lists.not_found(f"{mode}_path", listing)
        try:
            super()._open(*values.args, **values.kwargs)
        except ValueError:
            _, wrong = lists.read_list(
                listing, root, separator=given["separator"], labelled=mode != "test"
            )
            for fault in wrong:
                raise DataError(fault.message) from None
            raise
        if not self.file_list:
            raise DataError(f"the list {listing} of data set {self.dataset_root} is empty")
        if not image_format.is_rgb:
            self.img_channels = image_format.channels
            self.transforms = ImageCompose(self.transforms.transforms, image_format)


class Cityscapes(_CheckedSamples, datasets.Cityscapes):
    """PaddleSeg's ``Cityscapes``, with the further arguments of :class:`Dataset`.

    Raises:
        DataError: If the folder is missing, an image has no label, or a label no image.
        ConfigError: As :class:`Dataset`.
    """

    def _open(self, *args: Any, **kwargs: Any) -> None:
        given = inspect.signature(datasets.Cityscapes).bind(*args, **kwargs).arguments
        if not os.path.isdir(given["dataset_root"]):
            raise lists.not_found("dataset_root", given["dataset_root"])
        super()._open(*args, **kwargs)
        cityscapes.check_pairs(self.dataset_root, self.mode, self.file_list)
