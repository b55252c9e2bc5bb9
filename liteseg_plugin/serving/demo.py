"""What an exported model makes of an uploaded picture, for the page that shows it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.runtimes import catalog
from liteseg_plugin.runtimes.choice import AUTO, choose
from liteseg_plugin.serving.uploads import read_upload
from liteseg_plugin.visualization.html import render
from liteseg_plugin.visualization.overlay import overlay


class Model:
    """An exported model, in each runtime that can run it here; ``runtime`` is the first to offer.

    Takes what :class:`Predictor` does.

    Attributes:
        exported: What was exported.
        engines: Names of the available engines, such as ``openvino`` or ``openvino int8``.

    Raises:
        DeviceError: If Paddle has no such device.
        ExportError: If the folder has no complete export.
    """

    def __init__(
        self,
        path: str | os.PathLike | ExportedModel,
        device: str = "auto",
        threads: int | None = None,
        runtime: str = AUTO,
    ) -> None:
        exported = path if isinstance(path, ExportedModel) else ExportedModel.read(path)
        self.exported = exported
        if not exported.image_format.takes_pictures:
            raise ExportError(
                f"{path} takes images of {exported.image_format}, but uploads are RGB of 8 bits; "
                "segment files with liteseg infer"
            )

        def load(engine: str) -> Predictor:
            runtime, _, precision = engine.partition(" ")
            return Predictor(exported, runtime, device, threads, precision or "fp32")

        self._load = lru_cache(maxsize=None)(load)
        self._lock = threading.Lock()
        first = self._load(choose(exported, runtime, device).runtime).runtime
        int8 = catalog.installed_for(exported, device, "int8")
        self.engines = []
        for name in dict.fromkeys([first, *catalog.installed_for(exported, device)]):
            self.engines.append(name)
            if name in int8:
                self.engines.append(f"{name} int8")

    def segment(self, path: str, engine: str) -> tuple[np.ndarray, str]:
        """Segment an uploaded picture by one of ``engines``.

        Returns:
            The overlay (H, W, 3) of uint8, BGR, and HTML: time, legend and shares of the classes.

        Raises:
            DataError: If the file is not a picture, or one that the page or the export rejects.
            ExportError: If the runtime cannot load the model.
        """
        with self._lock:  # memory for one picture
            predictor = self._load(engine)
            started = time.perf_counter()
            image = read_upload(path)
            predictor(image)  # the first run at a size prepares the engine
            label, engine_ms = predictor.timed(image)
            classes = self.exported.named_classes()
            picture = overlay(image, label, classes)
            height, width = label.shape
            result = render(
                "demo.html",
                runtime=engine,
                engine_ms=engine_ms,
                total_ms=(time.perf_counter() - started) * 1000,
                width=width,
                height=height,
                shares=class_shares(label, classes),
            )
        return picture, result


def class_shares(label: np.ndarray, classes: Sequence[ClassInfo]) -> list[dict]:
    """Return name, CSS colour and share in 0..1 of the classes that occur, largest first."""
    found, counts = np.unique(label, return_counts=True)
    shares = [
        {"name": classes[index].name, "color": classes[index].css, "share": count / label.size}
        for index, count in zip(found.tolist(), counts.tolist())
        if index < len(classes)
    ]
    return sorted(shares, key=lambda entry: -entry["share"])
