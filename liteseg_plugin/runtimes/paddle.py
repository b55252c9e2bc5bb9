"""Paddle Inference."""

from __future__ import annotations

import contextlib
import tempfile
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from liteseg_plugin.errors import ExportError, last_line
from liteseg_plugin.runtimes.base import PaddleRuntime, feed_paddle, on_first_gpu, paddle_files
from liteseg_plugin.system.device import Devices, paddle_devices

if TYPE_CHECKING:
    from paddle import inference

    from liteseg_plugin.exported import ModelFiles


class PaddleInference(PaddleRuntime):
    """Paddle Inference.

    On CPU it runs models of Paddle 2's format in the OpenVINO that is part of Paddle 3, and others
    with oneDNN, unless ``accelerated`` is False.
    """

    precisions: ClassVar = {"cpu": ("fp32", "bf16"), "gpu": ("fp32", "fp16")}
    # Up to this many pixels the deepest feature is one cell high or wide. Paddle 3's oneDNN then
    # reads uninitialised memory, and gives different numbers each time.
    ONE_CELL = 32
    # Paddle's OpenVINO keeps about 4 MB for each shape; what sees more shapes runs with oneDNN.
    MOST_SHAPES = 32

    def __init__(
        self,
        files: ModelFiles,
        device: str,
        threads: int,
        precision: str = "fp32",
        accelerated: bool = True,
    ) -> None:
        self._files, self._device, self._threads = files, device, threads
        self._precision = precision
        on_cpu = accelerated and device == "cpu"
        in_openvino = self._create_in_openvino() if on_cpu else None
        self._engine = self._usual = in_openvino or self._create(onednn=on_cpu)
        self.with_onednn = on_cpu and in_openvino is None
        self._shapes: set[tuple[int, ...]] | None = set() if in_openvino else None
        self._without_onednn: inference.Predictor | None = None
        declared = self._engine.get_input_handle(self._engine.get_input_names()[0]).shape()
        # The engine does not report open shapes.
        self.input_shape = tuple(declared) if len(declared) == 4 else files.input_shape

    @classmethod
    def devices(cls) -> Devices:  # noqa: D102 - the interface's
        return on_first_gpu(paddle_devices())

    def feed(self, batch: np.ndarray) -> None:  # noqa: D102 - the interface's
        if self._shapes is not None:
            self._shapes.add(batch.shape)
            if len(self._shapes) > self.MOST_SHAPES:
                self._usual, self.with_onednn = self._create(onednn=True), True
                self._shapes = None
        self._engine = self._usual
        if self.with_onednn and min(batch.shape[2:]) * self._files.scale <= self.ONE_CELL:
            self._without_onednn = self._without_onednn or self._create(onednn=False)
            self._engine = self._without_onednn
        feed_paddle(self._engine, batch)

    def _create_in_openvino(self) -> inference.Predictor | None:
        """Load the model into Paddle's own OpenVINO; return None where that cannot be."""
        from paddle import inference

        known = hasattr(inference.Config, "enable_openvino_engine")
        if self._files.model.suffix == ".json" or not known:
            return None
        config = self._config()
        bf16, fp32 = inference.PrecisionType.Bfloat16, inference.PrecisionType.Float32
        config.enable_openvino_engine(bf16 if self._precision == "bf16" else fp32)
        if not config.openvino_engine_enabled():
            return None
        # It would leave the compiled model in the current folder, and take it from there next time.
        with tempfile.TemporaryDirectory() as cache:
            config.set_optim_cache_dir(cache)
            with contextlib.suppress(Exception):  # as for an operator that it does not know
                return inference.create_predictor(config)
        return None

    def _create(self, onednn: bool) -> inference.Predictor:
        import paddle
        from paddle import inference

        config = self._config()
        if self._device == "gpu":
            half = self._precision == "fp16"
            precision = inference.PrecisionType.Half if half else inference.PrecisionType.Float32
            config.enable_use_gpu(256, 0, precision)
        elif onednn:
            config.enable_mkldnn()
            if self._precision == "bf16":
                config.enable_mkldnn_bfloat16()
        elif hasattr(config, "disable_mkldnn"):  # Paddle 3 has it on by default
            config.disable_mkldnn()
        try:
            return inference.create_predictor(config)
        except Exception as error:
            model, params = paddle_files(self._files)
            raise ExportError(
                f"Paddle {paddle.__version__} cannot load {model} with {params.name}; the files "
                f"may be truncated, or from another Paddle: {last_line(error)}"
            ) from error

    def _config(self) -> inference.Config:
        from paddle import inference

        model, params = paddle_files(self._files)
        config = inference.Config(str(model), str(params))
        config.disable_glog_info()
        if model.suffix == ".json":
            # Without these two, memory optimisation raises on Paddle 3's model format.
            config.enable_new_ir(True)
            config.enable_new_executor(True)
        if self._device == "cpu":
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(self._threads)
        config.enable_memory_optim()
        return config
