"""Label maps from an exported model: decode, transform, run, and back to the image's size."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
import paddle
import yaml
from paddle import inference
from paddleseg.cvlibs import manager
from paddleseg.transforms import Compose

from liteseg_plugin.deploy.export import DEPLOY_FILE, OUTPUT_OPS, file_sha256
from liteseg_plugin.errors import DataError, ExportError


class Predictor:
    """An exported model in Paddle Inference.

    Args:
        path: The exported folder, or the ``deploy.yaml`` in it.
        device: ``cpu``, or ``gpu`` where Paddle has one.
        threads: CPU threads; by default as many as this process may use.

    Attributes:
        classes: Names and colours of the classes, as exported; empty for exports of PaddleSeg's.
        engine_ms: Milliseconds that the engine alone took, for each image so far.

    Raises:
        ExportError: If the folder holds no complete export, or Paddle cannot run it.

    Example:
        >>> mask = Predictor("exported/")(cv2.imread("street.png"))  # doctest: +SKIP
    """

    def __init__(
        self, path: str | os.PathLike, device: str = "cpu", threads: int | None = None
    ) -> None:
        path = Path(path)
        path = path if path.suffix in (".yaml", ".yml") else path / DEPLOY_FILE
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            deploy, own = content["Deploy"], content.get("liteseg") or {}
            files = [_beside(path, deploy[key]) for key in ("model", "params")]
            transforms = [dict(t) for t in deploy["transforms"]]
            self._transforms = Compose([manager.TRANSFORMS[t.pop("type")](**t) for t in transforms])
            self._output_op = deploy["output_op"]
            if self._output_op not in OUTPUT_OPS:
                raise ValueError(f"output_op {self._output_op!r}")
            self._scale = float(own.get("evaluation_scale", 1.0))
            self.classes = list(own.get("classes", []))
            checksums = dict(own.get("sha256", {}))
        except FileNotFoundError as error:
            raise ExportError(
                f"{path.parent} is no exported folder: {error.filename} is missing"
            ) from None
        except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ExportError(f"{path} is no deploy.yaml of an export: {error!r}") from error
        for file in files:
            # Paddle loads weights that lack their last bytes, and computes nonsense with them.
            if checksums.get(file.name) not in (None, file_sha256(file)):
                raise ExportError(f"{file} is not the file that was exported; export again")
        self._engine_arguments = (*files, device, threads or _usable_cpus())
        self._engine = _create(*self._engine_arguments)
        self._engine_for_small: inference.Predictor | None = None
        self.engine_ms: list[float] = []

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Segment one image.

        Args:
            image: (H, W, 3) of uint8, BGR, as ``cv2.imread`` reads it.

        Returns:
            Class indices, (H, W) of int32.

        Raises:
            DataError: If the array is no such image.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise DataError(
                f"an image is (H, W, 3) of uint8 in BGR, got {image.shape} of {image.dtype}"
            )
        batch = self._transforms({"img": image.astype("float32")})["img"][np.newaxis]
        started = time.perf_counter()
        output = self._run(batch)[0]
        self.engine_ms.append((time.perf_counter() - started) * 1000)
        label = output if self._output_op == "argmax" else output.argmax(axis=0).astype("int32")
        if label.shape != image.shape[:2]:  # a transform resized the image
            label = cv2.resize(label, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return label

    def _run(self, batch: np.ndarray) -> np.ndarray:
        engine = self._engine
        if min(batch.shape[2:]) * self._scale <= _ONE_CELL:
            if self._engine_for_small is None:
                self._engine_for_small = _create(*self._engine_arguments, onednn=False)
            engine = self._engine_for_small
        [input_name], [output_name] = engine.get_input_names(), engine.get_output_names()
        handle = engine.get_input_handle(input_name)
        handle.reshape(batch.shape)
        handle.copy_from_cpu(np.ascontiguousarray(batch))
        engine.run()
        return engine.get_output_handle(output_name).copy_to_cpu()


# Up to this many pixels the deepest feature is one cell high or wide. Paddle 3's oneDNN then reads
# memory that nobody wrote, and gives other numbers each time.
_ONE_CELL = 32


def _beside(deploy: Path, name: str) -> Path:
    """Return a file of the exported folder; names that lead out of it are refused."""
    if Path(name).name != name:
        raise ExportError(f"{deploy} names {name!r}, which is not a file beside it")
    path = deploy.with_name(name)
    if not path.is_file():
        raise FileNotFoundError(2, "missing", str(path))
    return path


def _usable_cpus() -> int:
    """Return the CPUs that this process may use, which in a container are fewer than there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _create(
    model: Path, params: Path, device: str, threads: int, onednn: bool = True
) -> inference.Predictor:
    config = inference.Config(str(model), str(params))
    config.disable_glog_info()
    if model.suffix == ".json":
        # Without these two, memory optimisation raises on Paddle 3's model format.
        config.enable_new_ir(True)
        config.enable_new_executor(True)
    if device == "gpu":
        config.enable_use_gpu(256, 0)
    else:
        config.disable_gpu()
        if onednn:
            config.enable_mkldnn()
        elif hasattr(config, "disable_mkldnn"):  # Paddle 3 has it on by default
            config.disable_mkldnn()
        config.set_cpu_math_library_num_threads(threads)
    config.enable_memory_optim()
    try:
        return inference.create_predictor(config)
    except Exception as error:
        raise ExportError(
            f"Paddle {paddle.__version__} cannot load {model} with {params.name}; the files may "
            f"be cut short, or of another Paddle: {str(error).strip().splitlines()[-1]}"
        ) from error
