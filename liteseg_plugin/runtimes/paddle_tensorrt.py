"""Paddle Inference on a GPU, with TensorRT for the parts of the graph that it takes.

Not run on a GPU by its authors. The calls to Paddle are tested.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from liteseg_plugin.errors import ExportError, last_line, last_words
from liteseg_plugin.runtimes.base import (
    PaddleRuntime,
    SessionCache,
    feed_paddle,
    on_first_gpu,
    paddle_files,
)
from liteseg_plugin.system.device import Devices, paddle_devices
from liteseg_plugin.system.processes import python_command

if TYPE_CHECKING:
    from paddle import inference

    from liteseg_plugin.exported import ModelFiles

LOADED = 4
"""Maximum number of engines on the GPU."""
MIN_SUBGRAPH_SIZE = 3
"""Operators that a part must have to go to TensorRT, as in PaddleSeg."""

# A separate process: it switches Paddle to static graphs, and may crash.
_CONVERT = """
import sys, zlib
from paddle.tensorrt.export import Input, PrecisionMode, TensorRTConfig, convert
model, target, precision, min_subgraph_size, *shape = sys.argv[1:]
shape = [int(n) for n in shape]
images = Input(min_input_shape=shape, optim_input_shape=shape, max_input_shape=shape)
config = TensorRTConfig(inputs=[images], min_subgraph_size=int(min_subgraph_size))
config.precision_mode = PrecisionMode[precision.upper()]
config.save_model_dir = target
convert(model, config)
"""


class PaddleTensorRt(PaddleRuntime):
    """TensorRT subgraphs inside Paddle Inference, on an NVIDIA GPU.

    Each batch shape gets its own engine, whose range of shapes is that shape: open extents need
    no bounds from the user, and none can be exceeded.

    Args:
        files: The model; its Paddle model is read.
        device: ``gpu``.
        threads: Unused.
        precision: ``fp32`` (in which TensorRT may use TF32) or ``fp16``.

    Raises:
        ExportError: If Paddle was compiled without TensorRT.
    """

    precisions: ClassVar = {"gpu": ("fp32", "fp16")}

    def __init__(
        self, files: ModelFiles, device: str, threads: int, precision: str = "fp32"
    ) -> None:
        import paddle
        from paddle import inference

        if not any(inference.get_trt_compile_version()):
            raise ExportError(
                f"Paddle {paddle.__version__} was compiled without TensorRT: install a wheel for "
                "GPUs that has it, or use --runtime tensorrt, which reads the ONNX file"
            )
        self._files, self._precision = files, precision
        self._work = tempfile.TemporaryDirectory(prefix="liteseg_paddle_tensorrt_")
        self._engines: SessionCache[inference.Predictor] = SessionCache(LOADED)
        self.input_shape = files.input_shape

    @classmethod
    def devices(cls) -> Devices:  # noqa: D102 - the interface's
        return on_first_gpu(paddle_devices()).only(cls.precisions.__contains__)

    def feed(self, batch: np.ndarray) -> None:
        """Pass images (N, 3, H, W) to the engine.

        The first batch of a shape waits for minutes, until TensorRT has built its engine.
        """
        self._engine = self._engines.get(batch.shape, lambda: self._create(batch.shape))
        feed_paddle(self._engine, batch)

    def _create(self, shape: tuple[int, ...]) -> inference.Predictor:
        import paddle
        from paddle import inference

        model = self._files.model
        # Paddle reads files in it as late as in the first run.
        work = Path(tempfile.mkdtemp(dir=self._work.name))
        try:
            # enable_tensorrt_engine() is for Paddle 2's format only (Paddle's documentation).
            prepare = _converted if model.suffix == ".json" else _tuned
            return inference.create_predictor(prepare(self._files, shape, self._precision, work))
        except Exception as error:
            raise ExportError(
                f"Paddle {paddle.__version__} built no TensorRT engine of {model} for {shape} in "
                f"{self._precision}: {last_line(error)}"
            ) from error


def _converted(
    files: ModelFiles, shape: Sequence[int], precision: str, work: Path
) -> inference.Config:
    """Configure Paddle Inference for a model of Paddle 3, its parts replaced by engines."""
    target = work / "model"
    numbers = map(str, (MIN_SUBGRAPH_SIZE, *shape))
    result = subprocess.run(
        python_command(_CONVERT, files.model.with_suffix(""), target, precision, *numbers),
        capture_output=True,
        text=True,
        # Some versions of Paddle keep engines in ~/.pp_trt_cache, by names that know no shapes and
        # weights.
        env={**os.environ, "HOME": str(work)},
    )
    if result.returncode != 0:
        raise ExportError(last_words(result))
    return _on_gpu(target.with_suffix(".json"), target.with_suffix(".pdiparams"))


def _tuned(files: ModelFiles, shape: Sequence[int], precision: str, work: Path) -> inference.Config:
    """Configure Paddle Inference for a model of Paddle 2, which is cut and replaced at loading.

    Where it is cut, tensors of the graph become inputs, and TensorRT wants the range of shapes of
    each: a run without TensorRT collects them.
    """
    from paddle import inference

    ranges = str(work / "shapes.pbtxt")
    config = _on_gpu(*paddle_files(files))
    config.collect_shape_range_info(ranges)
    collecting = inference.create_predictor(config)
    feed_paddle(collecting, np.zeros(shape, "float32"))
    collecting.run()
    del collecting  # which writes the file
    config = _on_gpu(*paddle_files(files))
    config.enable_tensorrt_engine(
        workspace_size=1 << 30,
        max_batch_size=shape[0],
        min_subgraph_size=MIN_SUBGRAPH_SIZE,
        precision_mode=(
            inference.PrecisionType.Half if precision == "fp16" else inference.PrecisionType.Float32
        ),
        # What Paddle would keep is found again by names of tensors, not by weights.
        use_static=False,
        use_calib_mode=False,
    )
    config.enable_tuned_tensorrt_dynamic_shape(ranges, True)
    config.enable_memory_optim()
    return config


def _on_gpu(model: Path, params: Path) -> inference.Config:
    from paddle import inference

    config = inference.Config(str(model), str(params))
    config.disable_glog_info()
    config.enable_use_gpu(256, 0)
    return config
