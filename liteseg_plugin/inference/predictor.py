"""Label maps from an exported model: preprocess, run, postprocess."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from liteseg_plugin.datasets import image_compose
from liteseg_plugin.datasets.base import IGNORE_INDEX, ClassInfo
from liteseg_plugin.errors import DataError, ExportError, last_line
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.inference import tiled
from liteseg_plugin.inference.arrays import TAKEN, AnyImage, as_array, conversion_of
from liteseg_plugin.inference.segmentation import Segmentation, most_likely
from liteseg_plugin.inference.tiles import Tiling
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.runtimes.base import Runtime, written_shape
from liteseg_plugin.runtimes.choice import AUTO, choose
from liteseg_plugin.system.parallel import usable_cpus

_Result = TypeVar("_Result")

KEPT_TIMES = 10_000
"""Times that a predictor remembers."""


class Predictor:
    """An exported model in a runtime.

    Threads may share one: the engine runs one batch at a time. Processes cannot: each needs its
    own.

    Args:
        path: The exported folder, or the ``deploy.yaml`` or the model in it; or an export that
            was read before, whose files are not checked again.
        runtime: One of ``runtimes.catalog.RUNTIMES``; ``auto`` is the fastest that agreed with the
            trained network at export, see :func:`liteseg_plugin.runtimes.choice.choose`.
        device: ``cpu``, ``gpu``, or ``auto``: the best that the runtime can use here.
        threads: CPU threads; by default as many as this process may use.
        precision: One of ``runtimes.base.PRECISIONS``, as far as the runtime has it on that device.
        tiling: Tiles into which every picture is cut, for pictures of any size; see
            :class:`liteseg_plugin.inference.tiles.Tiling`.

    Attributes:
        exported: What was exported.
        tiling: As given.
        engine_ms: Milliseconds an image that the engine alone took, one for each of its last
            ``KEPT_TIMES`` runs.

    Raises:
        ValueError: If the runtime or the precision is unknown.
        DeviceError: If there is no such device.
        ExportError: If the folder has no complete export, or the runtime is not installed or
            cannot load it.

    Example:
        >>> import cv2
        >>> mask = Predictor("exported/")(cv2.imread("street.png"))
        >>> mask.shape, mask.dtype
        ((96, 128), dtype('int32'))
    """

    def __init__(
        self,
        path: str | os.PathLike | ExportedModel,
        runtime: str = AUTO,
        device: str = "auto",
        threads: int | None = None,
        precision: str = "fp32",
        tiling: Tiling | None = None,
    ) -> None:
        self.exported = path if isinstance(path, ExportedModel) else ExportedModel.read(path)
        chosen = choose(self.exported, runtime, device, precision).runtime
        self._engine = catalog.create(
            chosen, self.exported, device, threads or usable_cpus(), precision
        )
        self.engine_ms: deque[float] = deque(maxlen=KEPT_TIMES)
        self.tiling = tiling
        if tiling is not None:
            tiled.require_tile(self, tiling)

    @classmethod
    def from_engine(cls, exported: ExportedModel, engine: Runtime) -> Predictor:
        """Return the predictor of an engine that holds the model already."""
        predictor = cls.__new__(cls)
        predictor.exported, predictor._engine = exported, engine
        predictor.engine_ms = deque(maxlen=KEPT_TIMES)
        predictor.tiling = None
        return predictor

    @property
    def device(self) -> str:
        """What the engine computes on, ``cpu`` or ``gpu``."""
        return self._engine.device

    @property
    def runtime(self) -> str:
        """The name of the runtime, one of ``runtimes.catalog.RUNTIMES``."""
        return self._engine.name

    @property
    def classes(self) -> list[ClassInfo]:
        """Names and colours; numbers from 0 to 254 for an export without them."""
        return self.exported.classes or self.exported.named_classes()[:IGNORE_INDEX]

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """(N, C, H, W) that the model takes, with None for any size."""
        return self._engine.input_shape

    def __call__(self, image: AnyImage) -> np.ndarray:
        """Segment one image.

        Args:
            image: (H, W, 3) of uint8, BGR, as ``cv2.imread`` reads it; or a path; or a PIL image,
                whose transparency does not count. For a model of other images, as
                :meth:`read` gives them: (H, W) or (H, W, C) of uint8 or uint16.

        Returns:
            Class indices, (H, W) of int32.

        Raises:
            DataError: If it is not such an image, or has a size that the export rejects.
        """
        return self.timed(image)[0]

    def timed(self, image: AnyImage) -> tuple[np.ndarray, float]:
        """Segment one image; return also the milliseconds that the engine alone took.

        Takes and raises what calling the predictor does.
        """
        if self.tiling:
            array = as_array(image, self.exported.image_format)
            (labels, _), milliseconds = tiled.segment_image(self, self.tiling, array)
            return labels, milliseconds
        [result] = self._segment([image], self.postprocess)
        return result

    def predict(self, image: AnyImage) -> Segmentation:
        """Segment one image; return labels, confidence, and what follows from them.

        Exports with ``output_op`` ``confidence``, ``softmax`` or ``none`` have a confidence; those
        with ``argmax``, the default, hold labels only.

        Takes and raises what calling the predictor does.
        """
        array = as_array(image, self.exported.image_format)
        if self.tiling:
            (labels, confidence), ms = tiled.segment_image(
                self, self.tiling, array, confidence=True
            )
        else:
            [((labels, confidence), ms)] = self._segment([array], self._label_and_confidence)
        return Segmentation(self.shown(array), labels, self.classes, confidence, ms)

    def read(self, path: str | os.PathLike) -> np.ndarray:
        """Read an image file of the kind that the model takes.

        Returns:
            (H, W, 3) of uint8, BGR, for a model of 8-bit RGB. Else (H, W) for one channel, (H, W,
            3) in BGR, or (H, W, C) in the file's order; of uint8, or uint16 for 16 bits.

        Raises:
            DataError: If it cannot be read, or is of another kind.
        """
        return self.exported.image_format.read(path)

    def shown(self, image: np.ndarray) -> np.ndarray:
        """Return a picture of an image of the model, (H, W, 3) of uint8, BGR."""
        if self.exported.image_format.is_rgb:
            return image
        image = self.exported.image_format.check(image)
        return image_compose.shown(self.exported.transforms, image)

    def batch(self, images: Sequence[AnyImage]) -> list[np.ndarray]:
        """Segment images of any size; those with the same network input size run together.

        Args:
            images: Each as the call takes it.

        Returns:
            For each its class indices, (H, W) of int32.

        Raises:
            DataError: If one is not such an image, or has a size that the export rejects.
        """
        if isinstance(images, (np.ndarray, str, os.PathLike, Image.Image)):
            raise DataError(f"batch takes a list of images, got one {type(images).__name__}")
        if self.tiling:
            return [self(image) for image in images]
        return [label for label, _ in self._segment(images, self.postprocess)]

    def _segment(
        self, given: Sequence[AnyImage], finish: Callable[[np.ndarray, tuple[int, int]], _Result]
    ) -> list[tuple[_Result, float]]:
        """Return the result of each image, and its share of the engine's milliseconds.

        ``finish`` makes a result of the output for a batch of one, and of the image's size.
        """
        images = [as_array(image, self.exported.image_format) for image in given]
        preprocessed = [self.preprocess(image) for image in images]
        of_size: dict[tuple[int, ...], list[int]] = {}
        for number, x in enumerate(preprocessed):
            of_size.setdefault(x.shape, []).append(number)
        results: dict[int, tuple[_Result, float]] = {}
        for numbers in of_size.values():
            together = self._engine.input_shape[0] or len(numbers)
            for start in range(0, len(numbers), together):
                part = numbers[start : start + together]
                output, ms = self.run_timed(np.concatenate([preprocessed[n] for n in part]))
                for place, number in enumerate(part):
                    height, width = images[number].shape[:2]
                    result = finish(output[place : place + 1], (height, width))
                    results[number] = result, ms
        return [results[number] for number in range(len(images))]

    def _label_and_confidence(
        self, output: np.ndarray, size_hw: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if self.exported.output_op == "argmax":
            return self.postprocess(output, size_hw), None
        if self.exported.output_op == "confidence":
            labels, confidence = output[0, 0].astype("int32"), output[0, 1]
        else:
            labels, confidence = most_likely(output[0], logits=self.exported.output_op == "none")
        return self._restored(labels, size_hw), self._restored(confidence, size_hw)

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """Return the network's input for an image: a batch of one, (1, C, h, w) of float32.

        Raises:
            DataError: If the array is not an image that the model, or a transform, takes.
        """
        image_format = self.exported.image_format
        if not image_format.is_rgb:
            image = image_format.check(image)
        elif image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise DataError(
                f"{TAKEN}, got an array {image.shape} of {image.dtype}{conversion_of(image)}"
            )
        try:
            data = self.exported.transforms({"img": image_format.values(image)})
        except (ValueError, cv2.error) as error:
            height, width = image.shape[:2]
            raise DataError(
                f"a transform of the export does not take an image of {width} x {height} pixels: "
                f"{last_line(error)}"
            ) from error
        return np.ascontiguousarray(data["img"][np.newaxis])

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Map a preprocessed batch (N, C, H, W) to the graph's output, and note the time.

        A batch smaller than that of an export of fixed size is filled with copies of its last
        image.

        Raises:
            DataError: If the export does not take batches of that shape.
            ExportError: If the output does not fit ``deploy.yaml``, or this process is a fork of
                the one that loaded the model.
        """
        return self.run_timed(batch)[0]

    def run_timed(self, batch: np.ndarray) -> tuple[np.ndarray, float]:
        """Do as :meth:`run`; return also the engine's milliseconds an image."""
        output, seconds = self._engine.run_timed(self.filled(batch))
        self._require_output(output)
        milliseconds = seconds * 1000 / len(output)
        self.engine_ms.append(milliseconds)
        return output[: len(batch)], milliseconds

    def _require_output(self, output: np.ndarray) -> None:
        """Refuse an output that contradicts ``deploy.yaml``."""
        exported = self.exported
        if exported.output_op == "argmax":
            wanted = "labels (N, H, W) of integers"
            fits = output.ndim == 3 and output.dtype.kind in "iu"
        elif exported.output_op == "confidence":
            wanted = "labels and probabilities (N, 2, H, W) of floats"
            fits = output.ndim == 4 and output.shape[1] == 2 and output.dtype.kind == "f"
        else:
            wanted = "scores (N, C, H, W) of floats"
            fits = output.ndim == 4 and output.dtype.kind == "f"
        if not fits:
            raise ExportError(
                f"deploy.yaml says output_op {exported.output_op!r}, which gives {wanted}; the "
                f"model in {exported.model.parent} gives {output.shape} of {output.dtype}; export "
                "again, or correct output_op"
            )
        classes = len(exported.classes)
        if exported.output_op in ("softmax", "none") and classes not in (0, output.shape[1]):
            raise ExportError(
                f"deploy.yaml names {classes} classes, the model in {exported.model.parent} gives "
                f"scores of {output.shape[1]}; export again, or correct the classes"
            )

    def filled(self, batch: np.ndarray) -> np.ndarray:
        """Return a preprocessed batch filled up to the size that the export takes.

        Raises:
            DataError: If it has a shape that the export does not take.
        """
        missing = (self._engine.input_shape[0] or 0) - len(batch)
        if missing > 0:
            batch = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        self.require_shape(batch)
        return batch

    def require_shape(self, batch: np.ndarray) -> None:
        """Refuse a preprocessed batch of a shape that the export does not take.

        Raises:
            DataError: If it has such a shape.
        """
        shape = self._engine.input_shape
        if any(wanted not in (None, n) for wanted, n in zip(shape, batch.shape)):
            raise DataError(
                f"the export takes {written_shape(shape)}, not "
                f"{written_shape(batch.shape)} (N x C x H x W); export with --input_shape for "
                "this size, without it for any (ncnn needs it), or with a Resize in "
                "val_dataset.transforms"
            )

    def postprocess(self, output: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
        """Return the class indices (H, W) of int32 of an image from the output for a batch of one.

        Args:
            output: The graph's output, (1, h, w) or (1, C, h, w).
            size_hw: Height and width of the image.
        """
        return self._restored(self.exported.labels_of(output)[0], size_hw)

    def _restored(self, values: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
        """Return values (h, w) at the size of the image, before transforms changed it."""
        changes = image_compose.size_changes(self.exported.transforms, size_hw)
        for kind, (height, width) in reversed(changes):
            if kind == "padding":
                values = np.ascontiguousarray(values[:height, :width])
            elif values.shape != (height, width):
                values = cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)
        return values
